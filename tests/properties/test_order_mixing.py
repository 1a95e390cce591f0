"""For any streams, weights, methods and worlds: samples as often as the weights say, equal steps, and any world goes on."""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streaming.errors import ArgumentError
from streaming.order.plan import OrderConfig, Plan, StreamSamples, Subset
from streaming.order.sampling import draw_shards
from streaming.order.state import parse_state
from streaming.order.windowed import deal_shards
from streaming.world import World


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


counts = st.lists(st.integers(0, 15), min_size=1, max_size=8).filter(any)
absolute = st.one_of(
    st.just({}),
    st.builds(lambda value: {'repeat': value}, st.sampled_from([0.3, 0.5, 1, 2, 2.4])),
    st.builds(lambda value: {'choose': value}, st.integers(1, 60)),
)
relative = st.builds(lambda value: {'proportion': value}, st.sampled_from([0.2, 1, 3]))


def stream_lists(weights: st.SearchStrategy[dict[str, float]]) -> st.SearchStrategy[list[StreamSamples]]:
    stream = st.builds(lambda samples, weight: StreamSamples.of(samples, **weight), counts, weights)
    return st.lists(stream, min_size=1, max_size=3)


streams = stream_lists(absolute) | stream_lists(relative)
worlds = st.builds(
    lambda nodes, ranks, workers: World(num_ranks=nodes * ranks, ranks_per_node=ranks, num_workers=workers),
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip
configs = st.builds(
    OrderConfig,
    batch_size=st.integers(1, 4),
    shuffle=st.booleans(),
    shuffle_algo=st.sampled_from(['windowed'] * 4 + ['naive', 'py1s', 'py2s', 'py1br', 'py1e']),
    shuffle_seed=st.integers(0, 3),
    shuffle_block_size=st.integers(20, 60),
    num_canonical_nodes=st.none() | st.integers(1, 4),
    batching_method=st.sampled_from(['random', 'stratified', 'per_stream', 'device_per_stream']),
    sampling_method=st.sampled_from(['balanced', 'fixed']),
    sampling_granularity=st.integers(1, 20),
    tail=st.sampled_from(['pad', 'pad', 'drop', 'mask']),
)


def plans(
    config: OrderConfig, streams: list[StreamSamples], world: World, start: int = 0, epoch: int = 1, **options: object
) -> list[Plan]:
    """The plan of each rank; settings that cannot work (which say so) are no example."""
    try:
        return [
            Plan(config, streams, replace(world, rank=rank), epoch=epoch, sample_in_epoch=start, **options)
            for rank in range(world.num_ranks)
        ]
    except ArgumentError:
        assume(False)
        raise


def batches(plan: Plan) -> list[np.ndarray]:
    """A rank's batches, in the order in which its loader yields them."""
    workers = plan.world.num_workers
    return [plan.batch(i % workers, i // workers) for i in range(plan.num_batches)]


def masks(plan: Plan) -> list[np.ndarray]:
    workers = plan.world.num_workers
    return [plan.mask(i % workers, i // workers) for i in range(plan.num_batches)]


def check_equal_steps(ranks: list[list[np.ndarray]]) -> None:
    assert len({tuple(len(batch) for batch in rank) for rank in ranks}) == 1


def count(ranks: list[list[np.ndarray]]) -> Counter[int]:
    return Counter(int(sample) for rank in ranks for batch in rank for sample in batch)


def real(all_plans: list[Plan], start: int = 0, end: int | None = None) -> Counter[int]:
    """The samples that are no padding, and how often they come."""
    return Counter(
        int(sample)
        for plan in all_plans
        for batch, mask in zip(batches(plan)[start:end], masks(plan)[start:end], strict=True)
        for sample in batch[mask]
    )


@settings(max_examples=120, deadline=None)
@given(streams, configs, worlds, st.none() | st.integers(1, 80))
def test_samples_come_as_often_as_the_weights_say(
    streams: list[StreamSamples], config: OrderConfig, world: World, epoch_size: int | None
) -> None:
    if all(stream.repeat is None and stream.choose is None for stream in streams):
        config = replace(config, epoch_size=epoch_size)
    ranks = plans(config, streams, world)
    check_equal_steps([batches(plan) for plan in ranks])
    seen = real(ranks)
    wanted, first_id = ranks[0]._shares.choose, 0
    for stream, choose in zip(streams, wanted, strict=True):
        times = [seen.get(sample, 0) for sample in range(first_id, first_id + stream.total)]
        first_id += stream.total
        # No sample comes twice more often than another may, and none more often than its stream's weight asks for.
        if stream.total:
            assert max(times) <= -(-choose // stream.total)
        assert sum(times) <= choose
        if config.batching_method == 'random' and config.tail != 'drop':
            assert sum(times) == choose
            assert not stream.total or min(times) >= choose // stream.total
    if config.batching_method == 'random':
        lost = sum(wanted) - sum(seen.values())
        assert 0 <= lost < (ranks[0].global_batch_size if config.tail == 'drop' else 1)
    if config.tail != 'pad' and config.batching_method == 'per_stream':
        # Of each stream what makes no whole global batch is left out.
        assert sum(seen.values()) == sum(choose // ranks[0].global_batch_size for choose in wanted) * ranks[0].global_batch_size


@settings(max_examples=30, deadline=None)
@given(streams, configs, worlds, worlds, worlds, st.integers(1, 4), st.data())
def test_any_world_goes_on_with_the_same_samples(
    streams: list[StreamSamples],
    config: OrderConfig,
    first: World,
    second: World,
    third: World,
    batch_size: int,
    data: st.DataObject,
) -> None:
    """Saved at every step, resumed elsewhere, saved again, resumed elsewhere: each sample as often as without."""
    config = replace(config, tail='mask')
    begun = plans(config, streams, first)
    expected = real(begun)
    assume(sum(expected.values()))
    # At its very start, an epoch is begun anew by the world that resumes; batching by streams leaves out what it will.
    for step in range(config.batching_method != 'random', begun[0].num_batches):
        seen = real(begun, 0, step)
        state = begun[0].state(1, step * begun[0].global_batch_size)
        bare = replace(config, num_canonical_nodes=None, shuffle_block_size=None)
        for world in (second, third):
            epoch, start, fixed = parse_state(state, bare)
            if epoch != 1:
                break
            size = data.draw(st.sampled_from([config.batch_size, batch_size]))
            resumed = plans(replace(bare, batch_size=size, **fixed), streams, world, start)
            check_equal_steps([batches(plan) for plan in resumed])
            steps = resumed[0].num_batches if world is third else data.draw(st.integers(0, resumed[0].num_batches))
            seen += real(resumed, 0, steps)
            state = resumed[0].state(1, start + steps * resumed[0].global_batch_size)
        if state['epoch'] == 1:
            assert world is third
        missing = expected - seen
        assert not missing and not seen - expected, (step, missing, seen - expected)


@settings(max_examples=60, deadline=None)
@given(streams, configs, worlds, st.integers(0, 5))
def test_resuming_in_the_same_world_gives_the_same_batches(
    streams: list[StreamSamples], config: OrderConfig, world: World, step: int
) -> None:
    whole = plans(config, streams, world)
    step = min(step, whole[0].num_batches)
    state = whole[0].state(1, step * whole[0].global_batch_size)
    epoch, start, fixed = parse_state(state, config)
    if epoch != 1:
        return
    for before, after in zip(whole, plans(replace(config, **fixed), streams, world, start), strict=True):
        for one, other in zip(batches(before)[step:], batches(after), strict=True):
            shared = min(len(one), len(other))
            assert len(one) == len(other) or step == before.num_batches - 1
            # Padding may differ: it repeats what the ranks were given since the run went on.
            same = one[:shared] == other[:shared]
            assert same.all() or config.tail != 'drop'


@settings(max_examples=60, deadline=None)
@given(streams, configs, worlds, st.data())
def test_a_subset_is_planned_like_a_dataset(
    streams: list[StreamSamples], config: OrderConfig, world: World, data: st.DataObject
) -> None:
    total = sum(stream.total for stream in streams)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    by_mask, by_ids = Subset(mask), Subset(np.flatnonzero(mask)[::-1])
    assert len(by_mask) == len(by_ids) == mask.sum()
    small = by_mask.restrict(streams)
    alone = plans(config, small, world)
    for plan, masked, listed in zip(
        alone, plans(config, streams, world, subset=by_mask), plans(config, streams, world, subset=by_ids), strict=True
    ):
        for ids, one, other in zip(batches(plan), batches(masked), batches(listed), strict=True):
            assert np.array_equal(np.flatnonzero(mask)[ids], one)
            assert np.array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(1, 6), st.integers(0, 3), st.integers(1, 60))
def test_each_shard_is_read_by_one_canonical_node(streams: list[StreamSamples], rows: int, seed: int, block_size: int) -> None:
    """One, or as many neighbours as it has samples for; over all nodes there is one more reader for each border."""
    config = OrderConfig(batch_size=1, shuffle=True, shuffle_seed=seed, num_canonical_nodes=rows)
    drawn = draw_shards(streams, [stream.total for stream in streams], 0, config, 0)
    dealing = deal_shards(drawn, rows, seed)
    readers: set[tuple[int, int]] = set()
    for row in range(rows):
        first, last = int(dealing.cut_shards[row]), int(dealing.cut_shards[row + 1] + (dealing.cut_offsets[row + 1] > 0))
        readers |= {(shard, row) for shard in dealing.shards_at(np.arange(first, min(last, len(drawn.sizes)))).tolist()}
    used = [(shard, row) for shard, row in readers if drawn.sizes[shard]]
    assert {shard for shard, _ in used} == set(np.flatnonzero(drawn.sizes).tolist())
    assert len(used) <= np.count_nonzero(drawn.sizes) + rows - 1


@settings(max_examples=30, deadline=None)
@given(streams, configs, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_replicas_get_the_same_and_others_count_once(
    streams: list[StreamSamples], config: OrderConfig, nodes: int, groups: int, replicas: int
) -> None:
    ranks = groups * replicas
    world = World(num_ranks=nodes * ranks, ranks_per_node=ranks)
    replicated = plans(replace(config, replication=replicas), streams, world)
    alone = plans(config, streams, World(num_ranks=nodes * groups, ranks_per_node=groups))
    for rank, plan in enumerate(replicated):
        for one, other in zip(batches(plan), batches(alone[rank // replicas]), strict=True):
            assert np.array_equal(one, other)
    assert replicated[0].state(1, 0)['origin'] == alone[0].state(1, 0)['origin']


@settings(max_examples=60, deadline=None)
@given(streams, configs, worlds, worlds, st.data())
def test_shards_are_used_when_the_plan_says(
    streams: list[StreamSamples], config: OrderConfig, begun_by: World, world: World, data: st.DataObject
) -> None:
    begun = plans(config, streams, begun_by)[0]
    step = data.draw(st.integers(0, begun.num_batches))
    epoch, start, fixed = parse_state(begun.state(1, step * begun.global_batch_size), config)
    shard_of = np.repeat(np.arange(sum(len(s.samples) for s in streams)), np.concatenate([s.samples for s in streams]))
    for plan in plans(replace(config, **fixed), streams, world, start, epoch):
        uses = plan.shard_uses()
        assert (np.diff(uses.first) >= 0).all()
        assert (uses.first <= uses.last).all()
        stretches = list(zip(uses.shards.tolist(), uses.first.tolist(), uses.last.tolist(), strict=True))
        for number, batch in enumerate(batches(plan)):
            for shard in set(shard_of[batch].tolist()):
                assert any(shard == used and first <= number <= last for used, first, last in stretches)
