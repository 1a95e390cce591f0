"""The `windowed` shuffle: which sample stands at any place of an epoch, computed for that place alone.

Shards are dealt to canonical nodes by a permutation that is fixed for the run, so that a node comes back to the same shards each
epoch, and are put in a new order within the node each epoch. A node reads along several *lanes* in turn, stretches of its shards
of equal length. Along a lane, samples mix in two passes of keyed permutations: the first within blocks of whole shards, the
second within blocks that reach from the middle of one to the middle of the next. A sample ends up anywhere from half a block
before its own to half a block after, every shard is in use for two blocks, and no boundary can be seen. The lanes' blocks are
staggered, so that shards come into use one after another and not a block's worth at once.

Setting up costs O(shards) once, and O(shards of the rows asked for) an epoch; a place costs some arithmetic and three searches.
"""

from dataclasses import dataclass

import numpy as np

from streaming.order.keyed import derive_key, draw, permutation, permute, unpermute
from streaming.order.partition import Grid, Int64Array
from streaming.order.sampling import Drawn

__all__ = ['Dealing', 'Windowed', 'deal_shards']

# What a key is for. These numbers, like all in this file, are part of the order: tests/golden/windowed.json pins it.
_DEAL, _EPOCH, _FIRST, _SECOND = 1, 2, 3, 4

# Shards looked up at once while they are dealt: bounds the memory of setting up.
_CHUNK = 1 << 16

# A lane begins and ends within a shard, which is then read at both ends of the epoch: so at least this many shards a lane. Eight
# lanes bring shards in as evenly as py1e does (benchmarks/order.py), more only cost.
_LANE_UNITS = 32
_MAX_LANES = 8

# 2**32 over the golden ratio: its multiples, modulo 2**32, are evenly spread whatever their number.
_GOLDEN_32 = 0x9E3779B9


@dataclass(frozen=True, slots=True, eq=False)
class Dealing:
    """Shards in the order of the run, cut into canonical nodes of equally many samples.

    Args:
        drawn: What the epoch takes of each shard.
        grid: The rows, one a canonical node.
        key: Of the permutation that puts the shards in order.
        cut_shards: Number, in that order, of the shard in which each row begins, int64 (rows + 1,).
        cut_offsets: How many samples of that shard belong to rows before, int64 (rows + 1,).
    """

    drawn: Drawn
    grid: Grid
    key: int
    cut_shards: Int64Array
    cut_offsets: Int64Array

    def shards_at(self, numbers: Int64Array) -> Int64Array:
        """The shards that stand at places of the run's order."""
        return permutation(numbers, len(self.drawn.sizes), self.key)


def deal_shards(drawn: Drawn, rows: int, seed: int) -> Dealing:
    """Put shards into the run's order and cut it into rows.

    Args:
        drawn: What the epoch takes of each shard.
        rows: Canonical nodes.
        seed: The shuffle's seed.
    """
    grid = Grid(int(drawn.taken.sum()), rows)
    shards = len(drawn.sizes)
    dealing = Dealing(drawn, grid, derive_key(_DEAL, seed), np.full(rows + 1, shards), np.zeros(rows + 1, np.int64))
    cuts = grid.start_of(np.arange(rows + 1))
    done = before = 0
    for first in range(0, shards, _CHUNK):
        ends = before + np.cumsum(drawn.taken[dealing.shards_at(np.arange(first, min(first + _CHUNK, shards)))])
        # A row begins in the first shard that ends after the cut.
        here = int(np.searchsorted(cuts, ends[-1], side='left'))
        found = np.searchsorted(ends, cuts[done:here], side='right')
        dealing.cut_shards[done:here] = first + found
        dealing.cut_offsets[done:here] = cuts[done:here] - np.where(found > 0, ends[found - 1], before)
        done, before = here, int(ends[-1])
    return dealing


@dataclass(frozen=True, slots=True, eq=False)
class _Laid:
    """What some rows read in one epoch, laid out by slot: row after row, each row's lane after lane.

    Args:
        rows: Which rows.
        starts: Slot at which each span, a stretch of one round through a shard, starts; ascending (spans,).
        shards: The shard of each span (spans,).
        offsets: Which of the samples taken of its shard each span starts with (spans,).
        first_ids: The id of the first sample of the span's shard (spans,).
        bounds: Slots at which the blocks of the first and of the second pass start; ascending.
    """

    rows: frozenset[int]
    starts: Int64Array
    shards: Int64Array
    offsets: Int64Array
    first_ids: Int64Array
    bounds: tuple[Int64Array, Int64Array]


