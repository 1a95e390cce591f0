"""The closed form of the partition, beside the arrays of mosaicml-streaming (test_golden.py)."""

import numpy as np
import pytest

from streaming.errors import ArgumentError
from streaming.order.partition import Deal, Grid, get_partitions, grid_for
from streaming.order.plan import OrderConfig, StreamSamples
from streaming.testing.orders import epoch_array
from streaming.world import World


@pytest.mark.parametrize('compact', [False, True])
@pytest.mark.parametrize(
    ('samples', 'rows', 'nodes'), [(10, 4, 2), (10, 4, 8), (3, 8, 4), (8, 8, 8), (4, 4, 8), (97, 1, 6), (97, 5, 5)]
)
def test_every_slot_has_one_position_that_is_no_repeat(samples: int, rows: int, nodes: int, compact: bool) -> None:
    grid = grid_for(samples, rows, nodes, compact=compact)
    positions = np.arange(grid.positions)
    slots = grid.slots(positions)
    assert sorted(slots[~grid.are_repeats(positions)].tolist()) == list(range(samples))
    assert slots.min() >= 0 and slots.max() < samples
    if compact:
        assert grid.positions == samples


def test_a_compact_grid_is_the_other_without_its_repeats() -> None:
    for samples in range(9, 40):
        full, compact = Grid(samples, 8), Grid(samples, 8, compact=True)
        positions = np.arange(full.positions)
        expected = full.slots(positions)[~full.are_repeats(positions)]
        assert np.array_equal(compact.slots(np.arange(samples)), expected)


@pytest.mark.parametrize(('rows', 'nodes', 'ranks'), [(7, 4, 2), (64, 3, 1), (3, 2, 8), (5, 8, 1)])
@pytest.mark.parametrize('start', [0, 13])
def test_nodes_that_do_not_fit_the_rows_still_deal_each_batch_once(rows: int, nodes: int, ranks: int, start: int) -> None:
    dealt = Deal(Grid(1001, rows), start, nodes, ranks, batch_size=4)
    numbers = np.arange(dealt.samples_of_rank)
    places = np.array([[dealt.places(n, r, numbers.copy()) for r in range(ranks)] for n in range(nodes)])
    step = 4 * nodes * ranks
    for batch in range(-(-dealt.samples_of_rank // 4)):
        of_batch = places[:, :, batch * 4 : (batch + 1) * 4].ravel()
        assert sorted(of_batch.tolist()) == list(range(batch * step, batch * step + of_batch.size))


def test_nodes_that_do_not_fit_the_rows_keep_to_few_of_them() -> None:
    dealt = Deal(Grid(100_000, 64), 0, nodes=3, ranks=2, batch_size=32)
    numbers = np.arange(dealt.samples_of_rank - 64)
    shares = []
    for node in range(3):
        rows, _ = dealt.grid.cells(dealt.positions(dealt.places(node, 0, numbers.copy())))
        counts = np.bincount(rows, minlength=64)
        shares.append(int((counts > counts.max() / 10).sum()))
    assert sum(shares) <= 64 + 2 * 3


def test_nodes_must_fit_where_the_old_package_is_imitated() -> None:
    with pytest.raises(ArgumentError, match='must divide one another'):
        get_partitions('orig', 100, 4, 3, 1, 1, 1)
    with pytest.raises(ArgumentError, match='cannot go on'):
        get_partitions('relaxed', 100, 6, 4, 1, 1, 1, initial_physical_nodes=3)


@pytest.mark.filterwarnings('ignore:.*do not divide one another')
def test_batches_of_one_stream_go_on_relaxed_on_nodes_that_do_not_fit() -> None:
    """Per stream too, a run of mosaicml-streaming that began on one node goes on, on two, with the batches of one."""
    config = OrderConfig(
        batch_size=2, shuffle_algo='py1e', batching_method='per_stream', num_canonical_nodes=3, initial_physical_nodes=1
    )
    world = World(num_ranks=2, ranks_per_node=1, num_workers=2)
    made = epoch_array(config, [StreamSamples.of([40, 37])], world, epoch=0)
    expected = get_partitions('relaxed', 77, 3, 2, 1, 2, 2, initial_physical_nodes=1)
    in_training_order = expected.transpose(3, 2, 0, 1, 4).reshape(-1, 2, 1, 2)
    whole = in_training_order[(in_training_order != -1).all((1, 2, 3))]
    assert np.array_equal(made.transpose(3, 2, 0, 1, 4).reshape(-1, 2, 1, 2)[: len(whole)], whole)
    assert (made != -1).sum() == whole.size
