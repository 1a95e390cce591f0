"""The `windowed` shuffle: which sample stands at any place of an epoch, computed for that place alone.

Shards are dealt to canonical nodes by a permutation that is fixed for the run, so that a node comes back to the same shards each
epoch, and are put in a new order within the node each epoch. A node reads along several *lanes* in turn, stretches of its shards
of equal length, every other one backwards: a shard that is cut where two lanes meet is read in both at the same time.

Along a lane, samples mix in two passes: a keyed permutation within each block of whole shards, then one within blocks that reach
from the middle of one to the middle of the next, in which some slots change places with those half a block on instead. A sample
ends up anywhere from half a block before its own to half a block after, rather far than near; every shard is in use for two
blocks, and no boundary can be seen. The lanes' blocks are staggered, so that shards come into use one after another and not a
block's worth at once.

Setting up costs O(shards) once, and O(shards of the rows asked for) an epoch; a place costs some arithmetic and three searches.
"""

from dataclasses import dataclass

import numpy as np

from streaming.order.keyed import derive_key, draw, permutation, permute
from streaming.order.partition import Grid, Int64Array
from streaming.order.sampling import Drawn

__all__ = ['Dealing', 'Windowed', 'deal_shards']

# What a key is for. These numbers, like all in this file, are part of the order: tests/golden/windowed.json pins it.
_DEAL, _EPOCH, _FIRST, _SECOND, _STAGGER = 1, 2, 3, 4, 5

# Shards looked up at once while they are dealt: bounds the memory of setting up.
_CHUNK = 1 << 16

# Eight lanes bring shards in as evenly as py1e does (benchmarks/order.py), more only cost; so do lanes of fewer shards.
_LANE_UNITS = 16

# By how much of a row a block is, up to so many hundredths: how wide shards are spread, in hundredths of the block; the most
# lanes; what becomes of blocks at the ends of lanes, `Shape.least` and `Shape.near` in hundredths of a block and
# `Shape.end_share`; `Shape.crossing`. Found by a search for what is nowhere worse than py1e: its ends are one-sided too, and felt
# over half a block.
_BY_PART_OF_ROW = (
    (15, 95, 8, 15, 0, 6, 3),
    (31, 95, 8, 30, 60, 5, 3),
    (52, 95, 8, 15, 0, 6, 3),
    (62, 88, 8, 75, 90, 3, 2),
    (77, 92, 4, 75, 50, 3, 2),
    (87, 96, 8, 40, 70, 4, 3),
    (112, 80, 8, 75, 50, 4, 2),
    (119, 74, 8, 60, 90, 5, 3),
    (130, 72, 8, 60, 90, 5, 3),
    (142, 94, 8, 40, 60, 5, 2),
    (152, 86, 8, 60, 0, 5, 2),
    (180, 96, 8, 40, 60, 5, 2),
    (222, 116, 8, 0, 60, 7, 5),
    (1000, 92, 4, 75, 50, 3, 2),
)

# In how many parts a shard's share in the second pass is counted.
_WHOLE = 1024

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


@dataclass(frozen=True, slots=True)
class Shape:
    """How a row is ruled.

    Args:
        lanes: How many lanes it is read along.
        block: Samples of a block of a lane, about: those of the shards whose middles lie in a cell of this length.
        share: How much of a block takes part in the second pass, in 1,024ths.
        least: The first or the last block of a lane is part of its neighbour if its cell is shorter than this.
        near: Where it is shorter than this, all of it takes part in the second pass.
        end_share: How much of it takes part elsewhere, relative to other blocks, in quarters.
        crossing: Of so many slots of the second pass, at least 2, one crosses half a block.
    """

    lanes: int
    block: int
    share: int
    least: int
    near: int
    end_share: int
    crossing: int


