"""When each shard is used in the rest of an epoch: for fetching what comes next, and evicting what comes last."""

from dataclasses import dataclass

import numpy as np

from streaming.order.lookup import Group
from streaming.order.partition import Grid, Int64Array

__all__ = ['ShardUses', 'position_bounds', 'sort_uses']


@dataclass(frozen=True, slots=True, eq=False)
class ShardUses:
    """Stretches of batches in which shards are used, by their first batch. A shard can have several.

    Args:
        shards: The shards, counting through all streams, int64 (uses,).
        first: The first batch of each use: how many batches each rank has been given before, int64 (uses,).
        last: The last batch of each use, int64 (uses,).
    """

    shards: Int64Array
    first: Int64Array
    last: Int64Array

    def most_bytes(self, shard_bytes: Int64Array) -> int:
        """The most bytes of shards that are in use at a time, from first use to last.

        Args:
            shard_bytes: Bytes of each shard, int64 (shards,).
        """
        sizes = shard_bytes[self.shards]
        # At the same moment shards come before others go.
        moments = np.concatenate([2 * self.first, 2 * self.last + 1])
        in_use = np.cumsum(np.concatenate([sizes, -sizes])[np.argsort(moments, kind='stable')])
        return int(in_use.max(initial=0))


def position_bounds(group: Group, grid: Grid, rows: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Between which positions, both included, some rows read their shards.

    Args:
        group: What is laid out.
        grid: How.
        rows: Canonical nodes.

    Returns:
        Shard (of the group), first and last position of each stretch, int64 (stretches,) each. Never too short.
    """
    if grid.is_wrapped:
        shards, *_ = group.lookup.spans(np.arange(grid.rows))
        return shards, np.zeros_like(shards), np.full_like(shards, grid.positions - 1)
    shards, row, first_column, last_column = group.lookup.spans(rows)
    first = first_column * grid.rows + row
    last = last_column * grid.rows + row
    # In the last column positions are closed up where rows are short, or else the end repeats what came just before.
    first = np.where(first_column >= grid.columns - 1, first - grid.rows, first)
    repeated = last_column >= grid.columns - 2 * grid.sharing - 1
    return shards, np.maximum(0, first), np.where(repeated, grid.positions - 1, last)


def sort_uses(found: list[tuple[Int64Array, Int64Array, Int64Array]], batches: int) -> ShardUses:
    """Put uses in order, and leave out those before the first and after the last batch.

    Args:
        found: Shards, first and last batches (uses,), which may lie outside.
        batches: Batches that each rank is given.
    """
    none = np.empty(0, np.int64)
    shards, first, last = (np.concatenate([none, *parts]) for parts in zip(*found, strict=True)) if found else (none,) * 3
    first, last = np.maximum(0, first), np.minimum(batches - 1, last)
    here = first <= last
    shards, first, last = shards[here], first[here], last[here]
    order = np.lexsort((shards, last, first))
    return ShardUses(shards[order], first[order], last[order])
