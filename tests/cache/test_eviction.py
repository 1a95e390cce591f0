"""The choice of what goes: against slow and obvious versions, and against the offline optimum on traces of real orders."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.cache.eviction import NEVER, next_uses, one_after_the_other, peak_bytes, victims, victims_ahead
from streaming.cache.replay import PlannedTrace, Trace, farthest_by_plan, farthest_by_trace, least_recently_used, replay
from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.world import World

SHARDS = 8

Uses = list[tuple[int, int, int]]

one_use = st.tuples(st.integers(0, SHARDS - 1), st.integers(0, 20), st.integers(0, 6)).map(
    lambda use: (use[0], use[1], use[1] + use[2])
)
some_uses = st.lists(one_use, max_size=12)
places = st.lists(st.integers(0, 30), min_size=1, max_size=4)


def as_array(uses: Uses) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(sorted(uses, key=lambda use: use[1]), np.int64).reshape(-1, 3).T


@given(some_uses, places)
def test_next_uses_are_those_that_one_finds_by_walking(uses: Uses, positions: list[int]) -> None:
    expected = [NEVER] * SHARDS
    for position in positions:
        for shard, first, last in uses:
            if position <= last:
                expected[shard] = min(expected[shard], max(0, first - position))
    assert next_uses(as_array(uses), np.sort(positions), SHARDS).tolist() == expected


@given(some_uses, some_uses, st.integers(0, 30))
def test_the_next_plan_begins_where_this_one_ends(uses: Uses, later: Uses, position: int) -> None:
    length = 27
    together = one_after_the_other(as_array(uses), length, as_array(later))
    shifted = [(shard, first + length, last + length) for shard, first, last in later]
    at = np.array([position])
    assert next_uses(together, at, SHARDS).tolist() == next_uses(as_array([*uses, *shifted]), at, SHARDS).tolist()


@given(some_uses)
def test_peak_is_what_one_counts_batch_by_batch(uses: Uses) -> None:
    sizes = np.arange(1, SHARDS + 1)
    in_use = [{shard for shard, first, last in uses if first <= batch <= last} for batch in range(40)]
    assert peak_bytes(as_array(uses), sizes) == max(sum(shard + 1 for shard in shards) for shards in in_use)


def test_the_farthest_goes_first_and_of_those_never_used_the_oldest() -> None:
    distances = np.array([0, NEVER, 7, NEVER, 3])
    used = np.array([9, 5, 1, 4, 2])
    assert victims(distances, used, np.arange(5)).tolist() == [3, 1, 2, 4, 0]
    assert victims(distances, used, np.array([0, 2])).tolist() == [2, 0]


def test_who_fetches_ahead_waits_for_the_better_victim() -> None:
    used = np.zeros(3, np.int64)
    now, then = np.array([0, 50, 90]), np.array([200, 40, 80])
    # Shard 0 is in use, but will be done with when the fetched one is needed, and is then needed last.
    assert victims_ahead(now, then, used, np.arange(3), 10).tolist() == []
    assert victims_ahead(now, then, used, np.array([1, 2]), 10).tolist() == [2, 1]


def plan_trace(shards: int, samples: int, block: int, ranks: int, epochs: int) -> tuple[Trace, PlannedTrace]:
    """What the ranks of a node read, batch by batch, and what their plans say of it."""
    config = OrderConfig(batch_size=16, shuffle=True, shuffle_block_size=block)
    worlds = [World(rank=rank, num_ranks=ranks, ranks_per_node=ranks) for rank in range(ranks)]
    read, steps, uses, batches = [], [], [], [0]
    for epoch in range(epochs):
        plans = [Plan(config, [StreamSamples.of([samples] * shards)], world, epoch=epoch) for world in worlds]
        said = plans[0].shard_uses()
        uses.append(np.stack([said.shards, said.first, said.last]))
        for batch in range(plans[0].num_batches):
            for plan in plans:
                found = np.unique(plan.batch(0, batch) // samples)
                read.append(found)
                steps.append(np.full(len(found), sum(batches) + batch))
        batches.append(plans[0].num_batches)
    trace = Trace(np.concatenate(read), np.ones(shards, np.int64))
    return trace, PlannedTrace(uses, batches[1:], np.concatenate(steps))


@pytest.mark.parametrize('ranks', [1, 4])
@pytest.mark.parametrize('part', [0.25, 0.5, 0.75])
def test_as_good_as_the_offline_optimum_where_the_shards_in_use_fit(ranks: int, part: float) -> None:
    trace, plans = plan_trace(shards=80, samples=100, block=800, ranks=ranks, epochs=3)
    limit = int(80 * part)
    assert peak_bytes(plans.epochs[0], trace.sizes) <= limit
    policies = farthest_by_trace(trace), farthest_by_plan(trace, plans), least_recently_used(trace)
    best, ours, lru = (int(replay(trace, limit, policy).sum()) for policy in policies)
    assert best <= ours <= 1.03 * best
    assert ours < lru


@given(st.lists(st.integers(0, 5), min_size=1, max_size=14), st.integers(1, 4))
def test_the_optimum_of_replay_is_one(read: list[int], limit: int) -> None:
    trace = Trace(np.array(read), np.ones(6, np.int64))

    def fewest(step: int, here: frozenset[int]) -> int:
        """Try everything that could be evicted."""
        while step < len(read) and read[step] in here:
            step += 1
        if step == len(read):
            return 0
        if len(here) < limit:
            return 1 + fewest(step + 1, here | {read[step]})
        return 1 + min(fewest(step + 1, here - {victim} | {read[step]}) for victim in here)

    assert replay(trace, limit, farthest_by_trace(trace)).sum() == fewest(0, frozenset())
