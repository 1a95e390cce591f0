"""The `windowed` shuffle: which sample stands at any place of an epoch, computed for that place alone.

Shards are dealt to canonical nodes by a permutation that is fixed for the run, so that a node comes back to the same
shards each epoch, and permuted anew within the node each epoch. A node reads along several *lanes* in turn, stretches
of its shards of equal length. Within a lane two passes of keyed permutations mix the samples: one within blocks, one
within blocks offset by half, so that a sample ends up anywhere in the two half-blocks around its own block, and no
boundary can be seen. The lanes' blocks are staggered, so that shards come into use one after another and not a block's
worth at once.

Setting up costs O(shards) once, and O(shards of the nodes asked for) an epoch; a place costs O(1) and a search among
the shards.
"""

from dataclasses import dataclass

import numpy as np

from streaming.order.keyed import derive_key, draw, permute, unpermute
from streaming.order.partition import Grid, Int64Array

__all__ = ['Dealing', 'Windowed', 'deal_units']

# What a key is for. These numbers, like all in this file, are part of the order: tests/golden/windowed.json pins it.
_DEAL, _EPOCH, _FIRST, _SECOND = 1, 2, 3, 4

# Units whose sizes are looked up at once while they are dealt: bounds the memory of setting up.
_CHUNK = 1 << 16

# A lane's stretch begins and ends within a shard, which is then read at both ends of the epoch: so at least this many a
# lane.
_LANE_UNITS = 32
_MAX_LANES = 64


@dataclass(frozen=True, slots=True)
class Dealing:
    """Units (shards, as often as they are read) in the order of the run, cut into canonical nodes. The same for all
    epochs.

    Args:
        sizes: Samples of each unit, int64 (units,).
        grid: The rows, one a canonical node; ``grid.samples`` is the sum of the sizes.
        key: Of the permutation that puts the units in order.
        cut_units: Number, in that order, of the unit in which each row begins, int64 (rows + 1,).
        cut_offsets: How many samples of that unit belong to rows before, int64 (rows + 1,).
    """

    sizes: Int64Array
    grid: Grid
    key: int
    cut_units: Int64Array
    cut_offsets: Int64Array

    def units_at(self, numbers: Int64Array) -> Int64Array:
        """The units that stand at places of the run's order."""
        units = len(self.sizes)
        return permute(numbers, np.full(len(numbers), units), np.full(len(numbers), self.key, np.uint64)).astype(
            np.int64
        )


def deal_units(sizes: Int64Array, rows: int, seed: int) -> Dealing:
    """Put units into the run's order and cut it into rows of equally many samples.

    Args:
        sizes: Samples of each unit, int64 (units,).
        rows: Canonical nodes.
        seed: The shuffle's seed.
    """
    grid = Grid(int(sizes.sum()), rows)
    dealing = Dealing(sizes, grid, derive_key(_DEAL, seed), np.empty(rows + 1, np.int64), np.empty(rows + 1, np.int64))
    cuts = grid.start_of(np.arange(rows + 1))
    done = before = 0
    for first in range(0, len(sizes), _CHUNK):
        ends = np.cumsum(sizes[dealing.units_at(np.arange(first, min(first + _CHUNK, len(sizes))))])
        # A row begins in the first unit that ends after the cut.
        here = int(np.searchsorted(cuts, before + ends[-1], side='left'))
        found = np.searchsorted(ends, cuts[done:here] - before, side='right')
        dealing.cut_units[done:here] = first + found
        dealing.cut_offsets[done:here] = cuts[done:here] - before - np.where(found > 0, ends[found - 1], 0)
        done, before = here, before + int(ends[-1])
    dealing.cut_units[done:] = len(sizes)
    dealing.cut_offsets[done:] = 0
    return dealing


@dataclass(frozen=True, slots=True)
class _Spans:
    """The stretches of units that some rows read in one epoch, row after row, each row's in the epoch's order.

    Args:
        rows: Which rows, ascending (rows,).
        starts: Slot at which each span starts (spans,); ascending.
        units: Unit of each span (spans,).
        offsets: Where in its unit each span starts (spans,).
    """

    rows: frozenset[int]
    starts: Int64Array
    units: Int64Array
    offsets: Int64Array


