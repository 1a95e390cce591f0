"""StreamingDataset under DataLoaders: epochs, workers, state and resumption, with real worker processes."""

import gc
import multiprocessing
import os
import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset, World
from streaming.errors import ArgumentError

SAMPLES = 203
BATCH = 5


@pytest.fixture(scope='module')
def remote(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp('remote')
    with MDSWriter(
        out=str(folder), columns={'id': 'int', 'text': 'str'}, compression='zstd', hashes=['xxh64'], size_limit=600
    ) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'text': f'sample {number}'})
    return str(folder)


def make(remote: str, local: Path, rank: int = 0, num_ranks: int = 1, **options: Any) -> StreamingDataset:
    world = World(rank=rank, num_ranks=num_ranks, ranks_per_node=num_ranks)
    arguments = {'batch_size': BATCH, 'shuffle': True, **options}
    return StreamingDataset(remote=remote, local=str(local), world=world, **arguments)


def ids(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch['id'].tolist()]


def exactly_once(seen: list[int], padding: int = 0) -> bool:
    counts = Counter(seen)
    return set(counts) == set(range(SAMPLES)) and counts.total() - SAMPLES <= padding


@pytest.mark.parametrize('workers', [0, 1, 3])
@pytest.mark.parametrize('loader_class', [DataLoader, StreamingDataLoader])
def test_an_epoch_is_every_sample_once(remote: str, tmp_path: Path, workers: int, loader_class: Any) -> None:
    loader = loader_class(make(remote, tmp_path), batch_size=BATCH, num_workers=workers)
    first, second = ids(loader), ids(loader)
    assert exactly_once(first)
    assert exactly_once(second)
    assert first != second, 'each epoch has its own order'
    assert len(loader) == -(-SAMPLES // BATCH)


def test_the_order_does_not_depend_on_workers(remote: str, tmp_path: Path) -> None:
    orders = [ids(StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=workers)) for workers in (0, 2, 3)]
    assert orders[0] == orders[1] == orders[2]


def test_without_shuffle_samples_come_in_order(remote: str, tmp_path: Path) -> None:
    loader = StreamingDataLoader(make(remote, tmp_path, shuffle=False), batch_size=BATCH, num_workers=2)
    assert ids(loader) == list(range(SAMPLES))


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_persistent_workers_count_epochs(remote: str, tmp_path: Path, method: str) -> None:
    expected = [ids(StreamingDataLoader(dataset, batch_size=BATCH)) for dataset in [make(remote, tmp_path)] for _ in range(3)]
    for loader_class in (DataLoader, StreamingDataLoader):
        loader = loader_class(
            make(remote, tmp_path),
            batch_size=BATCH,
            num_workers=2,
            persistent_workers=True,
            multiprocessing_context=multiprocessing.get_context(method),
        )
        assert [ids(loader) for _ in range(3)] == expected


def test_ranks_share_an_epoch(remote: str, tmp_path: Path) -> None:
    seen = [ids(StreamingDataLoader(make(remote, tmp_path, rank, 4), batch_size=BATCH, num_workers=2)) for rank in range(4)]
    assert len({len(part) for part in seen}) == 1, 'every rank takes as many steps'
    assert exactly_once([number for part in seen for number in part], padding=4)


@pytest.mark.parametrize(('before', 'after'), [((1, 0), (1, 2)), ((4, 2), (2, 0)), ((2, 1), (4, 3))])
@pytest.mark.parametrize('stop', [0, 1, 4, 7])
def test_resume_on_another_world(remote: str, tmp_path: Path, before: tuple[int, int], after: tuple[int, int], stop: int) -> None:
    """Stop after some batches, load the state on another number of ranks and workers: the rest comes, and nothing else."""
    ranks, workers = before
    delivered: list[int] = []
    states = []
    for rank in range(ranks):
        loader = StreamingDataLoader(make(remote, tmp_path, rank, ranks), batch_size=BATCH, num_workers=workers)
        batches = iter(loader)
        for _ in range(stop):
            delivered.extend(next(batches)['id'].tolist())
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)

    ranks, workers = after
    for rank in range(ranks):
        loader = StreamingDataLoader(make(remote, tmp_path, rank, ranks), batch_size=BATCH, num_workers=workers)
        loader.load_state_dict(pickle.loads(pickle.dumps(states[0])))
        resumed = loader.state_dict()
        place = ('epoch', 'sample_in_epoch', 'num_canonical_nodes', 'shuffle_seed')
        assert [resumed[key] for key in place] == [states[0][key] for key in place], 'what was loaded is what is saved again'
        delivered.extend(ids(loader))
    assert exactly_once(delivered, padding=4)


