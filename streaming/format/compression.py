"""Codecs by name: ``zstd``, ``zstd:7``, ``gz:9``. A shard is one stream of its codec.

Compressing takes a whole shard. Decompressing takes it as it arrives and stops at the size that the index declares: a few bytes
of a bomb never become gigabytes.
"""

import bz2
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
import zstandard

from streaming.errors import ArgumentError, CorruptError, MissingExtraError

__all__ = ['Codec', 'Decompressor', 'feed_to', 'get_codec', 'get_compressions', 'register_codec']

# The most that one step of decompressing zstd gives.
_STEP_BYTES = 1 << 20


class Decompressor(Protocol):
    """One stream that is being decompressed."""

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take in the next bytes and give what they decompress to so far.

        Raises:
            CorruptError: they are not of this codec, or give more than was declared.
        """
        ...

    def finish(self) -> bytes:
        """Give what is left, once all bytes were fed.

        Raises:
            CorruptError: the stream is not complete, or gave another size than was declared.
        """
        ...


def feed_to(decompressor: Decompressor, data: bytes | memoryview, write: Callable[[bytes], None]) -> None:
    """Let a decompressor take in the next bytes and have what they decompress to so far written, in pieces if it can."""
    if isinstance(decompressor, _ZstdStream):
        decompressor.feed_to(data, write)
    else:
        write(decompressor.feed(data))


class Codec(ABC):
    """A way to compress a shard.

    Args:
        level: How hard to try; None is the codec's own default.

    Attributes:
        name: Its name in an index; also the extension of compressed files.
        levels: The levels it takes, and its default; None where it has none.

    Raises:
        ArgumentError: it does not have this level.
    """

    name: str
    levels: range | None = None
    default_level: int = 0

    def __init__(self, level: int | None = None) -> None:
        if level is not None and (self.levels is None or level not in self.levels):
            known = 'no levels' if self.levels is None else f'levels {self.levels[0]} to {self.levels[-1]}'
            raise ArgumentError(f'compression {self.name!r} has {known}, not {level}')
        self.level = self.default_level if level is None else level

    @property
    def extension(self) -> str:
        """What is appended, after a dot, to the name of a compressed file."""
        return self.name

    @abstractmethod
    def compress(self, data: bytes | memoryview) -> bytes:
        """Compress a whole file."""

    @abstractmethod
    def decompressor(self, size: int) -> Decompressor:
        """Begin to decompress a stream that is declared to give ``size`` bytes."""

    def decompress(self, data: bytes | memoryview, size: int) -> bytes:
        """Decompress a whole file that is declared to give ``size`` bytes.

        Raises:
            CorruptError: it is not of this codec, not complete, or gives another size.
        """
        decompressor = self.decompressor(size)
        return decompressor.feed(data) + decompressor.finish()


class _Counting:
    """Counts what a stream gives against what was declared."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._given = 0

    def _count(self, data: bytes) -> bytes:
        self._given += len(data)
        if self._given > self._size:
            raise CorruptError(f'it decompresses ({self._name}) to more than the {self._size} bytes that the index says')
        return data

    def _end(self, complete: bool, rest: bytes) -> bytes:
        if not complete:
            raise CorruptError(f'its {self._name} stream breaks off after {self._given} bytes, the index says {self._size}')
        if rest:
            raise CorruptError(f'{len(rest)} bytes or more follow its {self._name} stream')
        if self._given != self._size:
            raise CorruptError(f'it decompresses ({self._name}) to {self._given} bytes, the index says {self._size}')
        return b''


class _Zstd(Codec):
    name = 'zstd'
    levels = range(1, 23)
    default_level = 3

    def compress(self, data: bytes | memoryview) -> bytes:
        return zstandard.ZstdCompressor(level=self.level).compress(data)

    def decompressor(self, size: int) -> Decompressor:
        return _ZstdStream(self.name, size)