class Windowed:
    """One epoch's order of the units' samples.

    Args:
        dealing: The units, dealt to rows.
        seed: The shuffle's seed.
        epoch: The epoch, 0-based.
        block_size: Over how many places of a row the samples of a shard spread out, about.
    """

    def __init__(self, dealing: Dealing, *, seed: int, epoch: int, block_size: int) -> None:
        self._dealing = dealing
        self._grid = dealing.grid
        self._span_key = derive_key(_EPOCH, seed, epoch)
        self._pass_keys = (derive_key(_FIRST, seed, epoch), derive_key(_SECOND, seed, epoch))
        units_a_row = max(1, len(dealing.sizes) // self._grid.rows)
        unit_size = max(1, self._grid.samples // max(1, len(dealing.sizes)))
        self.lanes = max(1, min(_MAX_LANES, units_a_row // _LANE_UNITS, block_size // (4 * unit_size)))
        # A unit touches 1 + unit/block blocks, each spread over two: what is left of the width is two blocks.
        self.lane_block = max(1, (block_size // self.lanes - unit_size) // 2, (unit_size + 1) // 2)
        none = np.empty(0, np.int64)
        self._spans = _Spans(frozenset(), none, none, none)

    def locate(self, rows: Int64Array, columns: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Find what stands at cells of the grid.

        Args:
            rows: Canonical node of each cell (N,).
            columns: Column of each cell (N,), below the number of samples that its row owns.

        Returns:
            Unit of each sample and its place within the unit, int64 (N,) each.
        """
        slots = self._grid.start_of(rows) + self._mixed(rows, columns)
        spans = self._load(rows)
        which = np.searchsorted(spans.starts, slots, side='right') - 1
        return spans.units[which], spans.offsets[which] + slots - spans.starts[which]

    def _mixed(self, rows: Int64Array, columns: Int64Array) -> Int64Array:
        """The place in its row, laid out lane after lane, of the sample that is read at each cell."""
        owned = self._grid.start_of(rows + 1) - self._grid.start_of(rows)
        places, lanes = np.divmod(columns, self.lanes)
        lane_sizes = owned // self.lanes + (lanes < owned % self.lanes)
        for second in (True, False):
            places = self._pass(rows, lanes, lane_sizes, places, second=second, inverse=False)
        before: Int64Array = lanes * (owned // self.lanes) + np.minimum(lanes, owned % self.lanes)
        return before + places

    def _pass(
        self,
        rows: Int64Array,
        lanes: Int64Array,
        lane_sizes: Int64Array,
        places: Int64Array,
        *,
        second: bool,
        inverse: bool,
    ) -> Int64Array:
        """Permute places of lanes within their blocks."""
        size = self.lane_block
        shift = lanes * size // self.lanes + (size // 2 if second else 0)
        blocks = (places + shift) // size
        firsts = np.maximum(0, blocks * size - shift)
        sizes = np.minimum(lane_sizes, (blocks + 1) * size - shift) - firsts
        # One number for each block of each lane of each row.
        blocks_a_lane = (self._grid.columns // self.lanes + 1) // size + 3
        keys = draw(self._pass_keys[second], (rows * self.lanes + lanes) * blocks_a_lane + blocks)
        look_up = unpermute if inverse else permute
        mixed: Int64Array = look_up(places - firsts, sizes, keys).astype(np.int64)
        return firsts + mixed

    def _load(self, rows: Int64Array) -> _Spans:
        """The spans of at least these rows. Threads may race: each finds what it needs, the last one is kept."""
        spans = self._spans
        wanted = frozenset(np.unique(rows).tolist())
        if not wanted <= spans.rows:
            spans = self._spans = self._make_spans(wanted | spans.rows)
        return spans

    def _make_spans(self, rows: frozenset[int]) -> _Spans:
        dealing = self._dealing
        row = np.array(sorted(rows), np.int64)
        first, last_end = dealing.cut_units[row], dealing.cut_offsets[row + 1]
        counts = dealing.cut_units[row + 1] - first + (last_end > 0)
        of_row = np.repeat(np.arange(len(row)), counts)
        within = np.arange(len(of_row)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = permute(within, counts[of_row], draw(self._span_key, row)[of_row]).astype(np.int64)
        units = dealing.units_at(first[of_row] + order)
        offsets = np.where(order == 0, dealing.cut_offsets[row][of_row], 0)
        ends = np.where((order == counts[of_row] - 1) & (last_end[of_row] > 0), last_end[of_row], dealing.sizes[units])
        lengths = ends - offsets
        starts = np.cumsum(lengths) - lengths
        row_starts = self._grid.start_of(row)
        row_sizes = self._grid.start_of(row + 1) - row_starts
        starts += (row_starts - np.cumsum(row_sizes) + row_sizes)[of_row]
        return _Spans(rows, starts, units, offsets)
