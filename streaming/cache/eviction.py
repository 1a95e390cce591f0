"""Which shards go when room is needed: those whose next use is farthest away. Arithmetic on arrays; nothing is deleted here.

Farthest next use first is the offline optimum (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM
Systems Journal 5, 1966). It needs the future, which the plan of an epoch says. What no plan speaks of is never used again as far
as is known, and goes first, the least recently used before the others.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ['NEVER', 'next_uses', 'one_after_the_other', 'peak_bytes', 'soonest', 'victims', 'victims_ahead']

Int64Array = NDArray[np.int64]

# The distance to a use that no plan speaks of.
NEVER = int(np.iinfo(np.int64).max)


def one_after_the_other(uses: Int64Array, length: int, later: Int64Array | None) -> Int64Array:
    """The uses of two plans as those of one, int64 (3, uses of both).

    Args:
        uses: Shard, first and last batch of stretches in which shards are used, (3, uses).
        length: Batches of the plan, after which the other one begins.
        later: The uses of the other one, (3, later uses). None: it is not known.
    """
    uses = uses.astype(np.int64)
    if later is None:
        return uses
    shift = np.array([[0], [length], [length]])
    return np.concatenate([uses, later.astype(np.int64) + shift], axis=1)


def next_uses(uses: Int64Array, positions: Int64Array, shards: int) -> Int64Array:
    """How many batches away the next use of each shard is; 0 where it is in use.

    Args:
        uses: Shard, first and last batch of stretches in which shards are used, int64 (3, uses).
        positions: The batches that are read next by those who go through the plan, ascending, at least one, int64 (followers,).
        shards: How many shards there are.

    Returns:
        Distances, int64 (shards,); NEVER where there is no use.
    """
    shard, first, last = uses
    # Who has not come to the use yet, and of those who is nearest to it; and whether anybody is within it.
    before, until = np.searchsorted(positions, first, side='right'), np.searchsorted(positions, last, side='right')
    distances = np.where(until > before, 0, first - positions[before - 1])
    ahead = until > 0
    found = np.full(shards, NEVER, np.int64)
    np.minimum.at(found, shard[ahead], distances[ahead])
    return found


def soonest(distances: Sequence[Int64Array], shards: int) -> Int64Array:
    """Each shard's least distance over several plans that are followed at once, int64 (shards,)."""
    found = np.full(shards, NEVER, np.int64)
    for distance in distances:
        np.minimum(found, distance, out=found)
    return found


def victims(distances: Int64Array, used: Int64Array, candidates: Int64Array) -> Int64Array:
    """The order in which shards go, the first to go first.

    Args:
        distances: Batches to each shard's next use, int64 (shards,).
        used: When each was last used, by any clock that counts up, int64 (shards,).
        candidates: The shards that could go, int64 (candidates,).
    """
    return candidates[np.lexsort((used[candidates], -distances[candidates]))]


def victims_ahead(
    distances: Int64Array, distances_then: Int64Array, used: Int64Array, candidates: Int64Array, lead: int
) -> Int64Array:
    """The same for a shard that is fetched ahead of its use: those that would go too if it were fetched when it is needed.

    What is done with by then may be the better choice, and has to be waited for: otherwise whoever fetches far ahead fetches more
    than who does not (Cao, Felten, Karlin and Li, "A study of integrated prefetching and caching strategies", SIGMETRICS 1995).

    Args:
        distances: Batches to each shard's next use, int64 (shards,).
        distances_then: The same for the time when the fetched shard is needed.
        used: When each was last used, int64 (shards,).
        candidates: The shards that could go, int64 (candidates,).
        lead: In how many batches the fetched shard is needed.

    Returns:
        The shards that may go now, in the order in which they go; those behind one that may not are not among them.
    """
    order = victims(distances_then, used, candidates)
    is_idle = distances[order] > lead
    return order[: len(order) if is_idle.all() else int(np.argmin(is_idle))]


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