def test_a_resumed_epoch_goes_on_as_it_would_have(remote: str, tmp_path: Path) -> None:
    whole = ids(StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=2))
    loader = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=2)
    batches = iter(loader)
    begin = [number for _ in range(6) for number in next(batches)['id'].tolist()]
    state = loader.state_dict()
    assert begin == whole[: len(begin)]
    again = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=3, persistent_workers=True)
    again.load_state_dict(state)
    assert ids(again) == whole[len(begin) :]
    next_epoch = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH)
    ids(next_epoch)
    assert ids(again) == ids(next_epoch), 'then the next epoch follows, from its start'


def test_after_the_last_batch_the_state_is_the_next_epochs(remote: str, tmp_path: Path) -> None:
    loader = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=2)
    ids(loader)
    state = loader.state_dict()
    assert (state['epoch'], state['sample_in_epoch']) == (1, 0)
    second = ids(loader)
    fresh = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH)
    fresh.load_state_dict(state)
    assert ids(fresh) == second


def test_taking_every_batch_without_asking_for_more_is_the_end_too(remote: str, tmp_path: Path) -> None:
    loader = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    assert (loader.state_dict()['epoch'], loader.state_dict()['sample_in_epoch']) == (1, 0)


def test_a_state_loaded_into_live_persistent_workers_counts(remote: str, tmp_path: Path) -> None:
    reference = make(remote, tmp_path)
    epochs = [ids(StreamingDataLoader(reference, batch_size=BATCH)) for _ in range(2)]
    loader = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=2, persistent_workers=True)
    ids(loader)
    loader.load_state_dict({**loader.state_dict(), 'epoch': 1, 'sample_in_epoch': 10 * BATCH})
    assert ids(loader) == epochs[1][10 * BATCH :]


def test_break_and_go_on_begins_the_next_epoch(remote: str, tmp_path: Path) -> None:
    reference = make(remote, tmp_path)
    epochs = [ids(StreamingDataLoader(reference, batch_size=BATCH)) for _ in range(2)]
    for workers in (0, 2):
        loader = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=workers)
        for _ in loader:
            break
        assert ids(loader) == epochs[1]


def test_two_iterators_at_once_are_two_epochs(remote: str, tmp_path: Path) -> None:
    reference = make(remote, tmp_path)
    epochs = [ids(StreamingDataLoader(reference, batch_size=BATCH)) for _ in range(2)]
    for workers in (0, 2):
        loader = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH, num_workers=workers)
        one, two = iter(loader), iter(loader)
        pairs = [(first['id'].tolist(), second['id'].tolist()) for first, second in zip(one, two, strict=True)]
        assert [number for first, _ in pairs for number in first] == epochs[0]
        assert [number for _, second in pairs for number in second] == epochs[1]


@pytest.mark.parametrize('loader_class', [DataLoader, StreamingDataLoader])
def test_seeding_torch_before_each_epoch_repeats_none(remote: str, tmp_path: Path, loader_class: Any) -> None:
    """The workers of every epoch then have the same seeds."""
    reference = make(remote, tmp_path)
    epochs = [ids(StreamingDataLoader(reference, batch_size=BATCH)) for _ in range(3)]
    dataset = make(remote, tmp_path)
    for expected in epochs:
        torch.manual_seed(7)
        assert ids(loader_class(dataset, batch_size=BATCH, num_workers=2)) == expected


class _Cycle:
    """Garbage that only the collector finds, and that says where it was finalized."""

    def __init__(self, path: Path) -> None:
        self.itself = self
        self._path = path

    def __del__(self) -> None:
        with self._path.open('a') as file:
            file.write(f'{os.getpid()}\n')


class _Collecting(StreamingDataset):
    def __getitem__(self, index: Any) -> Any:
        gc.collect()
        return super().__getitem__(index)


def test_a_worker_leaves_the_garbage_of_its_rank_alone(remote: str, tmp_path: Path) -> None:
    dataset = _Collecting(remote=remote, local=str(tmp_path / 'cache'), batch_size=BATCH)
    gc.collect()
    gc.disable()
    try:
        _Cycle(tmp_path / 'finalized')
        assert exactly_once(ids(StreamingDataLoader(dataset, batch_size=BATCH, num_workers=1)))
    finally:
        gc.enable()
    gc.collect()
    assert (tmp_path / 'finalized').read_text().split() == [str(os.getpid())]


