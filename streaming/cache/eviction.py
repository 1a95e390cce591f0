"""Which shards go when room is needed: those whose next use is farthest away. Arithmetic on arrays; nothing is deleted here.

Farthest next use first is the offline optimum (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM
Systems Journal 5, 1966). It needs the future, which the plan of an epoch says. What no plan speaks of is never used again as far
as is known, and goes first, the least recently used before the others.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ['NEVER', 'next_uses', 'peak_bytes', 'soonest', 'victims']

Int64Array = NDArray[np.int64]

# The distance to a use that no plan speaks of.
NEVER = int(np.iinfo(np.int64).max)


def next_uses(uses: Int64Array, position: int, shards: int, later: Int64Array | None = None, length: int = 0) -> Int64Array:
    """How many batches away the next use of each shard is; 0 where it is in use.

    Args:
        uses: Shard, first and last batch of stretches in which shards are used, sorted by first batch, (3, uses).
        position: The batch that is read next.
        shards: How many shards there are.
        later: The uses of the plan that comes afterwards, (3, later uses). Default: None, unknown.
        length: Batches of the plan, after which the later one begins. Default: 0.

    Returns:
        Distances, int64 (shards,); NEVER where there is no use.
    """
    found = np.full(shards, NEVER, np.int64)
    if later is not None:
        # Of several values for one place the last is kept: from the latest use to the first.
        found[later[0, ::-1]] = later[1, ::-1].astype(np.int64) + max(0, length - position)
    ahead = uses[:, uses[2] >= position]
    found[ahead[0, ::-1]] = np.maximum(0, ahead[1, ::-1].astype(np.int64) - position)
    return found


def soonest(distances: Sequence[Int64Array], shards: int) -> Int64Array:
    """Each shard's least distance over several plans that are followed at once, int64 (shards,)."""
    found = np.full(shards, NEVER, np.int64)
    for distance in distances:
        np.minimum(found, distance, out=found)
    return found


def victims(distances: Int64Array, used: Int64Array, candidates: Int64Array, *, nearer: int = -1) -> Int64Array:
    """The order in which shards go.

    Args:
        distances: Batches to each shard's next use, int64 (shards,).
        used: When each was last used, by any clock that counts up, int64 (shards,).
        candidates: The shards that could go, int64 (candidates,).
        nearer: Leave those alone whose next use is this near or nearer. Default: -1, none.

    Returns:
        Shards, the first to go first, int64.
    """
    candidates = candidates[distances[candidates] > nearer]
    return candidates[np.lexsort((used[candidates], -distances[candidates]))]


def peak_bytes(uses: Int64Array, sizes: Int64Array) -> int:
    """The most bytes that are in use at once: what a cache must hold so that each use takes one fetch.

    Args:
        uses: Shard, first and last batch of each use, (3, uses).
        sizes: Bytes of each shard, int64 (shards,).
    """
    shards, first, last = (row.astype(np.int64) for row in uses)
    shards, times = np.concatenate([shards, shards]), np.concatenate([first, last + 1])
    steps = np.repeat(np.array([1, -1], np.int64), len(first))
    # How many uses of its shard go on after each event. Where they touch or overlap, the shard takes its bytes once.
    order = np.lexsort((-steps, times, shards))
    shards, times, steps = shards[order], times[order], steps[order]
    going_on = np.cumsum(steps)
    turns = ((steps == 1) & (going_on == 1)) | (going_on == 0)
    times, changes = times[turns], (steps * sizes[shards])[turns]
    # What ends at a batch goes before what begins there.
    return int(np.cumsum(changes[np.lexsort((changes, times))]).max(initial=0))
