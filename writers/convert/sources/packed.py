"""Files that may be compressed as a whole, read from their start: gz, zst, bz2 and xz by their names."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import zstandard

from streaming.errors import FormatError

__all__ = ['content_bytes', 'is_packed', 'open_packed', 'readers_of_packed', 'unpacked']

_BUFFER_BYTES = 1 << 20
# Fed to the decompressor at a time; what that makes of it is held in memory.
_FEED_BYTES = 16 << 10
# Text of this field is compressed to a quarter or so.
_USUAL_RATIO = 4
# From so many files on there is enough to do for all cores, and each is read once, by one part.
_ENOUGH_FILES = 8
# Parts that read one file. Each decompresses what stands before its own lines too, which costs about as much as what becomes of
# lines that are only encoded; so more parts than these would hardly be done sooner.
_MOST_READERS = 4


def is_packed(key: str) -> bool:
    """Whether a file is compressed, by its name."""
    return key.lower().endswith(('.gz', '.tgz', '.zst', '.zstd', '.bz2', '.xz'))


def content_bytes(key: str, size: int, head: bytes) -> int:
    """How long a compressed file is about, uncompressed.

    Args:
        key: Its name.
        size: Its own bytes.
        head: Its first bytes, where they are known.
    """
    if key.lower().endswith(('.zst', '.zstd')) and head:
        try:
            said = zstandard.frame_content_size(head)
        except zstandard.ZstdError:
            said = -1
        # A small one is only the first of many frames.
        if said >= size:
            return said
    return _USUAL_RATIO * size


def readers_of_packed(size: int, part_bytes: int, files: int) -> int:
    """How many parts read a compressed file.

    Args:
        size: How long it is about, uncompressed.
        part_bytes: What a part should have.
        files: How many files there are.
    """
    return 1 if files >= _ENOUGH_FILES else max(1, min(_MOST_READERS, round(size / max(1, part_bytes))))


def open_packed(file: BinaryIO, key: str) -> BinaryIO:
    """The content of a file that may be compressed. Errors of reading it are for `unpacked` to name."""
    name = key.lower()
    opened: Any = file
    if name.endswith(('.gz', '.tgz')):
        opened = gzip.GzipFile(fileobj=file)
    elif name.endswith(('.zst', '.zstd')):
        opened = io.BufferedReader(_Zstd(file), _BUFFER_BYTES)
    elif name.endswith('.bz2'):
        opened = bz2.BZ2File(file)
    elif name.endswith('.xz'):
        opened = lzma.LZMAFile(file)  # noqa: SIM115
    return cast(BinaryIO, opened)


@contextmanager
def unpacked(name: str) -> Iterator[None]:
    """Turn what the decompressors raise into an error that names the file."""
    try:
        yield
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, EOFError) as error:
        raise FormatError(f'{name} cannot be decompressed, or is only a part of a file: {error}') from error


class _Zstd(io.RawIOBase):
    """The frames of a zstd file, one after the other. Unlike the package's own reader it notices a file that was cut."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frames = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: Any = None
        self._rest = b''
        self._made = memoryview(b'')

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast('B')
        while not self._made:
            fed = self._rest or self._file.read(_FEED_BYTES)
            self._rest = b''
            if not fed:
                if self._frame is not None:
                    raise EOFError('its last frame has no end')
                return 0
            self._frame = self._frame or self._frames.decompressobj()
            self._made = memoryview(self._frame.decompress(fed))
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        count = min(len(view), len(self._made))
        view[:count] = self._made[:count]
        self._made = self._made[count:]
        return count
