"""From a cell of the grid to the sample that is read there, one way for each kind of order.

Samples are numbered through all shards of all streams. A *group* is what is laid out in one grid: all streams, or each alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from streaming.order.config import OrderConfig, StreamSamples
from streaming.order.partition import Grid, Int64Array
from streaming.order.sampling import Drawn, draw_shards, resample
from streaming.order.shuffle import check_shuffle, get_shuffle
from streaming.order.windowed import Windowed, deal_shards

__all__ = ['Arrays', 'Group', 'Lookup', 'Spans', 'compute_here']

# Gives the array of a name, computed by the function unless somebody did so before.
Arrays = Callable[[str, Callable[[], Int64Array]], Int64Array]

Spans = tuple[Int64Array, Int64Array, Int64Array, Int64Array]

# Samples of an array that are looked through at once.
_SCANNED = 1 << 20

# Incomplete rounds through shards whose samples are kept sorted.
_KEPT = 64


def compute_here(name: str, compute: Callable[[], Int64Array]) -> Int64Array:
    """Compute the array, for this process alone."""
    return compute()


class Lookup(Protocol):
    """One epoch's order of a group. Any thread may call it."""

    def ids(self, rows: Int64Array, columns: Int64Array) -> Int64Array:
        """The samples at cells (N,) of the grid whose columns are below what their rows own, int64 (N,)."""
        ...

    def spans(self, rows: Int64Array) -> Spans:
        """When some rows read their shards, never too short: shard (of the group), row, first and last column (spans,)."""
        ...


@dataclass(frozen=True, eq=False)
class Group:
    """Streams that are laid out in one grid.

    Args:
        config: The settings, resolved.
        streams: The streams; they follow one another.
        choose: Samples that the epoch takes of each.
        first_ids: The id of each one's first sample.
        first_shard: How many shards the streams before them have.
        epoch: The epoch, 0-based.
        block_size: The shuffle's block size for this group.
        arrays: Where an array of the epoch's length comes from. Called only for orders of mosaicml-streaming.
    """

    config: OrderConfig
    streams: Sequence[StreamSamples]
    choose: Sequence[int]
    first_ids: Sequence[int]
    first_shard: int
    epoch: int
    block_size: int
    arrays: Arrays

    def __post_init__(self) -> None:
        config = self.config
        if config.is_compatible and config.shuffle and config.shuffle_algo is not None:
            check_shuffle(config.shuffle_algo, config.shuffle_seed, self.epoch, self.block_size)

    @property
    def samples(self) -> int:
        """Samples of the group in the epoch."""
        return sum(self.choose)

    def shards_of(self, ids: Int64Array) -> Int64Array:
        """The shard of each sample, int64 (N,), counting through the group's streams."""
        return self._shard_ids.find(ids)

    @cached_property
    def _shard_ids(self) -> '_ShardIds':
        return _ShardIds(self.streams, self.first_ids)

    # Made when the first sample is asked for: a plan that only counts costs nothing.
    @cached_property
    def lookup(self) -> Lookup:
        """The order."""
        config = self.config
        if config.is_compatible and (config.shuffle or not self._is_whole):
            array = self.arrays(self._name, self._compute)
            return _FromArray(Grid(self.samples, config.rows), array, self._shard_ids)
        drawn = draw_shards(self.streams, self.choose, self.first_ids[0], config, self.epoch)
        if not config.shuffle:
            return _InOrder(Grid(self.samples, config.rows), drawn)
        dealing = deal_shards(drawn, config.rows, config.shuffle_seed)
        return Windowed(dealing, seed=config.shuffle_seed, epoch=self.epoch, block_size=max(1, self.block_size))

    @property
    def _is_whole(self) -> bool:
        return all(count == stream.total for count, stream in zip(self.choose, self.streams, strict=True))

    @property
    def _name(self) -> str:
        """A name for the array that no other array has."""
        config, digest = self.config, hashlib.sha256()
        epoch = self.epoch if config.shuffle or config.sampling_method == 'balanced' else 0
        numbers = (config.rows, config.shuffle_seed, self.block_size, config.sampling_granularity, epoch)
        digest.update(repr((config.shuffle and config.shuffle_algo, config.sampling_method, numbers)).encode())
        for stream, count, first_id in zip(self.streams, self.choose, self.first_ids, strict=True):
            digest.update(f'{count} {first_id} {len(stream.samples)} '.encode())
            digest.update(np.ascontiguousarray(stream.samples, '<i8').data)
        return f'order-{digest.hexdigest()[:32]}'

    def _compute(self) -> Int64Array:
        config = self.config
        units, ids = resample(self.streams, self.choose, self.first_ids, config, self.epoch)
        if not config.shuffle:
            return ids
        assert config.shuffle_algo is not None
        shuffled = get_shuffle(config.shuffle_algo, units, config.rows, config.shuffle_seed, self.epoch, self.block_size)
        return ids[shuffled]


