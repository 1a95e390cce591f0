"""Who gets which place of an epoch, in closed form: (node, rank, sample of the rank) -> position -> sample slot.

Two steps. A `Grid` lays the samples out in rows, one a canonical node, and numbers its cells down the columns: that
sequence of positions belongs to the data and the number of canonical nodes, so any world can go on in it. A `Deal`
hands the rest of the sequence to the ranks of one world, global batch after global batch, so that every world with the
same global batch size trains on the same sets. Neither builds anything of the epoch's length.

A *slot* is the place of a sample in the order before shuffling, 0-based; a shuffle turns it into a sample id.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError

__all__ = ['Deal', 'Grid', 'Int64Array', 'divide_each_other', 'get_partitions', 'grid_for', 'sorted_positions']

Int64Array = NDArray[np.int64]
IntOrArray = int | Int64Array


def divide_each_other(a: int, b: int) -> bool:
    """Whether one of two positive integers is a multiple of the other."""
    return a % b == 0 or b % a == 0


@dataclass(frozen=True, slots=True)
class Grid:
    """Samples in rows, one a canonical node, read down the columns.

    Args:
        samples: Samples to lay out, at least 0.
        rows: Canonical nodes, at least 1. Row ``c`` owns slots ``floor(c samples / rows)`` to ``floor((c + 1) samples /
            rows)``.
        sharing: Physical nodes that share a row, at least 1. The columns are padded to a multiple of it with repeats,
            as mosaicml-streaming does. Default: 1.
        compact: Whether cells that would repeat a sample are left out, so that there are exactly ``samples`` positions.
            Default: False, a short row repeats a sample in its last column, as in mosaicml-streaming.
    """

    samples: int
    rows: int
    sharing: int = 1
    compact: bool = False

    @property
    def columns(self) -> int:
        """Columns without padding."""
        return -(-self.samples // self.rows)

    @property
    def width(self) -> int:
        """Columns with padding."""
        return -(-self.columns // self.sharing) * self.sharing

    @property
    def positions(self) -> int:
        """Length of the sequence."""
        return self.samples if self.compact else self.rows * self.width

    @property
    def is_wrapped(self) -> bool:
        """Whether there are too few samples for rows of their own, so that all of them are repeated over and over."""
        enough = self.samples > self.rows or (self.samples == self.rows and self.sharing == 1)
        return not enough and not self.compact

    def start_of(self, rows: Int64Array) -> Int64Array:
        """The first slot of each row; the row after the last starts at the end."""
        whole, rest = divmod(self.samples, self.rows)
        return rows * whole + rows * rest // self.rows

    def cells(self, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Row and column of the sample at each position; a repeat has those of the sample that it repeats."""
        column, row = np.divmod(positions, self.rows)
        if self.is_wrapped:
            slot = (row * self.width + column) % self.samples
            row = -(-(slot + 1) * self.rows // self.samples) - 1  # the row that owns the slot
            return row, slot - self.start_of(row)
        late = np.flatnonzero(column >= self.columns - 1)
        if late.size:
            row[late], column[late] = self._late_cells(row[late], column[late])
        return row, column

    def slots(self, positions: Int64Array) -> Int64Array:
        """The slot of the sample at each position."""
        row, column = self.cells(positions)
        return self.start_of(row) + column

    def are_repeats(self, positions: Int64Array) -> NDArray[np.bool_]:
        """Which positions repeat a sample. Each sample has exactly one position that does not."""
        if self.compact:
            return np.zeros(positions.shape, bool)
        column, row = np.divmod(positions, self.rows)
        if self.is_wrapped:
            return row * self.width + column >= self.samples
        repeats: NDArray[np.bool_] = column >= self.start_of(row + 1) - self.start_of(row)
        return repeats

    def _late_cells(self, row: Int64Array, column: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Cells of the last column and of the padding."""
        last = self.columns - 1
        if self.compact:
            # Only rows that own a sample there; the nth of them is this row.
            rest = self.samples % self.rows
            return (-(-(row + 1) * self.rows // rest) - 1 if rest else row), column
        padded = np.maximum(column - (self.width - self.columns) - self.sharing + 1, 0)
        column = np.where(column > last, padded, column)
        is_short = self.start_of(row + 1) - self.start_of(row) <= last
        return row, np.where(is_short & (column == last), last - 1, column)


@dataclass(frozen=True, slots=True)
class Deal:
    """Hands the positions of a grid, from ``start`` on, to the ranks of a world: as many to each, whole batches in
    turn.

    A node keeps to as few rows as can be. What is dealt past the end repeats samples.

    Args:
        grid: The sequence.
        start: Positions that were dealt before, at least 0.
        nodes: Physical nodes.
        ranks: Ranks a node.
        batch_size: Samples a batch of one rank.
    """

    grid: Grid
    start: int
    nodes: int
    ranks: int
    batch_size: int

    @property
    def left(self) -> int:
        """Positions to deal."""
        return max(0, self.grid.positions - self.start)

    @property
    def samples_of_rank(self) -> int:
        """How many positions each rank gets, with repeats."""
        return -(-self.left // (self.nodes * self.ranks))

    def places(self, node: IntOrArray, rank: IntOrArray, numbers: Int64Array) -> Int64Array:
        """What a rank gets, counted from ``start``: its samples ``numbers`` (N,) -> places (N,). From ``left`` on, they
        are repeats.

        Args:
            node: The rank's node, or one for each number (N,).
            rank: The rank among those of its node, or one for each number (N,).
            numbers: Of the rank's samples, 0 to ``samples_of_rank`` exclusive.
        """
        if divide_each_other(self.grid.rows, self.nodes):
            return (numbers * self.ranks + rank) * self.nodes + node
        return self._sorted_places(node, rank, numbers)

    def positions(self, places: Int64Array) -> Int64Array:
        """The position in the grid of each place."""
        late = np.flatnonzero(places >= self.left)
        if late.size:
            places = places.copy()
            places[late] = self._repeated(places[late])
        return self.start + places

    def _repeated(self, late: Int64Array) -> Int64Array:
        """The places that places past the end repeat."""
        step = self.nodes * self.ranks
        if self.left % self.nodes or not divide_each_other(self.grid.rows, self.nodes):
            return late - step if self.left >= step else late % self.left
        # As mosaicml-streaming does it, within the node.
        of_node, node = np.divmod(late, self.nodes)
        per_node = self.left // self.nodes
        back = self.ranks + -per_node % self.ranks - 1
        of_node = of_node - back if back <= per_node else (of_node - per_node) % per_node
        return of_node * self.nodes + node

    def _sorted_places(self, node: IntOrArray, rank: IntOrArray, numbers: Int64Array) -> Int64Array:
        """Sort each global batch by row and cut it into a part for each node.

        For rows and nodes that do not divide each other. Sorting by (row mod nodes, row) keeps a row at the same node or
        two, whether a batch spans all rows or only some.
        """
        rows = self.grid.rows
        order = np.arange(rows)
        order = np.lexsort((order, order % self.nodes))
        batches = numbers // self.batch_size
        of_rank = np.minimum(self.batch_size, self.samples_of_rank - batches * self.batch_size)
        nth = (node * of_rank + numbers - batches * self.batch_size) * self.ranks + rank
        places = np.empty_like(numbers)
        for batch in np.unique(batches).tolist():
            here = np.flatnonzero(batches == batch)
            first = batch * self.batch_size * self.nodes * self.ranks
            size = int(of_rank[here[0]]) * self.nodes * self.ranks
            # Each row has the places lag, lag + rows, lag + 2 rows, ... of the batch.
            lag = (order - self.start - first) % rows
            counts = np.maximum(0, -(-(size - lag) // rows))
            ends = np.cumsum(counts)
            which = np.searchsorted(ends, nth[here], side='right')
            places[here] = first + lag[which] + (nth[here] - ends[which] + counts[which]) * rows
        return places


def sorted_positions(starts: Int64Array, size: int, nth: Int64Array, modulus: int) -> Int64Array:
    """Sort stretches of positions by (position mod modulus, position) and look up the nth of each.

    Args:
        starts: Where each stretch starts (N,).
        size: How long they are.
        nth: Which one of the sorted stretch is wanted (N,), below ``size``.
        modulus: At least 1.

    Returns:
        Positions (N,).
    """
    whole, extra = divmod(size, modulus)
    first = starts % modulus
    # Classes have `whole` positions each, and one more from `first` on for `extra` classes, going round. In sorted order that
    # makes three runs of classes, of which the middle one differs from its neighbours.
    wraps = np.maximum(0, first + extra - modulus)
    begin = np.where(wraps > 0, wraps, first)
    end = np.where(wraps > 0, first, first + extra)
    outer = whole + (wraps > 0)
    inner = 2 * whole + 1 - outer
    before = begin * outer
    until = before + (end - begin) * inner
    in_first, in_last = nth < before, nth >= until
    base = np.where(in_first, 0, np.where(in_last, until, before))
    each = np.maximum(1, np.where(in_first | in_last, outer, inner))
    class_, turn = np.divmod(nth - base, each)
    class_ += np.where(in_first, 0, np.where(in_last, end, begin))
    positions: Int64Array = starts + (class_ - first) % modulus + turn * modulus
    return positions


def grid_for(samples: int, rows: int, nodes: int, *, compact: bool = False) -> Grid:
    """The grid of so many samples for a number of physical nodes: padded where several share a row."""
    sharing = nodes // rows if nodes % rows == 0 else 1
    return Grid(samples, rows, 1 if compact else sharing, compact)


def get_partitions(
    algo: str,
    num_samples: int,
    num_canonical_nodes: int,
    num_physical_nodes: int,
    ranks_per_node: int,
    workers_per_rank: int,
    batch_size: int,
    drop_first: int = 0,
    initial_physical_nodes: int | None = None,
) -> Int64Array:
    """Build the whole partition of an epoch, as mosaicml-streaming does. For tests and pictures; a plan never needs it.

    Args:
        algo: ``'orig'``, or ``'relaxed'``: an epoch that was begun on ``initial_physical_nodes`` goes on, batch by
            batch, where canonical and physical nodes do not divide each other.
        num_samples: Samples of the epoch.
        num_canonical_nodes: Rows in which they are laid out.
        num_physical_nodes: Nodes.
        ranks_per_node: Ranks on each.
        workers_per_rank: DataLoader workers of each rank.
        batch_size: Samples a batch of one rank.
        drop_first: Samples that were seen, rounded down to a multiple of the nodes. Default: 0.
        initial_physical_nodes: Nodes at the start of the run. Default: None, as many as now.

    Returns:
        Slots (nodes, ranks, workers, batches a worker, batch size), -1 where padded.

    Raises:
        ArgumentError: nodes do not divide each other, or the global batch not the devices that the epoch was begun
            with.
    """
    if divide_each_other(num_canonical_nodes, num_physical_nodes):
        nodes, size = num_physical_nodes, batch_size
    elif algo == 'relaxed' and initial_physical_nodes is not None:
        nodes = initial_physical_nodes
        size, rest = divmod(num_physical_nodes * batch_size, nodes)
        if rest or not divide_each_other(num_canonical_nodes, nodes):
            raise ArgumentError(
                f'an epoch begun on {nodes} nodes cannot go on in the same order on {num_physical_nodes} '
                f'with batch_size={batch_size}'
            )
    else:
        raise ArgumentError(
            f'num_canonical_nodes={num_canonical_nodes} and {num_physical_nodes} physical nodes must divide one another'
        )
    dealt = Deal(grid_for(num_samples, num_canonical_nodes, nodes), drop_first - drop_first % nodes, nodes, ranks_per_node, size)
    numbers = np.arange(dealt.samples_of_rank)
    padded = -(-dealt.samples_of_rank // (workers_per_rank * size)) * workers_per_rank * size
    result = np.full((nodes, ranks_per_node, padded), -1, np.int64)
    for node in range(nodes):
        for rank in range(ranks_per_node):
            positions = dealt.positions(dealt.places(node, rank, numbers))
            result[node, rank, : dealt.samples_of_rank] = dealt.grid.slots(positions)
    # (nodes, ranks, batches, workers, slots) -> in the order of training -> the same of the world that goes on.
    trained = result.reshape(nodes, ranks_per_node, -1, workers_per_rank, size).transpose(2, 3, 0, 1, 4)
    trained = trained.reshape(-1, workers_per_rank, num_physical_nodes, ranks_per_node, batch_size)
    partitions: Int64Array = trained.transpose(2, 3, 1, 0, 4)
    return partitions