class _ZstdStream(_Counting):
    # A frame says how much memory it needs. The largest window of any level is 128 MiB; a file that asks for more is hostile.
    _MOST_WINDOW = 1 << 27

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size)
        self._stream = zstandard.ZstdDecompressor(max_window_size=self._MOST_WINDOW).decompressobj(write_size=_STEP_BYTES)
        self._blocks = _ZstdBlocks()

    def feed(self, data: bytes | memoryview) -> bytes:
        parts: list[bytes] = []
        self.feed_to(data, parts.append)
        return b''.join(parts)

    def feed_to(self, data: bytes | memoryview, write: Callable[[bytes], None]) -> None:
        for part in self._blocks.cut(memoryview(data)):
            if self._stream.eof:
                raise CorruptError(f'{len(part)} bytes or more follow its {self._name} stream')
            try:
                given = self._stream.decompress(part)
            except zstandard.ZstdError as error:
                raise CorruptError(f'it is no {self._name}: {error}') from error
            if given:
                write(self._count(given))

    def finish(self) -> bytes:
        return self._end(self._stream.eof, self._stream.unused_data)


class _ZstdBlocks:
    """Cuts the bytes of a zstd frame so that no part gives more than `_STEP_BYTES`, by the headers of its blocks (RFC 8878).

    A block gives at most 128 KiB, but that from 4 bytes. Parts of as few bytes as are safe then are a thousand times smaller than
    those of real data need to be, and each is a call that lets Python's lock go.
    """

    _MOST = _STEP_BYTES // (128 << 10)
    # Magic and descriptor say how long the frame's header is.
    _BEGINNING, _HEADER = 5, 3
    _RLE = 1

    def __init__(self) -> None:
        self._head = b''  # of a header that has not come whole
        self._wanted = self._BEGINNING
        self._skip = 0  # bytes to the next header

    def cut(self, view: memoryview) -> Iterator[memoryview]:
        """The next bytes, part by part."""
        start = at = headers = 0
        while at < len(view):
            if self._skip:
                step = min(self._skip, len(view) - at)
                self._skip -= step
                at += step
                continue
            missing = view[at : at + self._wanted - len(self._head)]
            self._head += missing
            at += len(missing)
            if len(self._head) == self._wanted:
                self._pass_header()
                headers += 1
                if headers == self._MOST:
                    yield view[start:at]
                    start, headers = at, 0
        if start < len(view):
            yield view[start:]

    def _pass_header(self) -> None:
        head, self._head = self._head, b''
        if self._wanted == self._BEGINNING:
            self._wanted = self._HEADER
            with suppress(zstandard.ZstdError):  # what is no frame the decompressor refuses
                self._skip = zstandard.frame_header_size(head) - self._BEGINNING
        else:
            value = int.from_bytes(head, 'little')
            self._skip = 1 if value >> 1 & 3 == self._RLE else value >> 3


class _Chunked(_Counting):
    """A decompressor of the standard library: `decompress(data, max_length)`, `eof`, `unused_data`."""

    def __init__(self, name: str, size: int, stream: Any, pending: Callable[[Any], bytes], error: type[Exception]) -> None:
        super().__init__(name, size)
        self._stream = stream
        self._pending = pending
        self._error = error

    def feed(self, data: bytes | memoryview) -> bytes:
        parts = []
        rest = bytes(data)
        try:
            while True:
                if self._stream.eof and rest:
                    raise CorruptError(f'{len(rest)} bytes or more follow its {self._name} stream')
                # One byte more than declared is enough to know a liar by.
                part = self._count(self._stream.decompress(rest, min(1 << 22, self._size - self._given + 1)))
                parts.append(part)
                rest = self._pending(self._stream)
                if self._stream.eof or (not part and not rest):
                    return b''.join(parts)
                if not rest and len(part) < 1 << 22:
                    return b''.join(parts)
        except (self._error, EOFError) as error:
            raise CorruptError(f'it is no {self._name}: {error}') from error

    def finish(self) -> bytes:
        return self._end(self._stream.eof, self._stream.unused_data)


class _Gzip(Codec):
    name = 'gz'
    levels = range(10)
    default_level = 9

    def compress(self, data: bytes | memoryview) -> bytes:
        packer = zlib.compressobj(self.level, zlib.DEFLATED, 31)
        return packer.compress(data) + packer.flush()

    def decompressor(self, size: int) -> Decompressor:
        stream = zlib.decompressobj(31)
        return _Chunked(self.name, size, stream, lambda stream: bytes(stream.unconsumed_tail), zlib.error)


