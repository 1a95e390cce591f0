"""Which epoch an iteration is."""

import pytest

from streaming.errors import ArgumentError
from streaming.progress import Begun, Progress


def test_each_iteration_is_an_epoch() -> None:
    progress = Progress()
    assert progress.current() == Begun(0, 0)
    assert [progress.begin(None).epoch for _ in range(3)] == [0, 1, 2]
    assert progress.next_epoch == 3
    assert progress.current() == Begun(2, 0)


def test_workers_of_one_iteration_agree() -> None:
    progress = Progress()
    first = [progress.begin('a', worker) for worker in range(3)]
    second = progress.begin('b', 0)
    assert first == [Begun(0, 0)] * 3
    assert second.epoch == 1
    assert progress.begin('a', 3) == Begun(0, 0), 'a late worker still finds its epoch'


def test_a_worker_that_comes_again_begins_another_iteration() -> None:
    progress = Progress()
    epochs = [[progress.begin('a', worker).epoch for worker in order] for order in ((0, 1, 2), (2, 1), (1, 0, 2))]
    assert epochs == [[0, 0, 0], [1, 1], [2, 2, 2]]
    assert progress.next_epoch == 3


def test_a_loaded_state_is_taken_once() -> None:
    progress = Progress()
    progress.begin(None)
    progress.load(5, 100, {'num_canonical_nodes': 2})
    assert progress.current() == Begun(5, 100, {'num_canonical_nodes': 2})
    assert progress.begin('a') == Begun(5, 100, {'num_canonical_nodes': 2}), 'the rank itself, for its workers'
    assert progress.begin('a') == progress.begin('a', 0) == Begun(5, 100, {'num_canonical_nodes': 2})
    assert progress.begin('b') == Begun(6, 0, {'num_canonical_nodes': 2}), 'the order stays that of the run'


def test_a_changed_order_is_that_of_the_epochs_to_come() -> None:
    progress = Progress()
    first = progress.begin('a', 0)
    progress.change_order({'shuffle_seed': 7})
    assert progress.begin('a', 1) == first == Begun(0, 0)
    assert progress.begin('b') == Begun(1, 0, {'shuffle_seed': 7})
    progress.load(3, 50, {})
    with pytest.raises(ArgumentError, match='sample 50 of epoch 3'):
        progress.change_order({'shuffle_seed': 8})


def test_only_the_latest_iterations_are_remembered() -> None:
    progress = Progress()
    for i in range(1000):
        assert progress.begin(str(i)).epoch == i
