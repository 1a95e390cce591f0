"""How batches are put together: the sequence of an epoch's samples for each batching method, by place.

A sequence lists the samples in the order of training, global batch after global batch, each node after node, rank after rank. It
is made for the world that begins the epoch; any other world can go on in it, reading it in global batches of its own size.
"""

from collections.abc import Sequence as Items
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError
from streaming.order.config import OrderConfig, Origin
from streaming.order.lookup import Arrays, Group
from streaming.order.partition import Deal, Grid, Int64Array, grid_for, sorted_positions
from streaming.order.schedule import Schedule, Schedules

__all__ = ['BoolArray', 'DevicePerStream', 'PerStream', 'RandomBatches', 'Sequence', 'Stratified', 'look_up']

BoolArray = NDArray[np.bool_]


class Sequence(Protocol):
    """The samples of an epoch in the order of training.

    Args:
        length: How many there are, repeats included.
        unit: How many that follow one another belong in one batch of one rank.
    """

    length: int
    unit: int

    @property
    def grids(self) -> Items[tuple[Group, Grid]]:
        """The groups that it draws on, each with its grid."""
        ...

    def look_up(self, places: Int64Array) -> tuple[Int64Array, BoolArray]:
        """The samples at places (N,), int64 (N,), and which of them are repeats, bool (N,)."""
        ...

    def places_of(self, group: int, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Between which places, both included, positions (N,) of the group's grid are read; int64 (N,) each.

        Positions that are not read at all have places past the end.
        """
        ...


def look_up(group: Group, grid: Grid, positions: Int64Array) -> tuple[Int64Array, BoolArray]:
    """The samples at positions (N,) of a group's grid, int64 (N,), and which of them are repeats, bool (N,)."""
    return group.lookup.ids(*grid.cells(positions)), grid.are_repeats(positions)


class RandomBatches:
    """Batches from all streams' samples, as the world that began the run would go on with them.

    Only for mosaicml-streaming's `relaxed` partition on a number of nodes that does not fit; else a `Deal` does it.

    Args:
        group: All streams.
        dealt: The rest of the epoch, dealt to the world that began.
    """

    unit = 1

    def __init__(self, group: Group, dealt: Deal) -> None:
        self._group = group
        self._deal = dealt
        self.length = dealt.samples_of_rank * dealt.nodes * dealt.ranks

    def look_up(self, places: Int64Array) -> tuple[Int64Array, BoolArray]:
        dealt = self._deal
        global_batch = dealt.batch_size * dealt.nodes * dealt.ranks
        batch, within = np.divmod(places, global_batch)
        # The last batch may be smaller.
        of_rank = np.minimum(dealt.batch_size, dealt.samples_of_rank - batch * dealt.batch_size)
        device, slot = np.divmod(within, of_rank)
        node, rank = np.divmod(device, dealt.ranks)
        dealt_places = dealt.places(node, rank, batch * dealt.batch_size + slot)
        ids, repeats = look_up(self._group, dealt.grid, dealt.positions(dealt_places))
        return ids, repeats | (dealt_places >= dealt.left)

    @property
    def grids(self) -> Items[tuple[Group, Grid]]:
        return [(self._group, self._deal.grid)]

    def places_of(self, group: int, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        size = self._deal.batch_size * self._deal.nodes * self._deal.ranks
        begins = (positions - self._deal.start) // size * size
        return begins, begins + size - 1


class Stratified:
    """Each global batch has a part of every stream, as large as its share.

    Args:
        groups: The streams, each a group.
        proportions: Each one's share in the epoch.
        config: The settings, resolved.
        origin: The world that begins the epoch.

    Raises:
        ArgumentError: a stream's share in a global batch is less than one sample.
    """

    unit = 1

    def __init__(self, groups: Items[Group], proportions: Items[float], config: OrderConfig, origin: Origin) -> None:
        self._groups = groups
        self._size = origin.global_batch_size
        self._parts = _batch_parts(proportions, self._size) if groups else []
        compact = config.tail != 'pad'
        # As mosaicml-streaming does it, streams are dealt to the ranks of a single node.
        ranks = origin.ranks_per_node if config.is_compatible and not compact else 1
        self._deals = [Deal(grid_for(g.samples, config.rows, 1, compact=compact), 0, 1, ranks, 1) for g in groups]
        batches = [dealt.samples_of_rank * ranks // part for dealt, part in zip(self._deals, self._parts, strict=True)]
        self.length = min(batches, default=0) * self._size
        # Which stream each place of a global batch has, and which sample of the stream's part.
        parts = np.array(self._parts, np.int64)
        self._stream_of = np.repeat(np.arange(len(parts)), parts)
        self._nth_of = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
        self._modulus = 0
        if not config.is_compatible:
            # Sorted by how far they are in their part: each rank gets of every stream, and of few rows.
            order = np.lexsort((self._stream_of, (self._nth_of + 0.5) / parts[self._stream_of]))
            self._stream_of, self._nth_of = self._stream_of[order], self._nth_of[order]
            self._modulus = origin.num_nodes if config.rows % origin.num_nodes == 0 else config.rows

    def look_up(self, places: Int64Array) -> tuple[Int64Array, BoolArray]:
        batch, within = np.divmod(places, self._size)
        stream_of, nth = self._stream_of[within], self._nth_of[within]
        ids, repeats = np.empty_like(places), np.empty(len(places), bool)
        for stream in np.unique(stream_of).tolist():
            here = np.flatnonzero(stream_of == stream)
            part, dealt = self._parts[stream], self._deals[stream]
            starts = batch[here] * part
            if self._modulus:
                positions, padded = sorted_positions(starts, part, nth[here], self._modulus), np.zeros(len(here), bool)
            else:
                positions = dealt.positions(starts + nth[here])
                padded = starts + nth[here] >= dealt.left
            ids[here], repeats[here] = look_up(self._groups[stream], dealt.grid, positions)
            repeats[here] |= padded
        return ids, repeats

    @property
    def grids(self) -> Items[tuple[Group, Grid]]:
        return [(group, dealt.grid) for group, dealt in zip(self._groups, self._deals, strict=True)]

    def places_of(self, group: int, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        begins = positions // self._parts[group] * self._size
        return begins, begins + self._size - 1


def _batch_parts(proportions: Items[float], size: int) -> list[int]:
    """Cut a global batch into the streams' parts; what rounding leaves goes to those that were closest to one more."""
    shares = np.array([float(proportion) for proportion in proportions])
    parts = np.array([int(share * size) for share in shares.tolist()], np.int64)
    missing = size - int(parts.sum())
    if missing:
        parts[np.flip(np.argsort(size * shares - parts))[:missing]] += 1
    for number, part in enumerate(parts.tolist()):
        if part <= 0:
            raise ArgumentError(
                f'stream {number} has a share of {shares[number]:.3g}, which is no sample in a global batch of {size}; '
                'make the batch or the share larger, or use another batching_method than stratified'
            )
    return [int(part) for part in parts]


class PerStream:
    """Each global batch is of one stream.

    Args:
        groups: The streams, each a group.
        config: The settings, resolved.
        origin: The world that begins the epoch.
        epoch: The epoch, 0-based.
        arrays: Where drawn turns come from.
    """

    def __init__(self, groups: Items[Group], config: OrderConfig, origin: Origin, epoch: int, arrays: Arrays) -> None:
        self._groups = groups
        self._origin = origin
        self.unit = 1
        nodes, ranks, size = origin.num_nodes, origin.ranks_per_node, origin.batch_size
        compact = config.tail != 'pad'
        self._deals = [Deal(grid_for(g.samples, config.rows, nodes, compact=compact), 0, nodes, ranks, size) for g in groups]
        if config.is_compatible and not compact:
            counts = [dealt.samples_of_rank // size for dealt in self._deals]
        else:
            counts = [dealt.left // origin.global_batch_size for dealt in self._deals]
        self.length = sum(counts) * origin.global_batch_size
        self._counts = counts
        self._schedules = Schedules(counts, 1, config, epoch, arrays)

    def look_up(self, places: Int64Array) -> tuple[Int64Array, BoolArray]:
        origin = self._origin
        batch, within = np.divmod(places, origin.global_batch_size)
        stream_of, number = self._schedules[0].turns(batch)
        device, slot = np.divmod(within, origin.batch_size)
        node, rank = np.divmod(device, origin.ranks_per_node)
        return _look_up_dealt(self._groups, self._deals, stream_of, (node, rank, number * origin.batch_size + slot))

    @property
    def grids(self) -> Items[tuple[Group, Grid]]:
        return [(group, dealt.grid) for group, dealt in zip(self._groups, self._deals, strict=True)]

    def places_of(self, group: int, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        size = self._origin.global_batch_size
        return _times(self._schedules[0], group, positions // size, self._counts[group], size, self.length)


class DevicePerStream:
    """Each batch of a rank is of one stream.

    Args:
        groups: The streams, each a group.
        config: The settings, resolved.
        origin: The world that begins the epoch.
        epoch: The epoch, 0-based.
        arrays: Where drawn turns come from.

    Raises:
        ArgumentError: an order of mosaicml-streaming on nodes that do not divide the canonical nodes.
    """

    def __init__(self, groups: Items[Group], config: OrderConfig, origin: Origin, epoch: int, arrays: Arrays) -> None:
        self._groups = groups
        self._origin = origin
        self._is_compatible = config.is_compatible
        self.unit = origin.batch_size
        nodes, size, rows = origin.num_nodes, origin.batch_size, config.rows
        compact = config.tail != 'pad'
        if config.is_compatible:
            if rows % nodes:
                raise ArgumentError(
                    f'device_per_stream batching with shuffle_algo={config.shuffle_algo!r} needs num_canonical_nodes={rows} to '
                    f'be a multiple of the {nodes} nodes; windowed takes any number'
                )
            # Dealt as if there were as many nodes as rows; a node then reads its rows in turn.
            self._rows_a_node = rows // nodes
            self._deals = [
                Deal(grid_for(g.samples, rows, rows, compact=compact), 0, rows, origin.ranks_per_node, 1) for g in groups
            ]
            of_rank = [dealt.left // (rows * dealt.ranks) if compact else dealt.samples_of_rank for dealt in self._deals]
            of_node = [samples * origin.ranks_per_node * self._rows_a_node for samples in of_rank]
        else:
            self._deals = [Deal(grid_for(g.samples, rows, nodes, compact=compact), 0, nodes, 1, size) for g in groups]
            of_node = [dealt.left // nodes for dealt in self._deals]
        counts = [samples // size for samples in of_node]
        self._batches_of_node = sum(counts)
        self.length = self._batches_of_node * nodes * size
        self._counts = counts
        self._schedules = Schedules(counts, nodes, config, epoch, arrays)

    def look_up(self, places: Int64Array) -> tuple[Int64Array, BoolArray]:
        origin = self._origin
        device_batch, slot = np.divmod(places, origin.batch_size)
        if self._is_compatible:
            batch, node = np.divmod(device_batch, origin.num_nodes)
        else:
            step, device = np.divmod(device_batch, origin.num_nodes * origin.ranks_per_node)
            # The last step may have batches for some ranks of each node only.
            left = np.minimum(origin.ranks_per_node, self._batches_of_node - step * origin.ranks_per_node)
            node, rank = np.divmod(device, left)
            batch = step * origin.ranks_per_node + rank
        stream_of, number = np.empty_like(places), np.empty_like(places)
        for which in np.unique(node).tolist():
            here = np.flatnonzero(node == which)
            stream_of[here], number[here] = self._schedules[which].turns(batch[here])
        numbers = number * origin.batch_size + slot
        if not self._is_compatible:
            return _look_up_dealt(self._groups, self._deals, stream_of, (node, np.zeros_like(node), numbers))
        turn, rank = np.divmod(numbers, origin.ranks_per_node)
        turn, row = np.divmod(turn, self._rows_a_node)
        return _look_up_dealt(self._groups, self._deals, stream_of, (node * self._rows_a_node + row, rank, turn))

    @property
    def grids(self) -> Items[tuple[Group, Grid]]:
        return [(group, dealt.grid) for group, dealt in zip(self._groups, self._deals, strict=True)]

    def places_of(self, group: int, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        origin, nodes = self._origin, self._origin.num_nodes
        # What a node reads of the stream goes on evenly with the positions, give or take a turn through ranks or rows.
        turn = max(self._deals[group].grid.rows, nodes) * origin.ranks_per_node + origin.batch_size
        low = np.maximum(0, positions // nodes - turn) // origin.batch_size
        high = (positions // nodes + turn) // origin.batch_size
        first, last = positions, positions
        for node in range(nodes):
            schedule, count = self._schedules[node], self._counts[group]
            begin, _ = _times(schedule, group, low, count, nodes * origin.batch_size, self.length)
            _, end = _times(schedule, group, high, count, nodes * origin.batch_size, self.length)
            first = np.minimum(first, begin) if node else begin
            last = np.maximum(last, end) if node else end
        # By steps of all ranks at once, whichever rank has the batch.
        step = origin.global_batch_size
        return first // step * step, (last // step + 1) * step - 1


def _times(
    schedule: Schedule, stream: int, numbers: Int64Array, count: int, size: int, length: int
) -> tuple[Int64Array, Int64Array]:
    """Between which places a stream's own batches ``numbers`` come; those that it does not have come past the end."""
    if not count:
        return np.full(len(numbers), length), np.full(len(numbers), length)
    first, last = schedule.when(stream, np.minimum(numbers, count - 1))
    missing = numbers >= count
    return np.where(missing, length, first * size), np.where(missing, length, (last + 1) * size - 1)


def _look_up_dealt(
    groups: Items[Group], deals: Items[Deal], stream_of: Int64Array, dealt_to: tuple[Int64Array, Int64Array, Int64Array]
) -> tuple[Int64Array, BoolArray]:
    """Look up samples in their streams' own deals: (node, rank, number of the rank's sample), (N,) each."""
    ids, repeats = np.empty_like(stream_of), np.empty(len(stream_of), bool)
    for stream in np.unique(stream_of).tolist():
        here = np.flatnonzero(stream_of == stream)
        dealt = deals[stream]
        node, rank, number = (part[here] for part in dealt_to)
        places = dealt.places(node, rank, number)
        ids[here], repeats[here] = look_up(groups[stream], dealt.grid, dealt.positions(places))
        repeats[here] |= places >= dealt.left
    return ids, repeats
