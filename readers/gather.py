"""Whole columns of many samples of MDS shards: numbers and arrays by a step of NumPy for each shard, the rest in one pass.

Nothing here says what is wrong with a sample: where one is not as it should be, there are no columns, and whoever reads the
samples one by one is told.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from streaming.format.arrays import Array
from streaming.format.columns import BFloat16, Bool, Encoding, Raw, Scalar, Str, from_bfloat16
from streaming.readers.windows import LONG_TEXT, Windows

__all__ = ['Column', 'Empty', 'Grid', 'Mapped', 'Schema', 'gather', 'gather_run', 'spans']

# The values of a column: numbers (samples,) or arrays of one dtype and shape (samples, ...); else a list.
Column = NDArray[Any] | list[Any]

Int64Array = NDArray[np.int64]

# Makes an array of a shape and a dtype, whatever is in it.
Empty = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]

# Where values begin and end.
Spans = Iterable[tuple[int, int]]

_BYTE = np.dtype('u1')
_HALF = np.dtype('<u2')
_SIZE = np.dtype('<u4')
# As `LONG_TEXT`, where texts are read as they lie, out of caches: Python has memory at hand for shorter copies.
_LONG_TEXT_IN_ORDER = 512

# Arrays of so many bytes are copied once rather than gathered.
_LONG_ROW = 512

_failures = (ValueError, OverflowError, LookupError)


class Schema:
    """How the columns of a shard are gathered. Two of the same columns are the same object.

    Args:
        names: Of the columns.
        encodings: Of the columns.
        wanted: Which columns to decode.
    """

    def __init__(self, names: Sequence[str], encodings: Sequence[Encoding], wanted: Sequence[bool]) -> None:
        takes = [_taker(encoding) if need else None for encoding, need in zip(encodings, wanted, strict=True)]
        self.columns = list(zip(names, (encoding.size for encoding in encodings), takes, strict=True))
        # Whether values are copied as they lie, so that it takes no longer to make a batch than to hand one over.
        self.is_plain = all(take is None or _is_plain(encoding) for encoding, take in zip(encodings, takes, strict=True))
        self.variable = sum(encoding.size is None for encoding in encodings)
        self._fixed = _fixed_columns(names, encodings, wanted)
        self._sample_bytes = sum(encoding.size or 0 for encoding in encodings)

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(names: tuple[str, ...], encodings: tuple[Encoding, ...], wanted: tuple[bool, ...]) -> 'Schema':
        """The schema of some columns."""
        return Schema(names, encodings, wanted)

    def grid(self, windows: Windows, offsets: NDArray[np.uint32]) -> 'Grid | None':
        """The columns of a shard whose samples are all alike; None if these have to be looked at one by one.

        Args:
            windows: The shard's bytes.
            offsets: Where samples begin, and where the last one ends, which is the end of the bytes, (samples + 1,).
        """
        if self._fixed is None or len(offsets) < 2 or (offsets[1:] - offsets[:-1] != self._sample_bytes).any():
            return None
        begin = int(offsets[0])
        return [
            GridColumn(
                column.name, windows.arrays(column.dtype, column.shape)[begin + column.at :: self._sample_bytes], column.finish
            )
            for column in self._fixed
        ]


@dataclass(frozen=True, slots=True, eq=False)
class GridColumn:
    """A column of a shard whose samples are all alike.

    Args:
        name: Its name.
        values: Its values as they lie in the shard, (samples, ...).
        finish: What becomes of those that were copied. Raises one of the failures if they are not what they should be.
    """

    name: str
    values: NDArray[Any]
    finish: Callable[[NDArray[Any]], NDArray[Any]]


# The columns that are wanted.
Grid = list[GridColumn]


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """A shard whose columns can be gathered.

    Args:
        schema: Its columns.
        windows: Its bytes.
        bounds: Where in them each sample begins and ends, uint32 (samples, 2).
        grid: Its columns, where all samples are alike. None: each has to be looked at.
    """

    schema: Schema
    windows: Windows
    bounds: NDArray[np.uint32]
    grid: Grid | None


def gather(
    shards: Sequence[Mapped], numbers: Sequence[Int64Array], places: Int64Array | None, empty: Empty = np.empty
) -> dict[str, Column] | None:
    """The columns of some samples (N,), by name.

    Args:
        shards: The shards that hold them.
        numbers: Which samples of each shard.
        places: Where in the batch these samples stand, shard after shard, (N,). None: in this order.
        empty: Makes arrays for the columns of long arrays. Default: numpy.empty.

    Returns:
        The columns, or None where a sample is not what the format says, or the shards have not the same columns.
    """
    schema = shards[0].schema
    if any(shard.schema is not schema for shard in shards):
        return None
    counts = [len(some) for some in numbers]
    grids = [shard.grid for shard in shards if shard.grid is not None]
    if len(grids) == len(shards):
        return _gather_alike(_Batch(grids, counts, places, empty), numbers[0] if len(numbers) == 1 else np.concatenate(numbers))
    batch = _Batch([shard.windows for shard in shards], counts, places, empty)
    bounds = [shard.bounds[some] for shard, some in zip(shards, numbers, strict=True)]
    starts, ends = (bounds[0] if len(bounds) == 1 else np.concatenate(bounds)).astype(np.int64).T
    try:
        found = spans(schema, starts, ends, lambda windows_of: batch.take(windows_of, starts))
        if found is None:
            return None
        columns = zip(schema.columns, found, strict=True)
        return {name: take(batch, begin, end) for (name, _, take), (begin, end) in columns if take is not None}
    except _failures:
        return None


def gather_run(grid: Grid, first: int, count: int, empty: Empty = np.empty) -> dict[str, Column] | None:
    """What `gather` gives of so many samples that lie one after the other."""
    columns: dict[str, Column] = {}
    for column in grid:
        values = column.values[first : first + count]
        copied = empty(values.shape, values.dtype)
        copied[...] = values
        try:
            columns[column.name] = column.finish(copied)
        except _failures:
            return None
    return columns


def _gather_alike(batch: '_Batch[Grid]', numbers: Int64Array) -> dict[str, Column] | None:
    try:
        return {
            column.name: column.finish(batch.take(partial(_values_of, number), numbers, ordered=True))
            for number, column in enumerate(batch.first)
        }
    except _failures:
        return None


def _values_of(number: int, grid: Grid) -> NDArray[Any]:
    return grid[number].values


def spans(
    schema: Schema, starts: Int64Array, ends: Int64Array, take: Callable[[Callable[[Windows], NDArray[Any]]], NDArray[Any]]
) -> list[tuple[Int64Array, Int64Array]] | None:
    """Where the values of samples (N,) begin and end, (N,) and (N,) a column; None where their sizes do not add up.

    Args:
        schema: The columns.
        starts: Where the samples begin, (N,).
        ends: Where they end, (N,).
        take: Gives values at their beginnings, from what it is to take them of.

    Raises:
        IndexError: a sample is not even as long as its sizes.
    """
    sizes: Iterator[Int64Array] = iter(())
    if schema.variable:
        sizes = iter(take(lambda windows: windows.arrays(_SIZE, (schema.variable,))).astype(np.int64).T)
    found = []
    begin = starts + 4 * schema.variable
    for _, size, _ in schema.columns:
        end = begin + (next(sizes) if size is None else size)
        found.append((begin, end))
        begin = end
    return None if (begin != ends).any() else found


# What a shard's values are taken from.
_Shard = TypeVar('_Shard')


class _Batch(Generic[_Shard]):
    """What the values of a batch's samples are taken from, shard after shard, and where in the batch each sample stands."""

    def __init__(self, shards: list[_Shard], counts: list[int], places: Int64Array | None, empty: Empty) -> None:
        ends = accumulate(counts)
        self._parts = [(one, slice(end - count, end)) for one, end, count in zip(shards, ends, counts, strict=True)]
        self._places = places
        self._empty = empty

    @property
    def is_mixed(self) -> bool:
        """Whether the samples are of several shards."""
        return len(self._parts) > 1

    @property
    def first(self) -> _Shard:
        """The shard that holds the first sample."""
        return self._parts[0][0]

    def take(self, values_of: Callable[[_Shard], NDArray[Any]], at: Int64Array, *, ordered: bool = False) -> NDArray[Any]:
        """Values by where in their shard they are; in the order of ``at``, or in that of the batch."""
        first = values_of(self.first)
        is_long = ordered and first.ndim > 1 and first[:1].nbytes >= _LONG_ROW
        if not self.is_mixed:
            return self._copy_run(first, at) if is_long and _is_run(at) else first[at]
        if is_long and self._places is not None:
            return self._stack(values_of, at)
        found = np.empty((len(at), *first.shape[1:]), first.dtype)
        for shard, part in self._parts:
            found[self._places[part] if ordered and self._places is not None else part] = values_of(shard)[at[part]]
        return found

    def _stack(self, values_of: Callable[[_Shard], NDArray[Any]], at: Int64Array) -> NDArray[Any]:
        """What `take` gives in the order of the batch, copied once, and not first into the order of shards."""
        assert self._places is not None
        views = [view for shard, part in self._parts for view in map(values_of(shard).__getitem__, at[part].tolist())]
        in_order = map(views.__getitem__, np.argsort(self._places).tolist())
        stacked = self._empty((len(at), *views[0].shape), views[0].dtype)
        np.concatenate(list(in_order), out=stacked.reshape(-1, *views[0].shape[1:]))
        return stacked

    def _copy_run(self, values: NDArray[Any], at: Int64Array) -> NDArray[Any]:
        """What `take` gives of values that lie at equal distances, in the order in which they lie."""
        first, second, last = int(at[0]), int(at[1]), int(at[-1])
        run = values[first : last + 1 : second - first]
        if len(run) != len(at):  # a slice, unlike an index, is silent about what is not there
            raise IndexError(f'values up to place {last} of {len(values)}')
        found = self._empty(run.shape, run.dtype)
        found[...] = run
        return found

    def read(self, read: Callable[[_Shard, Spans], list[Any]], begin: Int64Array, end: Int64Array) -> list[Any]:
        """Values by where they begin and end, in the order of the batch; ``read`` is given these of one shard."""
        found: list[Any] = []
        for shard, part in self._parts:
            found += read(shard, zip(begin[part].tolist(), end[part].tolist(), strict=True))
        if self._places is None or not self.is_mixed:
            return found
        in_order = [None] * len(found)
        for place, value in zip(self._places.tolist(), found, strict=True):
            in_order[place] = value
        return in_order


