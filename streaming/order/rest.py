"""What is left of an epoch, as one rank gets it: numbers of the rank's samples -> samples."""

from collections.abc import Iterator

import numpy as np

from streaming.order.batching import BoolArray, Sequence, look_up
from streaming.order.lookup import Group
from streaming.order.partition import Deal, Int64Array
from streaming.order.uses import position_bounds
from streaming.world import World

__all__ = ['Dealt', 'Flat', 'Uses']

# Number of a group's first shard; shards of the group, first and last place of each use.
Uses = tuple[int, Int64Array, Int64Array, Int64Array]


class Dealt:
    """The rest of an epoch that is dealt from one grid.

    Args:
        group: What is laid out in the grid.
        dealt: How it is dealt.
        world: The rank that asks.
    """

    def __init__(self, group: Group, dealt: Deal, world: World) -> None:
        self._group = group
        self._deal = dealt
        self._world = world
        self.length = dealt.grid.positions
        self.left = dealt.left
        self.samples_of_rank = dealt.samples_of_rank

    def look_up(self, numbers: Int64Array) -> tuple[Int64Array, BoolArray]:
        """The rank's samples ``numbers`` (N,), and which of them are repeats."""
        dealt = self._deal
        places = dealt.places(self._world.node, self._world.rank_of_node, numbers)
        ids, repeats = look_up(self._group, dealt.grid, dealt.positions(places))
        return ids, repeats | (places >= dealt.left)

    def uses(self, node: int) -> Iterator[Uses]:
        """Shards of a node, and between which places of the rest they are read."""
        dealt, rows = self._deal, self._rows_of(node)
        shards, first, last = position_bounds(self._group, dealt.grid, rows)
        # Ranks that come short are padded with what came shortly before.
        is_late = last >= dealt.grid.positions - 2 * dealt.nodes * dealt.ranks
        last = np.where(is_late, dealt.start + dealt.samples_of_rank * dealt.nodes * dealt.ranks, last)
        yield self._group.first_shard, shards, first - dealt.start, last - dealt.start
        if dealt.grid.compact:
            # The last column is closed up where rows are short, so that a node has some samples of others' rows there.
            late = np.arange((dealt.grid.columns - 1) * dealt.grid.rows, dealt.grid.positions)
            late = late[(late - dealt.start - node) % dealt.nodes == 0] if len(rows) < dealt.grid.rows else late
            shards = self._group.shards_of(self._group.lookup.ids(*dealt.grid.cells(late)))
            yield self._group.first_shard, shards, late - dealt.start, late - dealt.start

    def _rows_of(self, node: int) -> Int64Array:
        """The rows that a node reads."""
        dealt, rows = self._deal, np.arange(self._deal.grid.rows)
        if dealt.left < dealt.nodes * dealt.ranks:
            return rows  # ranks are padded with whatever there is
        if len(rows) % dealt.nodes == 0:
            return np.flatnonzero((rows - dealt.start - node) % dealt.nodes == 0)
        if dealt.nodes % len(rows) == 0:
            return np.array([(dealt.start + node) % len(rows)])
        return rows


class Flat:
    """The rest of a sequence, read in global batches, each rank's part after the one before.

    Args:
        sequence: The sequence.
        start: Where to begin in it.
        length: The ``sample_in_epoch`` at its end.
        world: The rank that asks.
        batch_size: Samples a batch of one rank.
    """

    def __init__(self, sequence: Sequence, start: int, length: int, world: World, batch_size: int) -> None:
        self._sequence = sequence
        self._start = start
        self._world = world
        self._batch_size = batch_size
        self.length = length
        self.left = max(0, sequence.length - start)
        whole, rest = divmod(self.left, batch_size * world.num_ranks)
        # What is left for the last batch is shared out evenly, but what belongs together stays together.
        unit = sequence.unit if batch_size % sequence.unit == 0 else 1
        last = -(-rest // (unit * world.num_ranks)) * unit
        self.samples_of_rank = whole * batch_size + last

    def look_up(self, numbers: Int64Array) -> tuple[Int64Array, BoolArray]:
        """The rank's samples ``numbers`` (N,), and which of them are repeats."""
        batch, slot = np.divmod(numbers, self._batch_size)
        of_rank = np.minimum(self._batch_size, self.samples_of_rank - batch * self._batch_size)
        whole = self._batch_size * self._world.num_ranks
        places = batch * whole + self._world.rank * of_rank + slot
        late = np.flatnonzero(places >= self.left)
        if late.size:
            places[late] = places[late] - whole if self.left >= whole else places[late] % self.left
        ids, repeats = self._sequence.look_up(self._start + places)
        repeats[late] = True
        return ids, repeats

    def uses(self, node: int) -> Iterator[Uses]:
        """Shards that a node may need, and between which places of the rest they are read."""
        whole = self._batch_size * self._world.num_ranks
        for number, (group, grid) in enumerate(self._sequence.grids):
            shards, begins, ends = position_bounds(group, grid, np.arange(grid.rows))
            first, _ = self._sequence.places_of(number, begins)
            _, last = self._sequence.places_of(number, ends)
            # What no whole batch is made of is read nowhere; what pads the last batch comes from the one before.
            used = first < self._sequence.length
            first, last = first[used] - self._start, last[used] - self._start
            last = np.where(last >= self.left - 2 * whole, max(0, self.left) + whole, last)
            yield group.first_shard, shards[used], first, last
