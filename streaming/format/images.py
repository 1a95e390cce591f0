"""Encodings of images: as raw pixels, as PNG, as JPEG, and lists of JPEG files. Pillow, which does the work, is an extra."""

import struct
from collections.abc import Iterable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from streaming.errors import MissingExtraError
from streaming.format.columns import Bytes, Encoding

__all__ = ['Jpeg', 'JpegArray', 'Pil', 'Png', 'pack_parts', 'unpack_parts']


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("columns of images need Pillow: pip install 'streaming-dataset[images]'") from error
    return Image


def _open(data: Bytes) -> Any:
    """Decode an image file whole, within Pillow's limit on pixels."""
    pillow = _pillow()
    try:
        image = pillow.open(BytesIO(data))
        image.load()
    except pillow.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except (OSError, SyntaxError, struct.error, EOFError, IndexError, KeyError, TypeError, MemoryError) as error:
        # What Pillow raises for files that are broken in one way or another.
        raise ValueError(f'it is no image, or a broken one: {error}') from error
    return image


class _Image(Encoding):
    def _check(self, value: Any) -> Any:
        if not isinstance(value, _pillow().Image):
            raise self.refuse(value, 'a PIL.Image.Image')
        return value


class Pil(_Image):
    """Size and mode, then the raw pixels."""

    name = 'pil'

    def encode(self, value: Any) -> bytes:
        image = self._check(value)
        mode = image.mode.encode()
        head: bytes = struct.pack('<III', image.width, image.height, len(mode)) + mode
        return head + bytes(image.tobytes())

    def decode(self, data: Bytes) -> Any:
        if len(data) < 12:
            raise ValueError('its size and mode are cut off')
        width, height, length = struct.unpack_from('<III', data)
        if length > len(data) - 12:
            raise ValueError('its mode is cut off')
        mode = str(data[12 : 12 + length], 'utf-8')
        pillow = _pillow()
        try:
            # Pixels are checked against the size before anything is allocated.
            expected = (
                len(pillow.new(mode, (8, 1)).tobytes()) * -(-width // 8)
                if mode == '1'
                else width * len(pillow.new(mode, (1, 1)).tobytes())
            )
            if expected * height != len(data) - 12 - length:
                raise ValueError(f'{len(data) - 12 - length} bytes are not {width} x {height} pixels of mode {mode}')
            return pillow.frombytes(mode, (width, height), bytes(data[12 + length :]))
        except (KeyError, OSError, MemoryError) as error:
            raise ValueError(f'there is no mode {mode!r}: {error}') from error


class Png(_Image):
    """A PNG file."""

    name = 'png'

    def encode(self, value: Any) -> bytes:
        file = BytesIO()
        self._check(value).save(file, format='PNG')
        return file.getvalue()

    def decode(self, data: Bytes) -> Any:
        return _open(data)


class Jpeg(_Image):
    """A JPEG file. An image that was opened from one keeps its bytes."""

    name = 'jpeg'

    def encode(self, value: Any) -> bytes:
        image = self._check(value)
        filename = getattr(image, 'filename', '')
        if image.format == 'JPEG' and filename:
            return Path(filename).read_bytes()
        file = BytesIO()
        image.save(file, format='JPEG')
        return file.getvalue()

    def decode(self, data: Bytes) -> Any:
        return _open(data)


class JpegArray(Encoding):
    """JPEG files, given as bytes, decoded to images."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, value: Any) -> bytes:
        parts = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytearray)) else None
        if parts is None or not all(isinstance(part, (bytes, bytearray, memoryview)) for part in parts):
            raise self.refuse(value, 'a sequence of the bytes of JPEG files')
        return pack_parts([bytes(part) for part in parts])

    def decode(self, data: Bytes) -> list[Any]:
        return [_open(part) for part in unpack_parts(data)]


def pack_parts(parts: list[bytes]) -> bytes:
    """Their number, their sizes, and the parts."""
    return np.array([len(parts), *map(len, parts)], '<u4').tobytes() + b''.join(parts)


def unpack_parts(data: Bytes) -> list[Bytes]:
    """The inverse of `pack_parts`.

    Raises:
        ValueError: the sizes are not those of the bytes.
    """
    count = int.from_bytes(data[:4], 'little') if len(data) >= 4 else -1
    head = 4 + 4 * count
    if count < 0 or head > len(data):
        raise ValueError(f'the sizes of its {max(count, 0)} parts are cut off')
    bounds = [head, *(head + np.cumsum(np.frombuffer(data, '<u4', count, 4), dtype=np.int64)).tolist()]
    if bounds[-1] != len(data):
        raise ValueError(f'its {count} parts do not fill its {len(data)} bytes')
    return [data[start:end] for start, end in pairwise(bounds)]
