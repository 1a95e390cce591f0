"""The bytes of a raw shard, mapped: from the file itself, or decompressed into one without a name."""

import io
import mmap
import tempfile
from pathlib import Path
from typing import IO

from streaming.errors import CorruptError, FormatError, NotFoundError
from streaming.files import open_file
from streaming.format.compression import get_codec
from streaming.format.index import FileInfo

__all__ = ['map_raw']

_STEP = 8 << 20


def map_raw(folder: Path, raw: FileInfo, stored: FileInfo, compression: str | None) -> tuple[memoryview, str, int]:
    """Map a raw file.

    Args:
        folder: Where it lies.
        raw: The uncompressed file.
        stored: The compressed one, or the same.
        compression: Its codec.

    Returns:
        The bytes, the path for messages, and how much disk space goes with them.

    Raises:
        NotFoundError: neither file is there.
        FormatError: a file has not the size that the index says, or cannot be decompressed.
    """
    path = folder / raw.basename
    try:
        with open_file(path) as file:
            return _map(file, raw.bytes, path), str(path), 0
    except (FileNotFoundError, NotADirectoryError) as error:
        if compression is None:
            raise NotFoundError(f'{path} does not exist, but the index names it') from error
    except IsADirectoryError as error:
        raise FormatError(f'{path} is a folder, the index names it as a file') from error
    packed = folder / stored.basename
    try:
        # The folder is a source, not a cache: it stays as it is.
        with open_file(packed) as source, tempfile.TemporaryFile(prefix='streaming-') as file:
            try:
                _decompress(source, file, compression, raw.bytes)
            except CorruptError as error:
                raise CorruptError(f'{packed}: {error}') from error
            return _map(file, raw.bytes, packed), str(packed), raw.bytes
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f'neither {path} nor {packed} exists, but the index names them') from error
    except IsADirectoryError as error:
        raise FormatError(f'{error.filename} is a folder, the index names it as a file') from error


def _decompress(source: io.FileIO, target: IO[bytes], compression: str, size: int) -> None:
    decompressor = get_codec(compression).decompressor(size)
    while chunk := source.read(_STEP):
        target.write(decompressor.feed(chunk))
    target.write(decompressor.finish())
    target.flush()


def _map(file: io.FileIO | IO[bytes], size: int, path: Path) -> memoryview:
    found = file.seek(0, 2)
    if found != size:
        raise FormatError(f'{path} has {found} bytes, the index says {size}')
    return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b'')
