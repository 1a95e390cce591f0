"""Values of a shard by the byte at which they begin, wherever that is.

An array whose stride is one byte has at index ``i`` the value that begins at byte ``i``. So one value, or thousands of them, are
one step of NumPy's indexing away, without a view being made of each, and NumPy holds every index against the bounds.
"""

import math
import sys
from collections.abc import Callable
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.format.arrays import Array

__all__ = ['LONG_TEXT', 'Windows']

# Longer text is decoded from the map, which costs more to begin and saves a copy.
LONG_TEXT = 1 << 14

# Kinds of windows that are kept.
_MOST_KEPT = 64


class Windows:
    """Views of bytes. They keep the bytes alive.

    Args:
        view: The bytes.
        data: The same, as what makes bytes of its slices.
    """

    def __init__(self, view: memoryview, data: bytes | mmap) -> None:
        self.view = view
        self.data = data
        self._kept: dict[tuple[np.dtype[Any], tuple[int, ...], int], NDArray[Any]] = {}

    @classmethod
    def of(cls, view: memoryview) -> 'Windows | None':
        """The windows of a view of bytes or of a map, if it is of the whole; None also where numbers lie the other way round."""
        data = view.obj
        if sys.byteorder != 'little' or not isinstance(data, (bytes, mmap)) or len(data) != len(view):
            return None
        return cls(view, data)

    def numbers(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Numbers by the byte at which they begin, which needs no alignment."""
        return self.arrays(dtype, ())

    def arrays(self, dtype: np.dtype[Any], shape: tuple[int, ...], skip: int = 0) -> NDArray[Any]:
        """Arrays in C order by the byte ``skip`` bytes before the one at which they begin."""
        found = self._kept.get((dtype, shape, skip))
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept = {}
            found = self._kept[dtype, shape, skip] = self._make(dtype, shape, skip)
        return found

    def _make(self, dtype: np.dtype[Any], shape: tuple[int, ...], skip: int) -> NDArray[Any]:
        size = dtype.itemsize * math.prod(shape)
        starts = len(self.view) - skip - size + 1
        if starts <= 0:
            return np.empty((0, *shape), dtype)
        if not size:
            return np.empty((starts, *shape), dtype)
        strides = [1, *(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))]
        views: NDArray[Any] = np.ndarray((starts, *shape), dtype, self.view, skip, strides)
        return views

    def array_reader(self, encoding: Array) -> Callable[[int, int], NDArray[Any]]:
        """A function that decodes the array between two bytes, as the encoding does, and raises what it raises.

        Arrays mostly have the same head, byte for byte, as the one before. Then nothing is left to be looked at.
        """
        view, data = self.view, self.data
        # One tuple, as other threads may look at it: its head, the bytes of that, all bytes, and arrays like it.
        like: tuple[bytes, int, int, NDArray[Any]] = (b'', 0, -1, np.empty(0))
        missed = b''

        def read(start: int, end: int) -> NDArray[Any]:
            head, length, size, arrays = like
            if size == end - start and data[start : start + length] == head:
                array: NDArray[Any] = arrays[start].copy()
                return array
            return read_other(view[start:end])

        def read_other(value: memoryview) -> NDArray[Any]:
            nonlocal like, missed
            dtype, shape, length = encoding.read_head(value)
            head = bytes(value[:length])
            # Not at the first of a kind: where every array is of another shape, it would not be the last either.
            if head == missed and shape:
                like = head, length, len(value), self.arrays(dtype, shape, length)
            missed = head
            return encoding.decode(value)

        return read
