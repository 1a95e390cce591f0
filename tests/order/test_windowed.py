"""The windowed shuffle: the same order forever, the same however it is asked, as good as py1e."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming.order.config import OrderConfig, StreamSamples
from streaming.order.partition import Grid
from streaming.order.plan import Plan
from streaming.order.quality import ShuffleQuality, measure, order_of_node, over_epoch, shards_in_use
from streaming.order.sampling import draw_shards
from streaming.order.windowed import Windowed, deal_shards
from streaming.world import World

GOLDEN = Path(__file__).parents[1] / 'golden' / 'windowed.json'
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_text())


def digest_epoch(case: dict[str, Any]) -> str:
    """SHA-256 of all ranks' batches of an epoch, one after another, as little-endian int64."""
    streams = [StreamSamples.of(stream['samples'], **stream['weight']) for stream in case['streams']]
    world = World(num_ranks=case['nodes'] * case['ranks'], ranks_per_node=case['ranks'], num_workers=case['workers'])
    digest = hashlib.sha256()
    for rank in range(world.num_ranks):
        plan = Plan(OrderConfig(**case['config']), streams, replace(world, rank=rank), epoch=case['epoch'])
        for worker in range(case['workers']):
            for index in range(plan.batches_of(worker)):
                digest.update(plan.batch(worker, index).astype('<i8').tobytes())
    return digest.hexdigest()


@pytest.mark.filterwarnings('ignore:.*do not divide one another')
@pytest.mark.parametrize('case', CASES, ids=[case['name'] for case in CASES])
def test_the_order_is_the_same_forever(case: dict[str, Any]) -> None:
    assert digest_epoch(case) == case['sha256']


def windowed(sizes: list[int], rows: int, choose: int | None = None, block_size: int = 40) -> tuple[Grid, Windowed]:
    streams = [StreamSamples.of(sizes)]
    drawn = draw_shards(streams, [streams[0].total if choose is None else choose], 0, OrderConfig(shuffle=True), 3)
    dealing = deal_shards(drawn, rows, seed=5)
    return Grid(dealing.grid.samples, rows, compact=True), Windowed(dealing, seed=5, epoch=3, block_size=block_size)


@pytest.mark.parametrize('choose', [None, 350, 3456])
def test_it_does_not_matter_which_rows_are_looked_up_first(choose: int | None) -> None:
    sizes = np.random.default_rng(0).integers(0, 20, 300).tolist()
    grid, whole = windowed(sizes, 5, choose)
    rows, columns = grid.cells(np.arange(grid.samples))
    expected = whole.ids(rows, columns)
    for order in ([4, 0, 2, 1, 3], [1], [3, 4]):
        _, apart = windowed(sizes, 5, choose)
        for row in order:
            here = rows == row
            assert np.array_equal(apart.ids(rows[here], columns[here]), expected[here])


def test_dealing_does_not_depend_on_how_much_is_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = np.random.default_rng(0).integers(0, 20, 300).tolist()
    _, whole = windowed(sizes, 7)
    monkeypatch.setattr('streaming.order.windowed._CHUNK', 17)
    monkeypatch.setattr('streaming.order.sampling._CHUNK', 5)
    _, pieces = windowed(sizes, 7)
    assert np.array_equal(whole._dealing.cut_shards, pieces._dealing.cut_shards)
    assert np.array_equal(whole._dealing.cut_offsets, pieces._dealing.cut_offsets)
    rows, columns = np.zeros(50, np.int64), np.arange(50)
    assert np.array_equal(whole.ids(rows, columns), pieces.ids(rows, columns))