def _is_run(at: Int64Array) -> bool:
    steps = at[1:] - at[:-1]
    return len(steps) > 0 and steps[0] > 0 and bool((steps == steps[0]).all())


def _to_bools(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    if values.max(initial=0) > 1:
        raise ValueError('neither 0 nor 1')
    return values.view(np.bool_)


# From where values begin and end to the values. Raises one of the failures if they are not what they should be.
_Take = Callable[[_Batch[Windows], Int64Array, Int64Array], Column]


def _taker(encoding: Encoding) -> _Take:
    kind = type(encoding)
    if isinstance(encoding, Scalar) and kind is Scalar:
        return partial(_numbers, encoding.dtype)
    if isinstance(encoding, Array) and kind is Array:
        return partial(_arrays, encoding)
    return _PLAIN.get(kind) or partial(_others, encoding)


class _Fixed(NamedTuple):
    """A column whose values have one dtype and shape, so many bytes after the sample's begin; `finish` is a `GridColumn`'s."""

    name: str
    at: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    finish: Callable[[NDArray[Any]], NDArray[Any]]


def _fixed_columns(names: Sequence[str], encodings: Sequence[Encoding], wanted: Sequence[bool]) -> list[_Fixed] | None:
    """Those that are wanted; None where samples may differ in size, or values in more than their bits, or have none."""
    found, at = [], 0
    for name, encoding, need in zip(names, encodings, wanted, strict=True):
        if not encoding.size:
            return None
        if need:
            if isinstance(encoding, Scalar) and type(encoding) is Scalar:
                found.append(_Fixed(name, at, encoding.dtype, (), _as_they_are))
            elif isinstance(encoding, Array) and type(encoding) is Array and encoding.dtype is not None and encoding.shape:
                found.append(_Fixed(name, at, encoding.dtype, encoding.shape, _as_they_are))
            elif type(encoding) is Bool:
                found.append(_Fixed(name, at, _BYTE, (), _to_bools))
            elif type(encoding) is BFloat16:
                found.append(_Fixed(name, at, _HALF, (), from_bfloat16))
            else:
                return None
        at += encoding.size
    return found


def _as_they_are(values: NDArray[Any]) -> NDArray[Any]:
    return values


def _is_plain(encoding: Encoding) -> bool:
    return type(encoding) in (Scalar, Array) or type(encoding) in _PLAIN


def _numbers(dtype: np.dtype[Any], batch: _Batch[Windows], begin: Int64Array, end: Int64Array) -> NDArray[Any]:
    return batch.take(lambda windows: windows.numbers(dtype), begin, ordered=True)


def _bools(batch: _Batch[Windows], begin: Int64Array, end: Int64Array) -> Column:
    return _to_bools(_numbers(_BYTE, batch, begin, end))


def _bfloats(batch: _Batch[Windows], begin: Int64Array, end: Int64Array) -> Column:
    return from_bfloat16(_numbers(_HALF, batch, begin, end))


def _bytes(batch: _Batch[Windows], begin: Int64Array, end: Int64Array) -> Column:
    def read(windows: Windows, spans: Spans) -> list[bytes]:
        data = windows.data
        return [data[start:stop] for start, stop in spans]

    return batch.read(read, begin, end)


def _texts(batch: _Batch[Windows], begin: Int64Array, end: Int64Array) -> Column:
    def read(windows: Windows, spans: Spans) -> list[str]:
        data = windows.data
        return [data[start:stop].decode() for start, stop in spans]

    def read_long(windows: Windows, spans: Spans) -> list[str]:
        view = windows.view
        return [str(view[start:stop], 'utf-8') for start, stop in spans]

    long = LONG_TEXT if batch.is_mixed else _LONG_TEXT_IN_ORDER
    return batch.read(read_long if (end - begin).sum() >= long * len(begin) else read, begin, end)


def _others(encoding: Encoding, batch: _Batch[Windows], begin: Int64Array, end: Int64Array) -> Column:
    def read(windows: Windows, spans: Spans) -> list[Any]:
        view, decode = windows.view, encoding.decode
        return [decode(view[start:stop]) for start, stop in spans]

    return batch.read(read, begin, end)


def _arrays(encoding: Array, batch: _Batch[Windows], begin: Int64Array, end: Int64Array) -> Column:
    start, stop = int(begin[0]), int(end[0])
    dtype, shape, head = encoding.read_head(batch.first.view[start:stop])
    # Of several shapes or dtypes, without values, or 0-dimensional: a number by itself is none of NumPy's arrays.
    if not shape or 0 in shape or (end - begin != stop - start).any():
        return batch.read(partial(_read_arrays, encoding), begin, end)
    if head:
        heads = batch.take(lambda windows: windows.arrays(_BYTE, (head,)), begin)
        if (heads != heads[0]).any():
            return batch.read(partial(_read_arrays, encoding), begin, end)
    return batch.take(lambda windows: windows.arrays(dtype, shape, head), begin, ordered=True)


def _read_arrays(encoding: Array, windows: Windows, spans: Spans) -> list[NDArray[Any]]:
    decode = windows.array_reader(encoding)
    return [decode(start, stop) for start, stop in spans]


_PLAIN: dict[type, _Take] = {Bool: _bools, BFloat16: _bfloats, Raw: _bytes, Str: _texts}
