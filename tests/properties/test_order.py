"""For any sizes, settings and worlds: exactly once, equal steps, any world goes on where another stopped."""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.order.state import parse_state
from streaming.world import World

pytestmark = pytest.mark.filterwarnings('ignore:.*do not divide one another')

sizes = st.lists(st.integers(0, 12), min_size=1, max_size=12)
worlds = st.builds(
    lambda nodes, ranks, workers: World(num_ranks=nodes * ranks, ranks_per_node=ranks, num_workers=workers),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip
configs = st.builds(
    OrderConfig,
    batch_size=st.integers(1, 5),
    shuffle=st.booleans(),
    shuffle_seed=st.integers(-3, 3),
    shuffle_block_size=st.integers(1, 40),
    num_canonical_nodes=st.none() | st.integers(1, 6),
)


def batches(config: OrderConfig, streams: list[StreamSamples], world: World, epoch: int, start: int) -> list[list[np.ndarray]]:
    """The batches of each rank, in the order in which its loader yields them."""
    ranks = []
    for rank in range(world.num_ranks):
        plan = Plan(config, streams, replace(world, rank=rank), epoch=epoch, sample_in_epoch=start)
        workers = world.num_workers
        ranks.append([plan.batch(i % workers, i // workers) for i in range(plan.num_batches)])
        assert sum(plan.batches_of(worker) for worker in range(workers)) == plan.num_batches
        assert sum(map(len, ranks[-1])) == plan.samples_of_rank
    return ranks


def check_equal_steps(ranks: list[list[np.ndarray]]) -> None:
    assert len({tuple(len(batch) for batch in rank) for rank in ranks}) == 1


@settings(max_examples=60, deadline=None)
@given(sizes, configs, worlds, st.integers(0, 3))
def test_every_sample_exactly_once(shards: list[int], config: OrderConfig, world: World, epoch: int) -> None:
    streams, total = [StreamSamples.of(shards)], sum(shards)
    for tail in ('pad', 'mask', 'drop'):
        tailed = replace(config, tail=tail)
        ranks = batches(tailed, streams, world, epoch, 0)
        check_equal_steps(ranks)
        seen = Counter(int(i) for rank in ranks for batch in rank for i in batch)
        global_batch = config.batch_size * world.num_ranks
        if tail == 'drop':
            assert set(seen.values()) <= {1} and len(seen) == total // global_batch * global_batch
        else:
            assert seen.keys() == set(range(total))
        plans = [Plan(tailed, streams, replace(world, rank=rank), epoch=epoch) for rank in range(world.num_ranks)]
        real = Counter(
            int(sample)
            for plan in plans
            for worker in range(world.num_workers)
            for index in range(plan.batches_of(worker))
            for sample in plan.batch(worker, index)[plan.mask(worker, index)]
        )
        assert set(real.values()) <= {1} and real.keys() == seen.keys()


@settings(max_examples=30, deadline=None)
@given(sizes, configs, worlds, worlds, worlds, st.integers(1, 5), st.integers(1, 5), st.data())
def test_any_world_goes_on_with_the_same_samples(
    shards: list[int],
    config: OrderConfig,
    first: World,
    second: World,
    third: World,
    size_2: int,
    size_3: int,
    data: st.DataObject,
) -> None:
    """Saved at every step, resumed on a second world, saved again, resumed on a third: nothing is lost."""
    assume(sum(shards))
    streams, epoch = [StreamSamples.of(shards)], 1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ranks = batches(config, streams, first, epoch, 0)
        plan = Plan(config, streams, first, epoch=epoch)
        steps = len(ranks[0])
        for step in range(steps + 1):
            state = plan.state(epoch, step * plan.global_batch_size)
            if step == steps:
                assert (state['epoch'], state['sample_in_epoch']) == (epoch + 1, 0)
                break
            seen = Counter(int(i) for rank in ranks for batch in rank[:step] for i in batch)
            bare = replace(config, num_canonical_nodes=None, shuffle_block_size=None, batch_size=size_2)
            _, start, fixed = parse_state(state, bare)
            config_2 = replace(bare, **fixed)
            ranks_2 = batches(config_2, streams, second, epoch, start)
            check_equal_steps(ranks_2)
            plan_2 = Plan(config_2, streams, second, epoch=epoch, sample_in_epoch=start)
            step_2 = data.draw(st.integers(0, len(ranks_2[0])))
            seen += Counter(int(i) for rank in ranks_2 for batch in rank[:step_2] for i in batch)
            state_2 = plan_2.state(epoch, start + step_2 * plan_2.global_batch_size)
            if state_2['epoch'] == epoch:
                _, start_2, fixed_2 = parse_state(state_2, replace(bare, batch_size=size_3))
                config_3 = replace(bare, batch_size=size_3, **fixed_2)
                ranks_3 = batches(config_3, streams, third, epoch, start_2)
                check_equal_steps(ranks_3)
                seen += Counter(int(i) for rank in ranks_3 for batch in rank for i in batch)
            assert seen.keys() == set(range(sum(shards)))
            # Padding stands at the end: what repeats is less than the ends of three worlds and a column of the grid.
            extra = sum(seen.values()) - len(seen)
            ends = first.num_ranks + second.num_ranks + third.num_ranks
            assert extra <= ends + plan.config.num_canonical_nodes * (first.num_nodes + 1)


@settings(max_examples=60, deadline=None)
@given(sizes, configs, worlds, worlds, st.integers(0, 4))
def test_worlds_with_the_same_global_batch_train_on_the_same_sets(
    shards: list[int], config: OrderConfig, one: World, other: World, step: int
) -> None:
    streams = [StreamSamples.of(shards)]
    config = replace(config, num_canonical_nodes=3, tail='mask')
    global_batch = one.num_ranks * other.num_ranks
    sets = []
    for world in (one, other):
        sized = replace(config, batch_size=global_batch // world.num_ranks)
        ranks = batches(sized, streams, world, 0, step * global_batch)
        whole = [np.concatenate([rank[i] for rank in ranks]) for i in range(len(ranks[0]))]
        sets.append([sorted(batch.tolist()) for batch in whole if len(batch) == global_batch])
    shared = min(len(batches) for batches in sets) - 1
    assert sets[0][: max(shared, 0)] == sets[1][: max(shared, 0)]