class Windowed:
    """One epoch's order of the samples taken of shards.

    Args:
        dealing: The shards, dealt to rows.
        seed: The shuffle's seed.
        epoch: The epoch, 0-based.
        block_size: Over how many places of a row the samples of a shard spread out, about.
    """

    def __init__(self, dealing: Dealing, *, seed: int, epoch: int, block_size: int) -> None:
        self._dealing = dealing
        self._grid = dealing.grid
        self._span_key = derive_key(_EPOCH, seed, epoch)
        self._pass_keys = (derive_key(_FIRST, seed, epoch), derive_key(_SECOND, seed, epoch))
        units = max(1, dealing.drawn.num_units)
        unit_size = max(1, self._grid.samples // units)
        self.lanes = max(1, min(_MAX_LANES, units // self._grid.rows // _LANE_UNITS, block_size // (4 * unit_size)))
        # A shard is in use for two blocks of its lane: measured, that is as long as py1e has it in use, and as far spread.
        self.lane_block = max(1, (block_size - 3 * unit_size // 4) // (2 * self.lanes), unit_size // 2)
        none = np.empty(0, np.int64)
        self._laid = _Laid(frozenset(), none, none, none, none, (none, none))

    def ids(self, rows: Int64Array, columns: Int64Array) -> Int64Array:
        """The samples that stand at cells of the grid.

        Args:
            rows: Canonical node of each cell (N,).
            columns: Column of each cell (N,), below the number of samples that its row owns.

        Returns:
            Sample ids, int64 (N,).
        """
        laid = self._lay_out(rows)
        slots = self._lane_slots(rows, columns)
        for second in (True, False):
            slots = self._pass(laid, slots, second=second, inverse=False)
        span = np.searchsorted(laid.starts, slots, side='right') - 1
        numbers = laid.offsets[span] + slots - laid.starts[span]
        return laid.first_ids[span] + self._dealing.drawn.in_shard(laid.shards[span], numbers)

    def _lane_slots(self, rows: Int64Array, columns: Int64Array) -> Int64Array:
        """The slots of cells where the lanes of a row, read in turn, lie end to end."""
        starts = self._grid.start_of(rows)
        places, lanes = np.divmod(columns, self.lanes)
        whole, rest = np.divmod(self._grid.start_of(rows + 1) - starts, self.lanes)
        slots: Int64Array = starts + lanes * whole + np.minimum(lanes, rest) + places
        return slots

    def _pass(self, laid: _Laid, slots: Int64Array, *, second: bool, inverse: bool) -> Int64Array:
        """Permute slots within the blocks of a pass."""
        bounds = laid.bounds[second]
        block = np.searchsorted(bounds, slots, side='right')
        first = bounds[block - 1]
        keys = draw(self._pass_keys[second], first)
        look_up = unpermute if inverse else permute
        mixed: Int64Array = look_up(slots - first, bounds[block] - first, keys).astype(np.int64)
        return first + mixed

    def _lay_out(self, rows: Int64Array) -> _Laid:
        """What at least these rows read. Threads may race: each finds what it needs, the last one is kept."""
        laid = self._laid
        wanted = frozenset(np.unique(rows).tolist())
        if not wanted <= laid.rows:
            laid = self._laid = self._make(wanted | laid.rows)
        return laid

    def _make(self, rows: frozenset[int]) -> _Laid:
        row = np.array(sorted(rows), np.int64)
        row_starts, row_ends = self._grid.start_of(row), self._grid.start_of(row + 1)
        of_row, shards, offsets, sizes = self._spans_in_run_order(row)
        # The epoch's order of each row's spans.
        counts = np.bincount(of_row, minlength=len(row))
        before = (np.cumsum(counts) - counts)[of_row]
        within = permute(np.arange(len(of_row)) - before, counts[of_row], draw(self._span_key, row)[of_row])
        order = before + within.astype(np.int64)
        shards, offsets, sizes = shards[order], offsets[order], sizes[order]
        starts = np.cumsum(sizes) - sizes
        starts += (row_starts - np.cumsum(row_ends - row_starts) + (row_ends - row_starts))[of_row]
        first_ids = self._dealing.drawn.first_ids(shards)
        return _Laid(rows, starts, shards, offsets, first_ids, self._block_bounds(row, row_starts, row_ends, starts))

    def _spans_in_run_order(self, row: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
        """Row (as an index into ``row``), shard, offset and size of each span of some rows."""
        dealing, drawn = self._dealing, self._dealing.drawn
        first, last_end = dealing.cut_shards[row], dealing.cut_offsets[row + 1]
        counts = dealing.cut_shards[row + 1] - first + (last_end > 0)
        of_row = np.repeat(np.arange(len(row)), counts)
        number = np.arange(len(of_row)) - np.repeat(np.cumsum(counts) - counts, counts)
        shards = dealing.shards_at(first[of_row] + number)
        begins = np.where(number == 0, dealing.cut_offsets[row][of_row], 0)
        is_cut = (number == counts[of_row] - 1) & (last_end[of_row] > 0)
        ends = np.where(is_cut, last_end[of_row], drawn.taken[shards])
        # A shard that is taken several times over makes a span for each round.
        size = np.maximum(1, drawn.sizes[shards])
        first_round = begins // size
        rounds = np.where(ends > begins, (ends - 1) // size - first_round + 1, 0)
        span = np.repeat(np.arange(len(shards)), rounds)
        round_ = first_round[span] + np.arange(len(span)) - np.repeat(np.cumsum(rounds) - rounds, rounds)
        offsets = np.maximum(begins[span], round_ * size[span])
        return of_row[span], shards[span], offsets, np.minimum(ends[span], (round_ + 1) * size[span]) - offsets

    def _block_bounds(
        self, row: Int64Array, row_starts: Int64Array, row_ends: Int64Array, span_starts: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """The slots at which the blocks of both passes start; the slot after the last block of a row is there too."""
        lane_starts, size = self._lane_starts(row_starts, row_ends), self.lane_block
        # Each lane is ruled in cells of one block. Lanes, and rows by a low-discrepancy sequence, are staggered.
        rows = np.repeat(row, self.lanes)
        share = (rows * _GOLDEN_32 % (1 << 32)) * size >> 32
        stagger = (np.arange(len(rows)) % self.lanes * size + share) // self.lanes
        # Spans, cut where a lane ends. Those whose middles lie in one cell are a block of the first pass.
        starts = _merge(span_starts, lane_starts)
        of_lane = np.searchsorted(lane_starts, starts, side='right') - 1
        stops = np.minimum(np.append(starts[1:], row_ends[-1:]), row_ends[of_lane // self.lanes])
        cell = ((starts + stops) // 2 - lane_starts[of_lane] + stagger[of_lane]) // size
        begins = (np.diff(cell, prepend=-1) != 0) | (np.diff(of_lane, prepend=-1) != 0)
        first, of_lane = starts[begins], of_lane[begins]
        # The second pass has its bounds in the middles of cells, but for a lane's first and last block: there, it mixes
        # over as much as elsewhere.
        lanes, at = np.unique(of_lane, return_index=True)
        last = np.append(at[1:], len(of_lane)) - 1
        offset = lane_starts[lanes] - stagger[lanes] + size // 2
        low = (first[np.minimum(at + 1, last)] - offset) // size + 1
        counts = np.maximum(0, -(-(first[last] - offset) // size) - low)
        number = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        middles = np.repeat(offset + low * size, counts) + number * size
        return _merge(first, row_ends), _merge(lane_starts, middles, row_ends)

    def _lane_starts(self, row_starts: Int64Array, row_ends: Int64Array) -> Int64Array:
        """The slot at which each lane of some rows starts, row after row, int64 (rows * lanes,)."""
        lane = np.arange(self.lanes)
        whole, rest = np.divmod(row_ends - row_starts, self.lanes)
        starts: Int64Array = (row_starts[:, None] + lane * whole[:, None] + np.minimum(lane, rest[:, None])).ravel()
        return starts

    def spans(self, rows: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
        """When the shards of some rows are read: about as exact as a shard has samples, and never too short.

        Args:
            rows: Canonical nodes.

        Returns:
            Shard, row, first and last column of each stretch of a shard, int64 (spans,) each.
        """
        laid = self._lay_out(rows)
        if not len(laid.starts):
            return laid.starts, laid.starts, laid.starts, laid.starts
        loaded = np.array(sorted(laid.rows), np.int64)
        row_starts, row_ends = self._grid.start_of(loaded), self._grid.start_of(loaded + 1)
        lane_starts = self._lane_starts(row_starts, row_ends)
        # A span that crosses the end of a lane is read in two stretches, each of one lane.
        first = _merge(laid.starts, lane_starts)
        of_lane = np.searchsorted(lane_starts, first, side='right') - 1
        of_row = of_lane // self.lanes
        shards = laid.shards[np.searchsorted(laid.starts, first, side='right') - 1]
        last = np.minimum(np.append(first[1:], row_ends[-1:]), row_ends[of_row]) - 1
        # After the first pass a sample is somewhere in its block, after the second in one of the blocks that this touches.
        for bounds in laid.bounds:
            first = bounds[np.searchsorted(bounds, first, side='right') - 1]
            last = bounds[np.searchsorted(bounds, last, side='right')] - 1
        first, last = ((slots - lane_starts[of_lane]) * self.lanes + of_lane % self.lanes for slots in (first, last))
        here = np.isin(loaded[of_row], rows)
        return shards[here], loaded[of_row[here]], first[here], last[here]


def _merge(*ascending: Int64Array) -> Int64Array:
    """The numbers of some ascending arrays in one, each once."""
    # As numpy.union1d, which hashes all of them: this sort finds what is in order already, and takes a tenth of the time.
    merged: Int64Array = np.sort(np.concatenate(ascending), kind='stable')
    distinct: Int64Array = merged[np.append(True, np.diff(merged) > 0)[: len(merged)]]
    return distinct