def test_no_thread_outlives_its_iterator(remote: str, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path)
    before = set(threading.enumerate())
    for _ in range(3):
        samples = iter(dataset)
        next(samples)
        del samples
        gc.collect()
    assert set(threading.enumerate()) <= before


def test_random_access(remote: str, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path, batch_size=None)
    assert dataset[7] == {'id': 7, 'text': 'sample 7'}
    assert dataset[-1]['id'] == SAMPLES - 1
    assert [sample['id'] for sample in dataset[3:9:2]] == [3, 5, 7]
    assert [sample['id'] for sample in dataset[[5, 1]]] == [5, 1]
    assert [sample['id'] for sample in dataset[np.array([2, 0])]] == [2, 0]
    assert dataset.size == dataset.num_samples == SAMPLES
    with pytest.raises(IndexError):
        dataset[SAMPLES]


def test_a_subclass_may_transform(remote: str, tmp_path: Path) -> None:
    class Doubled(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return {'id': 2 * super().__getitem__(index)['id']}

    dataset = Doubled(remote=remote, local=str(tmp_path), batch_size=BATCH)
    assert ids(StreamingDataLoader(dataset, batch_size=BATCH)) == [2 * number for number in range(SAMPLES)]


def test_the_dataset_pickles_small_and_whole(remote: str, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path)
    whole = ids(StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH))
    data = pickle.dumps(dataset)
    assert len(data) < 10_000
    assert ids(StreamingDataLoader(pickle.loads(data), batch_size=BATCH)) == whole


def test_bytes_are_fetched_once_by_all_ranks_and_workers(remote: str, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path)
    for rank in range(2):
        ids(StreamingDataLoader(make(remote, tmp_path, rank, 2), batch_size=BATCH, num_workers=3))
    stored = sum(path.stat().st_size for path in Path(remote).glob('*.zstd'))
    (counters,) = dataset.stats().values()
    assert counters['fetched_bytes'] == stored
    assert counters['failed_fetches'] == 0
    assert dataset.cache_usage == sum(path.stat().st_size for path in tmp_path.glob('*.mds'))


def test_a_complete_cache_is_a_dataset(remote: str, tmp_path: Path) -> None:
    ids(StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH))
    copy = StreamingDataset(local=str(tmp_path), batch_size=BATCH)
    assert ids(StreamingDataLoader(copy, batch_size=BATCH)) == list(range(SAMPLES))
    left = {
        path.relative_to(tmp_path / '.streaming').as_posix() for path in (tmp_path / '.streaming').rglob('*') if path.is_file()
    }
    assert left == {'ledger', 'source.json'}


def test_keep_zip_keeps_it(remote: str, tmp_path: Path) -> None:
    ids(StreamingDataLoader(make(remote, tmp_path, keep_zip=True), batch_size=BATCH))
    names = {path.name for path in Path(remote).glob('*.zstd')}
    assert {path.name for path in tmp_path.glob('*.zstd')} == names
    for path in tmp_path.glob('*.mds'):
        path.unlink()
    dataset = make(remote, tmp_path)
    before = next(iter(dataset.stats().values()))['fetched_bytes']
    assert exactly_once(ids(StreamingDataLoader(dataset, batch_size=BATCH)))
    assert next(iter(dataset.stats().values()))['fetched_bytes'] == before, 'made from the kept files'


def test_batch_sizes_must_agree(remote: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='batch_size'):
        StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH + 1)
    with pytest.raises(ArgumentError, match='batch_size'):
        StreamingDataLoader(make(remote, tmp_path, batch_size=None), batch_size=BATCH)
    with pytest.raises(ArgumentError, match='batch_size'):
        next(iter(DataLoader(make(remote, tmp_path, batch_size=None), batch_size=BATCH, num_workers=2)))
    with pytest.raises(ArgumentError, match='batch_size'):
        len(make(remote, tmp_path, batch_size=None))


def test_accelerate_does_not_deal_to_ranks_once_more(remote: str, tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    loader = StreamingDataLoader(make(remote, tmp_path), batch_size=BATCH)
    assert accelerator.prepare(loader) is loader
    of_another = StreamingDataLoader([1, 2, 3], batch_size=1)
    assert accelerator.prepare(of_another) is not of_another
    AcceleratorState._reset_state(reset_partial_state=True)
