"""Values of a shard by the byte at which they begin, wherever that is.

An array whose stride is one byte has at index ``i`` the value that begins at byte ``i``. So one value, or thousands of them, are
one step of NumPy's indexing away, without a view being made of each, and NumPy holds every index against the bounds.
"""

import math
from collections.abc import Callable
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.format.arrays import Array

__all__ = ['Windows']


class Windows:
    """Views of bytes. They keep the bytes alive.

    Args:
        view: The bytes.
        data: The same, as what makes bytes of its slices.
    """

    def __init__(self, view: memoryview, data: bytes | mmap) -> None:
        self._view = view
        self._data = data
        self._numbers: dict[np.dtype[Any], NDArray[Any]] = {}

    def numbers(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Numbers by the byte at which they begin, which needs no alignment."""
        if dtype not in self._numbers:
            self._numbers[dtype] = self.arrays(dtype, ())
        return self._numbers[dtype]

    def arrays(self, dtype: np.dtype[Any], shape: tuple[int, ...], skip: int = 0) -> NDArray[Any]:
        """Arrays in C order, which have at least one value, by the byte ``skip`` bytes before the one at which they begin."""
        starts = len(self._view) - skip - dtype.itemsize * math.prod(shape) + 1
        if starts <= 0:
            return np.empty((0, *shape), dtype)
        strides = [1, *(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))]
        views: NDArray[Any] = np.ndarray((starts, *shape), dtype, self._view, skip, strides)
        return views

    def array_reader(self, encoding: Array) -> Callable[[int, int], NDArray[Any]]:
        """A function that decodes the array between two bytes, as the encoding does, and raises what it raises.

        Arrays mostly have the same head, byte for byte, as the one before. Then nothing is left to be looked at.
        """
        view, data = self._view, self._data
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
            if head == missed and shape and 0 not in shape:
                like = head, length, len(value), self.arrays(dtype, shape, length)
            missed = head
            return encoding.decode(value)

        return read