def test_a_node_comes_back_to_its_shards_each_epoch_in_another_order() -> None:
    sizes, seen, orders = np.full(400, 10), [], []
    for epoch in range(3):
        config = OrderConfig(batch_size=10, shuffle=True, num_canonical_nodes=4, shuffle_block_size=100)
        plan = Plan(config, [StreamSamples(sizes)], World(num_ranks=4, ranks_per_node=1), epoch=epoch)
        ids = np.concatenate([plan.batch(0, index) for index in range(plan.num_batches)])
        seen.append(set((ids // 10).tolist()))
        orders.append(ids.tolist())
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 100
    assert orders[0] != orders[1] != orders[2]


def test_each_sample_stands_anywhere_over_many_epochs() -> None:
    """A small dataset is one block: over epochs, each sample is first about as often as any other."""
    samples, epochs = 12, 2000
    config = OrderConfig(batch_size=samples, shuffle=True)
    streams = [StreamSamples.of([5, 0, 7])]
    counts = np.zeros((samples, samples))
    for epoch in range(epochs):
        counts[np.arange(samples), Plan(config, streams, World(), epoch=epoch).batch(0, 0)] += 1
    expected, freedom = epochs / samples, (samples - 1) ** 2
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def qualities(algo: str, sizes: np.ndarray, block_size: int, rows: int) -> tuple[ShuffleQuality, ShuffleQuality]:
    """The mean of a few epochs, read forwards and backwards: the end of one is the beginning of the other."""
    config = OrderConfig(shuffle=True, shuffle_algo=algo, shuffle_block_size=block_size, num_canonical_nodes=rows)
    orders = [order_of_node(config, sizes, epoch) for epoch in range(6)]
    names = ShuffleQuality.__slots__
    both = []
    for step in (1, -1):
        # Windows that are no whole number of shards long: blocks are, and the two would go in step.
        found = [measure(order[::step], sizes, windows=41) for order in orders]
        means = (float(np.mean([getattr(quality, name) for quality in found])) for name in names)
        both.append(ShuffleQuality(*means))  # type: ignore[arg-type]
    return both[0], both[1]


@pytest.mark.parametrize(
    ('shards', 'rows', 'block_size'),
    [
        (400, 1, 200),
        (400, 1, 400),
        (400, 1, 2000),
        (400, 1, 4000),
        (400, 1, 10_000),
        (400, 1, 14_000),
        (400, 1, 16_000),
        (1600, 4, 8000),
    ],
)
def test_it_is_as_good_as_py1e(shards: int, rows: int, block_size: int) -> None:
    """At least as far apart, with at most as many shards, from the first tenth to the last; docs/order.md says where not.

    The last figure is for the error of six epochs.
    """
    sizes = np.full(shards, 100)
    ours, theirs = (qualities(algo, sizes, block_size, rows) for algo in ('windowed', 'py1e'))
    check_not_worse(ours, theirs)
    assert ours[0].in_use <= theirs[0].in_use
    assert ours[0].burst <= 1.1 * theirs[0].burst + 1


@pytest.mark.parametrize('block_size', [22_000, 26_000, 30_000, 40_000, 46_000, 54_000])
def test_it_is_as_good_as_py1e_where_blocks_are_most_of_a_row(block_size: int) -> None:
    sizes = np.full(400, 100)
    ours, theirs = (qualities(algo, sizes, block_size, 1) for algo in ('windowed', 'py1e'))
    check_not_worse(ours, theirs)
    assert ours[0].in_use <= 1.03 * theirs[0].in_use


def check_not_worse(ours: tuple[ShuffleQuality, ...], theirs: tuple[ShuffleQuality, ...]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        assert our.spread >= their.spread
        assert our.spread_at_end >= 0.99 * their.spread_at_end
        assert our.window <= their.window
        assert our.window_at_end <= 1.01 * their.window_at_end


@pytest.mark.parametrize('block_size', [800, 4000])
def test_it_is_as_good_as_py1e_with_uneven_shards(block_size: int) -> None:
    sizes = np.random.default_rng(0).integers(1, 200, 400)
    (ours, _), (theirs, _) = (qualities(algo, sizes, block_size, 1) for algo in ('windowed', 'py1e'))
    assert ours.spread >= theirs.spread
    assert ours.window <= theirs.window


def test_what_quality_measures() -> None:
    sizes = np.array([2, 2, 2])
    found = measure(np.array([0, 2, 1, 3, 4, 5]), sizes, windows=3)
    assert (found.spread, found.window, found.most_in_use) == ((2 + 2 + 1) / 3, (2 + 2 + 1) / 3, 2)
    assert found.spread_at_end == 1
    assert shards_in_use(np.array([0, 2, 1, 3, 4, 5]), sizes).tolist() == [1, 2, 2, 1, 1, 1]


def test_quality_over_the_epoch() -> None:
    spread, window = over_epoch(np.array([0, 2, 1, 3, 4, 5]), np.array([2, 2, 2]), parts=3)
    assert spread.tolist() == [2, 2, 1]
    assert window.tolist() == [2, 2, 1]
    spread, _ = over_epoch(np.array([0, 1, 2, 3]), np.array([2, 1, 1]), parts=2)
    assert np.array_equal(spread, [1, np.nan], equal_nan=True)


@pytest.mark.parametrize('algo', ['windowed', 'py1e', 'py1br', 'py1s', 'py2s', 'naive', None])
def test_the_working_set_is_about_what_is_in_use(algo: str | None) -> None:
    """For every order, without computing it. What is read at a border in two stretches is in use for each, not in between."""
    sizes = np.full(1600, 100)
    config = OrderConfig(
        batch_size=20, shuffle=algo is not None, shuffle_algo=algo, shuffle_block_size=4000, num_canonical_nodes=8
    )
    world = World(num_ranks=4, ranks_per_node=2)
    plans = [Plan(config, [StreamSamples(sizes)], replace(world, rank=rank), epoch=1) for rank in range(2)]
    batches = [np.concatenate([plan.batch(0, number) for plan in plans]) for number in range(plans[0].num_batches)]
    order = np.concatenate(batches)
    in_use = 7 * int(shards_in_use(order, sizes).max())
    estimate = plans[0].working_set(np.full(1600, 7))
    assert 0.8 * in_use <= estimate <= 2 * in_use + 14 * 4


def test_what_was_derived_is_said() -> None:
    config = OrderConfig(batch_size=16, shuffle=True)
    plan = Plan(config, [StreamSamples(np.full(10, 1000))], World(num_ranks=4, ranks_per_node=2), epoch=0)
    assert plan.describe(np.full(10, 10**6)) == (
        'samples are read windowed with blocks of 2,000,000 samples, num_canonical_nodes=2; a global batch is 64 samples, '
        'an epoch 157 batches; a node has up to about 5.0 MB of shards in use at a time'
    )