class _ShardIds:
    """The shards of some streams by sample id."""

    def __init__(self, streams: Sequence[StreamSamples], first_ids: Sequence[int]) -> None:
        ends = [first_id + np.cumsum(stream.samples) for stream, first_id in zip(streams, first_ids, strict=True)]
        self._ends = np.concatenate(ends)

    def find(self, ids: Int64Array) -> Int64Array:
        """The shard of each sample, counting through the streams."""
        return np.searchsorted(self._ends, ids, side='right').astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _FromArray:
    """An order that was computed whole: the sample at each slot."""

    grid: Grid
    array: Int64Array
    shards: _ShardIds

    def ids(self, rows: Int64Array, columns: Int64Array) -> Int64Array:
        found: Int64Array = self.array[self.grid.start_of(rows) + columns]
        return found

    def spans(self, rows: Int64Array) -> Spans:
        """As of `Lookup`; the one that takes time by the number of samples."""
        found = []
        for row in rows.tolist():
            begin, end = self.grid.start_of(np.array([row, row + 1])).tolist()
            firsts: dict[int, int] = {}
            lasts: dict[int, int] = {}
            for at in range(begin, end, _SCANNED):
                shards = self.shards.find(self.array[at : min(at + _SCANNED, end)])
                which, first = np.unique(shards, return_index=True)
                _, from_end = np.unique(shards[::-1], return_index=True)
                for shard, one, other in zip(which.tolist(), first.tolist(), from_end.tolist(), strict=True):
                    firsts.setdefault(shard, at - begin + one)
                    lasts[shard] = at - begin + len(shards) - 1 - other
            found += [(shard, row, first, lasts[shard]) for shard, first in firsts.items()]
        table = np.array(found, np.int64).reshape(-1, 4)
        return table[:, 0], table[:, 1], table[:, 2], table[:, 3]


class _InOrder:
    """Shards one after another, each round through a shard ascending."""

    def __init__(self, grid: Grid, drawn: Drawn) -> None:
        self._grid = grid
        self._drawn = drawn
        self._ends = np.empty(0, np.int64) if drawn.is_whole else np.cumsum(drawn.taken)
        self._sorted: dict[int, Int64Array] = {}

    def ids(self, rows: Int64Array, columns: Int64Array) -> Int64Array:
        slots: Int64Array = self._grid.start_of(rows) + columns
        if self._drawn.is_whole:
            return self._drawn.first_id + slots
        shards = np.searchsorted(self._ends, slots, side='right')
        taken, size = self._drawn.taken[shards], self._drawn.sizes[shards]
        numbers = slots - self._ends[shards] + taken
        within = numbers % size
        partial = np.flatnonzero((numbers // size + 1) * size > taken)
        for shard in np.unique(shards[partial]).tolist():
            here = partial[shards[partial] == shard]
            within[here] = self._sorted_round(shard)[within[here]]
        return self._drawn.first_ids(shards) + within

    def spans(self, rows: Int64Array) -> Spans:
        """As of `Lookup`; exact."""
        ends = np.cumsum(self._drawn.taken)
        row_starts, row_ends = self._grid.start_of(rows), self._grid.start_of(rows + 1)
        first = np.searchsorted(ends, row_starts, side='right')
        counts = np.where(row_ends > row_starts, np.searchsorted(ends, row_ends, side='left') + 1 - first, 0)
        of_row = np.repeat(np.arange(len(rows)), counts)
        shards = first[of_row] + np.arange(len(of_row)) - np.repeat(np.cumsum(counts) - counts, counts)
        begins = np.maximum(ends[shards] - self._drawn.taken[shards], row_starts[of_row]) - row_starts[of_row]
        stops = np.minimum(ends[shards], row_ends[of_row]) - row_starts[of_row]
        used = stops > begins
        return shards[used], rows[of_row[used]], begins[used], stops[used] - 1

    def _sorted_round(self, shard: int) -> Int64Array:
        """The samples of a shard's incomplete round, ascending. Threads may race: each finds what it needs."""
        found = self._sorted.get(shard)
        if found is None:
            taken, size = int(self._drawn.taken[shard]), int(self._drawn.sizes[shard])
            numbers = np.arange(taken // size * size, taken)
            found = np.sort(self._drawn.in_shard(np.full(len(numbers), shard), numbers))
            self._sorted = {**dict(list(self._sorted.items())[-_KEPT + 1 :]), shard: found}
        return found
