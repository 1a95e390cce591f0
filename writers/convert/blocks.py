"""Many samples encoded at once: column by column, and put together in one join.

It gives the bytes that encoding sample by sample gives, several times as fast; where a value is not what its column takes it
raises whatever that is, and the samples are then encoded one by one, to find out which.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ColumnTypeError
from streaming.format.columns import get_encoding
from streaming.format.mds import MDSSchema
from streaming.writers.convert.sources.base import Batch

__all__ = ['BlockEncoder']

_INTS = frozenset('bBhHiIqQ')
Fixed = NDArray[np.uint8]


class BlockEncoder:
    """Encodes the samples of a batch.

    Args:
        columns: The encoding of each column.
        fits: By column, makes a value one that its encoding takes.
        may_lack: Columns that a record may lack; None stands in its place.
    """

    def __init__(
        self, columns: Mapping[str, str], fits: Mapping[str, Callable[[Any], Any]], may_lack: Sequence[str] = ()
    ) -> None:
        schema = MDSSchema.from_columns(columns)
        self._columns = [
            _Column(name, encoding, fits.get(name), name in may_lack)
            for name, encoding in zip(schema.names, schema.encodings, strict=True)
        ]

    def encode(self, batch: Batch) -> tuple[bytes, NDArray[np.uint32]]:
        """The samples of a batch, back to back, and the bytes of each (samples,).

        Raises:
            Exception: a record or a value is not what it should be.
        """
        count = batch.count
        encoded = [column.encode(batch) for column in self._columns]
        sizes = [np.fromiter(map(len, values), '<u4', count) for values in encoded if isinstance(values, list)]
        heads = [np.stack(sizes, axis=1).view(np.uint8).reshape(count, 4 * len(sizes))] if sizes else []
        runs = _joined([*heads, *encoded])
        total = np.full(count, sum(run.shape[1] for run in runs if not isinstance(run, list)), np.uint32)
        for size in sizes:
            total += size
        if len(runs) == 1 and not isinstance(runs[0], list):
            return runs[0].tobytes(), total
        parts = [b''] * (count * len(runs))
        for at, run in enumerate(runs):
            parts[at :: len(runs)] = run if isinstance(run, list) else _rows(run)
        return b''.join(parts), total


class _Column:
    """Encodes the values of one column."""

    def __init__(self, name: str, encoding: str, fit: Callable[[Any], Any] | None, may_lack: bool) -> None:
        self._name, self._fit, self._may_lack = name, fit, may_lack
        self._get = itemgetter(name)
        found = get_encoding(encoding)
        self._encode, self._size = found.encode, found.size
        # A type whose values become an array at once. Other floats are rounded, and refused where they are too large.
        self._dtype = np.dtype('<' + found.code) if found.code is not None and found.code in _INTS | {'d'} else None
        self._exact = _dtype_of(encoding, found.code)
        self._is_text = encoding == 'str'

    def encode(self, batch: Batch) -> 'list[bytes] | Fixed':
        """The bytes of the values: a list where their sizes vary, else an array (samples, bytes)."""
        values = self._values(batch)
        if isinstance(values, np.ndarray):
            if values.dtype == self._exact and values.nbytes == (self._size or 0) * len(values):
                return _as_bytes(values)
            values = values.tolist() if values.ndim == 1 else list(values)
        if self._fit is not None:
            values = list(map(self._fit, values))
        kinds = set(map(type, values))
        if kinds == {str} and self._is_text:
            return list(map(str.encode, values))
        if self._dtype is not None and kinds and kinds <= ({int} if self._dtype.kind in 'iu' else {int, float}):
            return _as_bytes(_numbers(values, self._dtype))
        encode = self._encode
        made = values if kinds == {bytes} else [value if type(value) is bytes else encode(value) for value in values]
        if self._size is None:
            return list(made)
        if any(len(data) != self._size for data in made):
            raise ColumnTypeError(f'column {self._name!r} has values of another size than {self._size}')
        return np.frombuffer(b''.join(made), np.uint8).reshape(len(made), self._size)

    def _values(self, batch: Batch) -> Any:
        if batch.columns is not None and self._name in batch.columns:
            return batch.columns[self._name]
        if self._may_lack:
            return [record.get(self._name) for record in batch.records]  # type: ignore[union-attr]
        return list(map(self._get, batch.records))  # type: ignore[arg-type]


def _dtype_of(encoding: str, code: str | None) -> np.dtype[Any] | None:
    """Of arrays whose bytes are those of the encoding; None where there are none."""
    if code is not None:
        return np.dtype('<' + code)
    if encoding.startswith('ndarray:') and encoding.count(':') == 2:
        return np.dtype(encoding.split(':')[1])
    return np.dtype('?') if encoding == 'bool' else None


def _numbers(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers as an array.

    Raises:
        OverflowError: one does not fit.
    """
    if dtype.kind == 'f' or dtype.itemsize == 8:
        return np.array(values, dtype)
    wide = np.array(values, np.int64)
    limits = np.iinfo(dtype)
    if len(wide) and (wide.min() < limits.min or wide.max() > limits.max):
        raise OverflowError
    return wide.astype(dtype)


def _as_bytes(values: NDArray[Any]) -> Fixed:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder('<'))
    return np.frombuffer(little.tobytes(), np.uint8).reshape(len(values), -1 if len(values) else values.dtype.itemsize)


def _joined(columns: 'Sequence[list[bytes] | Fixed]') -> 'list[list[bytes] | Fixed]':
    """The same columns, those of fixed size that follow each other as one."""
    runs: list[list[bytes] | Fixed] = []
    for column in columns:
        if runs and not isinstance(column, list) and not isinstance(runs[-1], list):
            runs[-1] = np.concatenate([runs[-1], column], axis=1)
        else:
            runs.append(column)
    return runs


def _rows(array: Fixed) -> list[bytes]:
    """The rows of an array as bytes."""
    width = array.shape[1]
    data = array.tobytes()
    return [data[at : at + width] for at in range(0, len(data), width)] if width else [b''] * len(array)
