"""What a cache would have fetched: a trace of shards in the order in which they were read, replayed under a policy.

The policies to compare: the offline optimum, which knows the whole trace; least recently used; and farthest next use by what
plans say, which is what `streaming.cache.room` does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streaming.cache.eviction import NEVER, next_uses, one_after_the_other

__all__ = ['PlannedTrace', 'Trace', 'farthest_by_plan', 'farthest_by_trace', 'least_recently_used', 'replay']

Int64Array = NDArray[np.int64]

# Given the step of a trace, how much sooner each shard goes than others, int64 (shards,): the largest goes first.
Policy = Callable[[int], Int64Array]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Shards in the order of reading, through one epoch or several.

    Args:
        shards: The shard of each step, int64 (steps,).
        sizes: Bytes of each shard, int64 (shards,).
    """

    shards: Int64Array
    sizes: Int64Array


@dataclass(frozen=True, slots=True, eq=False)
class PlannedTrace:
    """What plans say of a trace.

    Args:
        epochs: The uses of each epoch's plan, as `next_uses` takes them.
        batches: Batches of each epoch.
        steps: The batch of each step, counted through all epochs, int64 (steps,).
    """

    epochs: Sequence[Int64Array]
    batches: Sequence[int]
    steps: Int64Array


def replay(trace: Trace, limit_bytes: int, policy: Policy) -> Int64Array:
    """Bytes that are fetched at each step, int64 (steps,), by a cache that begins empty.

    Args:
        trace: What is read.
        limit_bytes: What the cache holds at most; at least the largest shard.
        policy: Which shards go first.
    """
    fetched = np.zeros(len(trace.shards), np.int64)
    is_here = np.zeros(len(trace.sizes), np.bool_)
    taken = 0
    for step, shard in enumerate(trace.shards.tolist()):
        if is_here[shard]:
            continue
        size = int(trace.sizes[shard])
        if taken + size > limit_bytes:
            here = np.flatnonzero(is_here)
            for victim in here[np.argsort(-policy(step)[here], kind='stable')].tolist():
                is_here[victim] = False
                taken -= int(trace.sizes[victim])
                if taken + size <= limit_bytes:
                    break
        is_here[shard] = True
        taken += size
        fetched[step] = size
    return fetched


def farthest_by_trace(trace: Trace) -> Policy:
    """The offline optimum where shards are of one size: the shard goes that is read again last."""
    steps = len(trace.shards)
    upcoming = np.full(len(trace.sizes), NEVER, np.int64)
    following = np.empty(steps, np.int64)
    for step in range(steps - 1, -1, -1):
        following[step] = upcoming[trace.shards[step]]
        upcoming[trace.shards[step]] = step
    # Now the first use of each shard; kept up with the steps as they are asked for, which is in order.
    done = 0

    def policy(step: int) -> Int64Array:
        nonlocal done
        for past in range(done, step):
            upcoming[trace.shards[past]] = following[past]
        done = step
        return upcoming

    return policy


def least_recently_used(trace: Trace) -> Policy:
    """The shard goes that was read the longest ago."""
    used = np.full(len(trace.sizes), -1, np.int64)
    done = 0

    def policy(step: int) -> Int64Array:
        nonlocal done
        for past in range(done, step):
            used[trace.shards[past]] = past
        done = step
        return -used

    return policy


def farthest_by_plan(trace: Trace, plans: PlannedTrace) -> Policy:
    """The shard goes that is used last by the plans of this epoch and the next."""
    starts = np.cumsum([0, *plans.batches])
    following = [*plans.epochs[1:], None]
    courses = [one_after_the_other(*course) for course in zip(plans.epochs, plans.batches, following, strict=True)]

    def policy(step: int) -> Int64Array:
        batch = int(plans.steps[step])
        epoch = int(np.searchsorted(starts, batch, side='right')) - 1
        return next_uses(courses[epoch], np.array([batch - starts[epoch]]), len(trace.sizes))

    return policy