def shape_of(samples: int, rows: int, units: int, block_size: int) -> Shape:
    """Rule rows so that neighbours of a shard come to lie as far apart as with py1e, with as few shards in use, to the ends.

    How near it comes is in docs/order.md.

    Args:
        samples: Samples of the epoch.
        rows: Canonical nodes.
        units: Rounds through shards.
        block_size: Over how many places of a row the samples of a shard spread out, about.
    """
    units = max(1, units)
    unit = max(1, samples // units)
    hundredths = min(_BY_PART_OF_ROW[-1][0], 100 * block_size * rows // max(1, samples))
    _, wide, most_lanes, least, near, end_share, crossing = next(row for row in _BY_PART_OF_ROW if hundredths <= row[0])
    lanes = max(1, min(most_lanes, units // rows // _LANE_UNITS, block_size // (4 * unit)))
    # As many of them begin as end with a block that is cut, and their blocks are staggered by even shares.
    lanes = 1 << (lanes.bit_length() - 1)
    # A shard of py1e is in use for a block, but few of its samples stand near the ends of that.
    width = block_size * wide // 100 - unit // 2
    # Blocks of one shard are as small as they get. Below, shards keep more to themselves.
    share = min(_WHOLE, max(0, (block_size - unit) * 16 * _WHOLE // (25 * unit)))
    block = 1 if share < _WHOLE else max(unit, width // (2 * lanes))
    return Shape(lanes, block, share, block * least // 100, block * near // 100, end_share, crossing)


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
        self._stagger = derive_key(_STAGGER, seed, epoch) & 0xFFFFFFFF
        self.shape = shape_of(self._grid.samples, self._grid.rows, dealing.drawn.num_units, block_size)
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
        slots = self._first_pass(laid, self._second_pass(laid, self._lane_slots(rows, columns)))
        span = np.searchsorted(laid.starts, slots, side='right') - 1
        numbers = laid.offsets[span] + slots - laid.starts[span]
        return laid.first_ids[span] + self._dealing.drawn.in_shard(laid.shards[span], numbers)

    def _lane_slots(self, rows: Int64Array, columns: Int64Array) -> Int64Array:
        """The slots of cells where the lanes of a row, read in turn, lie end to end."""
        lanes = self.shape.lanes
        starts = self._grid.start_of(rows)
        places, lane = np.divmod(columns, lanes)
        whole, rest = np.divmod(self._grid.start_of(rows + 1) - starts, lanes)
        # Every other lane is read backwards, from the start of the next.
        back = lane % 2
        lane += back
        slots: Int64Array = starts + lane * whole + np.minimum(lane, rest) + np.where(back, -1 - places, places)
        return slots

    def _first_pass(self, laid: _Laid, slots: Int64Array) -> Int64Array:
        """Permute slots within the blocks of the first pass."""
        first, sizes = _blocks(laid.bounds[0], slots)
        mixed: Int64Array = permute(slots - first, sizes, draw(self._pass_keys[0], first)).astype(np.int64)
        return first + mixed

    def _second_pass(self, laid: _Laid, slots: Int64Array) -> Int64Array:
        """Within the blocks of the second pass, let some slots change places with those half a block on; permute the others."""
        starts, sizes = _blocks(laid.bounds[1], slots)
        offsets = slots - starts
        of = self.shape.crossing
        crossing = sizes // (2 * of)
        half = crossing * of
        # The first of each few slots crosses. (NumPy divides by a constant quickly, but takes its time over a remainder.)
        few = offsets // of
        mixed = offsets + np.where(offsets < half, half, -half)
        others = np.flatnonzero((few * of != offsets) | (offsets >= 2 * half))
        sizes, offsets, crossing = sizes[others], offsets[others], 2 * crossing[others]
        # The others close up, and open again.
        offsets -= np.minimum(few[others] + 1, crossing)
        found = permute(offsets, sizes - crossing, draw(self._pass_keys[1], starts[others])).astype(np.int64)
        mixed[others] = found + np.minimum(found // (of - 1) + 1, crossing)
        return starts + mixed

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
        shape, size = self.shape, self.shape.block
        lane_starts, lane_ends = self._lane_bounds(row_starts, row_ends)
        lengths = lane_ends - lane_starts
        # Each lane is ruled in cells of one block, in the direction in which it is read. Lanes, and rows by a low-discrepancy
        # sequence, are staggered.
        lane = np.tile(np.arange(shape.lanes), len(row))
        share = ((np.repeat(row, shape.lanes) * _GOLDEN_32 + self._stagger) % (1 << 32) >> 12) * size >> 20
        stagger = (lane * size + share) // shape.lanes
        last_cell = -(-(lengths + stagger) // size) - 1
        low = (size - stagger < shape.least).astype(np.int64)
        high = np.maximum(low, last_cell - (lengths + stagger - last_cell * size < shape.least))
        # Spans, cut where a lane ends. Those whose middles lie in one cell are a block of the first pass.
        starts = _merge(span_starts, lane_starts)
        of_lane = np.searchsorted(lane_starts, starts, side='right') - 1
        stops = np.minimum(np.append(starts[1:], row_ends[-1:]), lane_ends[of_lane])
        middles = (starts + stops) // 2 - lane_starts[of_lane]
        middles = np.where(lane[of_lane] % 2, lengths[of_lane] - middles, middles)
        cell = np.clip((middles + stagger[of_lane]) // size, low[of_lane], high[of_lane])
        begins = (np.diff(cell, prepend=-1) != 0) | (np.diff(of_lane, prepend=-1) != 0)
        first, of_lane = starts[begins], of_lane[begins]
        end = np.minimum(np.append(first[1:], row_ends[-1:]), lane_ends[of_lane])
        # The second pass has its bounds in the middles of blocks, or on both sides of a middle that it leaves alone. The block at
        # the end of a lane has but one neighbour to mix with, so that more of it does.
        reach = ((end - first) * shape.share + _WHOLE) // (2 * _WHOLE)
        at_end = np.where(end - first < shape.near, end - first, reach * shape.end_share // 4)
        is_first, is_last = first == lane_starts[of_lane], end == lane_ends[of_lane]
        up_to = first + np.where(is_last, at_end, reach)
        since = np.where(is_first, end - at_end, np.maximum(up_to, end - reach))
        # Blocks begin with a shard, and so in many lanes at once where shards are of one size. Most of the way to the middles of
        # the cells, bounds are staggered again, and blocks are still cut nearly in half.
        centre = cell[begins] * size + size // 2 - stagger[of_lane]
        centre = lane_starts[of_lane] + np.where(lane[of_lane] % 2, lengths[of_lane] - centre, centre)
        shift = np.clip((centre - (first + end) // 2) * 3 // 4, -reach, reach)
        shift[is_first | is_last | (shape.share < _WHOLE)] = 0
        bounds = np.concatenate([(up_to + shift)[~is_first], (since + shift)[~is_last]])
        return _merge(first, row_ends), _merge(lane_starts, bounds, row_ends)

    def _lane_bounds(self, row_starts: Int64Array, row_ends: Int64Array) -> tuple[Int64Array, Int64Array]:
        """The slots at which each lane of some rows starts and ends, row after row, int64 (rows * lanes,)."""
        lane = np.arange(self.shape.lanes + 1)
        whole, rest = np.divmod(row_ends - row_starts, self.shape.lanes)
        bounds = row_starts[:, None] + lane * whole[:, None] + np.minimum(lane, rest[:, None])
        return bounds[:, :-1].ravel(), bounds[:, 1:].ravel()

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
        lane_starts, lane_ends = self._lane_bounds(row_starts, row_ends)
        # A span that crosses the end of a lane is read in two stretches, each of one lane.
        first = _merge(laid.starts, lane_starts)
        of_lane = np.searchsorted(lane_starts, first, side='right') - 1
        of_row, lane = np.divmod(of_lane, self.shape.lanes)
        shards = laid.shards[np.searchsorted(laid.starts, first, side='right') - 1]
        last = np.minimum(np.append(first[1:], row_ends[-1:]), lane_ends[of_lane]) - 1
        # After the first pass a sample is somewhere in its block, after the second in one of the blocks that this touches.
        for bounds in laid.bounds:
            first = bounds[np.searchsorted(bounds, first, side='right') - 1]
            last = bounds[np.searchsorted(bounds, last, side='right')] - 1
        back = lane % 2 == 1
        first, last = (
            np.where(back, lane_ends[of_lane] - 1 - slots[1], slots[0] - lane_starts[of_lane]) * self.shape.lanes + lane
            for slots in ((first, last), (last, first))
        )
        here = np.isin(loaded[of_row], rows)
        return shards[here], loaded[of_row[here]], first[here], last[here]


def _blocks(bounds: Int64Array, slots: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The start and the size of the block that each slot lies in (N,)."""
    block = np.searchsorted(bounds, slots, side='right')
    first = bounds[block - 1]
    return first, bounds[block] - first


def _merge(*ascending: Int64Array) -> Int64Array:
    """The numbers of some ascending arrays in one, each once."""
    # As numpy.union1d, which hashes all of them: this sort finds what is in order already, and takes a tenth of the time.
    merged: Int64Array = np.sort(np.concatenate(ascending), kind='stable')
    distinct: Int64Array = merged[np.append(True, np.diff(merged) > 0)[: len(merged)]]
    return distinct
