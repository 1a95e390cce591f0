"""Columns of NumPy arrays: their dtype unless that is fixed, their shape unless that is fixed, their values in C order."""

import math
from typing import Any

import numpy as np

from streaming.errors import ArgumentError
from streaming.format.columns import Bytes, Encoding

__all__ = ['DTYPE_CODES', 'Array', 'array_encoding']

# Codes of the dtypes that an `ndarray` column may hold, as they stand in front of its values.
DTYPE_CODES = {
    'uint8': 8,
    'int8': 9,
    'uint16': 16,
    'int16': 17,
    'float16': 18,
    'uint32': 32,
    'int32': 33,
    'float32': 34,
    'uint64': 64,
    'int64': 65,
    'float64': 66,
}
_DTYPES = {code: np.dtype(name).newbyteorder('<') for name, code in DTYPE_CODES.items()}
# Those whose bytes in memory are those in a file.
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_BYTE = [bytes([value]) for value in range(256)]
# What six bits of a head can say.
_MOST_DIMENSIONS = 63
_DIMENSIONS = tuple(np.dtype(name) for name in ('<u1', '<u2', '<u4', '<u8'))


class Array(Encoding):
    """A NumPy array.

    Attributes:
        dtype: Of all values, None where each has its own.
        shape: Of all values, None where each has its own.
    """

    def __init__(self, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> None:
        self.name = ':'.join(
            ['ndarray', *([dtype] if dtype else []), *([','.join(map(str, shape))] if shape is not None else [])]
        )
        self.dtype = _DTYPES[DTYPE_CODES[dtype]] if dtype else None
        self.shape = shape
        if self.dtype is not None and shape is not None:
            self.size = self.dtype.itemsize * math.prod(shape)

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, np.ndarray):
            raise self.refuse(value, 'a numpy.ndarray')
        dtype, head = value.dtype, b''
        if self.dtype is None:
            code = _CODES.get(dtype) or DTYPE_CODES.get(dtype.name)
            if code is None:
                raise self.refuse(value, f'arrays of {", ".join(DTYPE_CODES)}, not of {dtype},')
            head = _BYTE[code]
        elif dtype != self.dtype and dtype.name != self.dtype.name:
            raise self.refuse(value, f'arrays of {self.dtype.name}, not of {dtype},')
        if self.shape is None:
            head += self._pack_shape(value)
        elif value.shape != self.shape:
            raise self.refuse(value, f'arrays of shape {self.shape}, not {value.shape},')
        # In C order whatever the array's own.
        data = value.tobytes() if dtype in _CODES else value.astype(dtype.newbyteorder('<')).tobytes()
        return head + data if head else data

    def _pack_shape(self, value: np.ndarray[Any, Any]) -> bytes:
        ndim, shape = value.ndim, value.shape
        if ndim > _MOST_DIMENSIONS:
            raise self.refuse(value, f'arrays of at most {_MOST_DIMENSIONS} dimensions, not {ndim},')
        largest = max(shape, default=0)
        kind = 0 if largest < 1 << 8 else 1 if largest < 1 << 16 else 2 if largest < 1 << 32 else 3
        return b''.join([_BYTE[ndim << 2 | kind], *(size.to_bytes(1 << kind, 'little') for size in shape)])

    def keeps(self, dtype: np.dtype[Any]) -> bool:
        """Whether the values of such an array are written as they lie in memory."""
        return dtype in _CODES and (self.dtype is None or self.dtype == dtype)

    def read_head(self, data: Bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
        """What the array is, and where in ``data`` its values begin, which fill the rest.

        Raises:
            ValueError: this is no array.
        """
        at = 0
        dtype = self.dtype
        if dtype is None:
            dtype = _DTYPES.get(data[0]) if len(data) else None
            if dtype is None:
                raise ValueError(f'its dtype is code {data[0] if len(data) else None}')
            at = 1
        shape = self.shape
        if shape is None:
            if at >= len(data):
                raise ValueError('its shape is missing')
            ndim, kind = data[at] >> 2, _DIMENSIONS[data[at] & 3]
            at += 1
            if at + ndim * kind.itemsize > len(data):
                raise ValueError('its shape is cut off')
            shape = tuple(np.frombuffer(data, kind, ndim, at).tolist()) if ndim else ()
            at += ndim * kind.itemsize
        if math.prod(shape) * dtype.itemsize != len(data) - at:
            raise ValueError(f'{len(data) - at} bytes of values are not an array of {dtype.name} of shape {shape}')
        return dtype, shape, at

    def decode(self, data: Bytes) -> np.ndarray[Any, Any]:
        dtype, shape, at = self.read_head(data)
        # A copy: writable, and independent of the map.
        return np.ndarray(shape, dtype, data, at).astype(dtype.newbyteorder('=')) if math.prod(shape) else np.empty(shape, dtype)


def array_encoding(name: str) -> Array:
    """The encoding ``ndarray``, ``ndarray:DTYPE`` or ``ndarray:DTYPE:2,3``.

    Raises:
        ArgumentError: there is no such dtype, or this is no shape.
    """
    _, *parts = name.split(':')
    if not parts:
        return Array()
    dtype, *shape = parts
    if dtype in DTYPE_CODES and len(shape) <= 1:
        try:
            sizes = tuple(int(size) for size in shape[0].split(',')) if shape else None
        except ValueError:
            sizes = (-1,)
        if sizes is None or (len(sizes) <= _MOST_DIMENSIONS and all(0 <= size < 1 << 32 for size in sizes)):
            return Array(dtype, sizes)
    raise ArgumentError(
        f'no encoding {name!r:.200}; an array is ndarray, ndarray:DTYPE or ndarray:DTYPE:2,3 with one of {", ".join(DTYPE_CODES)}'
    )
