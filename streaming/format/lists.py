"""Columns of lists: any number of values of one encoding."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streaming.format.columns import Bytes, Encoding
from streaming.format.images import pack_parts, unpack_parts

__all__ = ['ListOf']

_RESERVED = bytes(4)


class ListOf(Encoding):
    """A list of values of another encoding: four bytes for later, then the values with their sizes.

    Args:
        element: The encoding of the values.
    """

    def __init__(self, element: Encoding) -> None:
        self.name = f'list[{element.name}]'
        self.is_safe = element.is_safe
        # The old package has lists of images only.
        self.needs = element.needs or (None if element.name in ('pil', 'png', 'jpeg') else 'list')
        self._element = element

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, (str, bytes, bytearray, memoryview)):
            raise self.refuse(value, 'a list')
        encode = self._element.encode
        return _RESERVED + pack_parts([item if type(item) is bytes else encode(item) for item in value])

    def decode(self, data: Bytes) -> list[Any]:
        if data[:4] != _RESERVED:
            raise ValueError(f'it begins with {bytes(data[:4])!r}, not with four zeros')
        parts = unpack_parts(data[4:])
        if self._element.size is not None and any(len(part) != self._element.size for part in parts):
            raise ValueError(f'its values are not of the {self._element.size} bytes of {self._element.name}')
        return [self._element.decode(part) for part in parts]