class _Bzip2(Codec):
    name = 'bz2'
    levels = range(1, 10)
    default_level = 9

    def compress(self, data: bytes | memoryview) -> bytes:
        return bz2.compress(data, self.level)

    def decompressor(self, size: int) -> Decompressor:
        return _Chunked(self.name, size, bz2.BZ2Decompressor(), lambda stream: b'', OSError)


class _Cramjam(Codec):
    """A codec of the cramjam package, which decompresses whole buffers into one of a declared size."""

    _module: str

    def _load(self) -> Any:
        try:
            import cramjam
        except ImportError as error:
            raise MissingExtraError(
                f"compression {self.name!r} needs cramjam: pip install 'streaming-dataset[codecs]'"
            ) from error
        return getattr(cramjam, self._module)

    def decompressor(self, size: int) -> Decompressor:
        return _WholeBuffer(self.name, size, self._load(), self._into)

    @abstractmethod
    def _into(self, module: Any, data: bytes, target: Any) -> int:
        """Decompress into a buffer, which may be too small (then it raises), and say how many bytes that gave."""


class _WholeBuffer(_Counting):
    def __init__(self, name: str, size: int, module: Any, into: Callable[[Any, bytes, Any], int]) -> None:
        super().__init__(name, size)
        self._module = module
        self._into = into
        self._parts: list[bytes] = []

    def feed(self, data: bytes | memoryview) -> bytes:
        self._parts.append(bytes(data))
        return b''

    def finish(self) -> bytes:
        # Memory is taken as it is written, so a declared size that lies costs nothing, unless there is not so much at all.
        try:
            target = np.empty(self._size + 1, np.uint8)
        except MemoryError:
            raise CorruptError(f'the index says that it decompresses ({self._name}) to {self._size} bytes: no memory') from None
        try:
            given = self._into(self._module, b''.join(self._parts), target)
        except Exception as error:  # cramjam raises its own type for what is no stream, and others for a full buffer
            raise CorruptError(f'it is no {self._name}, or gives more than {self._size} bytes: {error}') from error
        data = self._count(target[:given].tobytes())
        self._end(True, b'')
        return data


class _Brotli(_Cramjam):
    name = 'br'
    levels = range(12)
    default_level = 11
    _module = 'brotli'

    def compress(self, data: bytes | memoryview) -> bytes:
        return bytes(self._load().compress(data, level=self.level))

    def _into(self, module: Any, data: bytes, target: Any) -> int:
        return int(module.decompress_into(data, target))


class _Snappy(_Cramjam):
    name = 'snappy'
    _module = 'snappy'

    def compress(self, data: bytes | memoryview) -> bytes:
        return bytes(self._load().compress_raw(data))

    def _into(self, module: Any, data: bytes, target: Any) -> int:
        return int(module.decompress_raw_into(data, target))


_ENTRY_POINTS = 'streaming.codecs'

_registry: dict[str, type[Codec]] = {codec.name: codec for codec in (_Zstd, _Gzip, _Bzip2, _Brotli, _Snappy)}


def register_codec(codec: type[Codec]) -> None:
    """Let ``codec.name`` be a compression. Packages name theirs in an entry point of the group ``streaming.codecs`` instead."""
    _registry[codec.name] = codec


def _find(name: str) -> type[Codec] | None:
    found = _registry.get(name)
    if found is None:
        for point in entry_points(group=_ENTRY_POINTS, name=name):
            found = _registry[name] = point.load()
    return found


def get_compressions() -> set[str]:
    """The names of all codecs, with their levels: ``zstd``, ``zstd:1``, ..."""
    names = set(_registry)
    for name, codec in _registry.items():
        names |= {f'{name}:{level}' for level in codec.levels or ()}
    return names


def get_codec(compression: str) -> Codec:
    """The codec that an index or an argument names.

    Args:
        compression: ``name`` or ``name:level``.

    Raises:
        ArgumentError: there is none of that name, or it does not have this level.
    """
    name, mark, level = compression.partition(':')
    codec = _find(name)
    if codec is None:
        raise ArgumentError(f'no compression named {name!r}; there are {", ".join(sorted(_registry))}')
    if not mark:
        return codec()
    if not level.isascii() or not level.isdigit():
        raise ArgumentError(f'the level of compression {compression!r} is no number')
    return codec(int(level))
