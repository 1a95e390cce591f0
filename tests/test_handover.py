"""Batches come out of their slots as they went in, and by torch's way where there is no slot."""

import os
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset, handover
from streaming.errors import FormatError
from streaming.handover import Handover
from streaming.readers import samples
from streaming.readers.samples import Run
from streaming.testing.values import assert_same

pytestmark = pytest.mark.skipif(not Handover.is_possible(), reason='no memory without a name here')


def worker(monkeypatch: pytest.MonkeyPatch, slots: int = 2) -> Handover:
    """A pool of one worker, which is this process too."""
    monkeypatch.setattr(handover, 'get_worker_info', lambda: SimpleNamespace(id=0))
    return Handover(lambda batch: batch, 1, slots)


def tensors() -> dict[str, Any]:
    return {
        'floats': torch.arange(6.0).view(2, 3),
        'halves': torch.ones(3, dtype=torch.float16) / 3,
        'words': ['a', 'b'],
        'flags': torch.tensor([True, False, True]),
        'tokens': torch.arange(5).to(torch.uint16),
        'turned': torch.arange(12).view(3, 4).T,
        'every other': torch.arange(9)[::2],
        'number': torch.tensor(7),
        'complex': torch.tensor([1 + 2j]),
        'none': torch.empty(0, 3),
        'nested': {'x': torch.ones(2)},
    }


def send(made: Any) -> Any:
    return pickle.loads(pickle.dumps(made))


def test_what_comes_out_is_what_went_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = worker(monkeypatch)
    batch = tensors()
    made = pool(batch)
    for value in batch.values():
        if isinstance(value, torch.Tensor):
            value.zero_()  # it is the worker's, which goes on
    received = send(made)
    assert list(received) == list(batch)
    assert_same(received, tensors())
    pool(dict.fromkeys('ab', torch.full((40,), 9)))  # into the same slot
    assert_same(received, tensors())


def test_numbers_that_numpy_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = worker(monkeypatch)
    third = torch.ones(2, 3, dtype=torch.bfloat16) / 3
    received = send(pool({'x': third}))['x']
    assert received.dtype is torch.bfloat16
    assert torch.equal(received, third)


def test_who_finds_no_slot_goes_torchs_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = worker(monkeypatch, slots=2)
    batches = [{'x': torch.full((1000,), number)} for number in range(5)]
    first, second = pool(batches[0]), pool(batches[1])
    assert pool(batches[2]) is batches[2]
    assert_same(send(second), batches[1])
    third = pool(batches[3])
    assert third is not batches[3]
    assert pool(batches[4]) is batches[4]
    assert_same([send(first), send(third)], [batches[0], batches[3]])


def test_what_does_not_fit_goes_torchs_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, '_MOST_BYTES', 1 << 16)
    pool = worker(monkeypatch)
    huge, first, larger, least = ({'x': torch.zeros(size, dtype=torch.uint8)} for size in (65537, 16384, 32768, 1))
    others: list[Any] = [[torch.zeros(3)], torch.zeros(3), {}, {'a': 'b'}, {'x': torch.zeros(3, requires_grad=True)}]
    assert pool(huge) is huge
    assert pool(first) is not first
    assert pool(larger) is larger
    assert pool(least) is not least
    assert all(pool(other) is other for other in others)


def test_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir('/proc/self/fd')
    pool = worker(monkeypatch)
    received = send(pool(tensors()))
    assert len(os.listdir('/proc/self/fd')) > len(before)
    del pool
    assert len(os.listdir('/proc/self/fd')) == len(before)
    assert_same(received, tensors())


def test_memory_is_used_again_once_nothing_looks_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = worker(monkeypatch)

    def receive(number: int) -> torch.Tensor:
        return send(pool({'x': torch.full((1 << 16,), number)}))['x']

    first = receive(1)
    address = first.data_ptr()
    part = first.view(256, 256)[3]  # each of these looks at the whole
    as_array = part.numpy()
    del first
    second = receive(2)
    del part
    third = receive(3)
    assert address not in (second.data_ptr(), third.data_ptr())
    assert as_array.tolist() == [1] * 256
    del as_array
    fourth = receive(4)
    assert fourth.data_ptr() == address
    assert [batch.unique().tolist() for batch in (second, third, fourth)] == [[2], [3], [4]]


def in_a_slot(pool: Handover, array: Any) -> bool:
    assert pool._mine is not None
    return np.shares_memory(array, pool._mine._bytes)


def test_arrays_are_made_where_they_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = worker(monkeypatch)
    uint16, kept = np.dtype('u2'), []
    assert type(pool.empty((2, 2), uint16)) is np.ndarray  # there is no slot yet
    send(pool({'n': torch.zeros(4000, dtype=torch.uint8)}))
    for number in range(4):
        tokens, more = pool.empty((3, 50), uint16), pool.empty((3, 7), uint16)
        assert in_a_slot(pool, tokens) and in_a_slot(pool, more)
        tokens[...], more[...] = number, number + 1
        batch = {'n': torch.tensor([number]), 'tokens': torch.from_numpy(tokens), 's': ['x'], 'more': torch.from_numpy(more)}
        expected = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        made = pool(batch)
        tokens = pool.empty((3, 50), uint16)
        tokens[...] = 99  # the next batch has begun, in the other slot
        kept.append((send(made), expected))
        assert list(kept[-1][0]) == list(batch)
    for received, expected in kept:
        assert_same(received, expected)


def test_who_finds_no_slot_makes_arrays_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = worker(monkeypatch, slots=1)
    byte = np.dtype('u1')
    waiting = pool({'x': torch.ones(4000, dtype=torch.uint8)})
    array = pool.empty((4000,), byte)
    assert not in_a_slot(pool, array)
    batch = {'x': torch.from_numpy(array)}
    assert pool(batch) is batch
    assert_same(send(waiting), {'x': torch.ones(4000, dtype=torch.uint8)})
    assert in_a_slot(pool, pool.empty((4000,), byte))


def test_what_is_partly_in_a_slot_and_does_not_fit_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = worker(monkeypatch)
    send(pool({'x': torch.ones(4000, dtype=torch.uint8)}))
    array, large = pool.empty((4000,), np.dtype('u1')), pool.empty((5000,), np.dtype('u1'))
    assert in_a_slot(pool, array) and not in_a_slot(pool, large)
    array[...], large[...] = 1, 2
    made = pool({'x': torch.from_numpy(array), 'y': torch.from_numpy(large)})
    array[...] = 3
    assert made['x'].unique().tolist() == [1]
    assert made['y'].data_ptr() == large.ctypes.data
    assert pool._mine is not None
    assert pool._mine.free_slot() == 0


def test_not_much_memory_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = worker(monkeypatch).blocks
    byte = np.dtype('u1')
    lent = [blocks.empty((1 << 19,), np.dtype('u2')) for _ in range(20)]
    del lent
    assert len(blocks._free) == handover._FREE_BLOCKS
    blocks.empty((1 << 10,), byte)
    assert len(blocks._free) == handover._FREE_BLOCKS
    assert blocks.empty((2, 1 << 20), byte).shape == (2, 1 << 20)  # of another size
    assert blocks.empty((2, 1 << 20), byte).shape == (2, 1 << 20)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp('set')
    with MDSWriter(out=str(path), columns={'v': 'ndarray:float32:16', 'n': 'int', 's': 'str'}, exist_ok=True) as writer:
        for number in range(96):
            writer.write({'v': np.full(16, number, np.float32), 'n': number, 's': str(number)})
    return str(path)


class Doubling(StreamingDataset):
    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        return {**sample, 'n': 2 * sample['n']}


@pytest.mark.parametrize('kind', [StreamingDataset, Doubling])
def test_no_tensor_of_a_worker_comes_torchs_way(folder: str, kind: type[StreamingDataset]) -> None:
    """In every epoch, also where all batches are kept and written to."""
    loader = StreamingDataLoader(kind(local=folder, batch_size=8), batch_size=8, num_workers=2, persistent_workers=True)
    expected = list(DataLoader(kind(local=folder, batch_size=8), batch_size=8))
    for _ in range(2):
        found = list(loader)
        assert not any(batch[name].is_shared() for batch in found for name in 'vn')
        assert_same([sorted(batch['n'].tolist()) for batch in found], [sorted(batch['n'].tolist()) for batch in expected])
        for batch in found:
            batch['v'].zero_()


def write_long(path: Path, size_limit: int) -> str:
    columns = {'tokens': 'ndarray:uint16:3,200', 'n': 'int', 's': 'str', 'any': 'ndarray'}
    with MDSWriter(out=str(path), columns=columns, size_limit=size_limit, exist_ok=True) as writer:
        for number in range(200):
            tokens = np.full((3, 200), number, np.uint16)
            writer.write({'tokens': tokens, 'n': number, 's': 'a' * (number % 7), 'any': tokens.astype(np.float32)})
    return str(path)


@pytest.fixture(scope='module')
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_long(tmp_path_factory.mktemp('long'), 30_000)


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_long_arrays_come_as_they_are(long_folder: str, shuffle: bool, method: str) -> None:
    def load(workers: int) -> list[dict[str, Any]]:
        dataset = StreamingDataset(local=long_folder, batch_size=8, shuffle=shuffle, num_canonical_nodes=1)
        context = method if workers else None
        return list(StreamingDataLoader(dataset, batch_size=8, num_workers=workers, multiprocessing_context=context))

    found = load(1)
    assert len(found) == 25
    assert_same(found, load(0))
    assert not any(batch[name].is_shared() for batch in found for name in ('tokens', 'any'))


def test_the_training_process_needs_no_thread_to_ask_for_batches(folder: str) -> None:
    loader = StreamingDataLoader(StreamingDataset(local=folder, batch_size=8), batch_size=8, num_workers=2)
    for _ in loader:
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith('QueueFeeder')]
    assert loader.multiprocessing_context is None


def test_a_batch_that_cannot_be_pickled_is_an_error(folder: str) -> None:
    """And not a traceback of the worker's and silence."""
    loader = StreamingDataLoader(
        StreamingDataset(local=folder, batch_size=8), batch_size=8, num_workers=1, collate_fn=lambda samples: threading.Lock()
    )
    with pytest.raises(RuntimeError, match='exited unexpectedly'):
        next(iter(loader))


def test_a_collate_function_of_the_users_goes_torchs_way(folder: str) -> None:
    loader = StreamingDataLoader(
        StreamingDataset(local=folder, batch_size=8), batch_size=8, num_workers=1, collate_fn=_with_an_alias
    )
    batch = next(iter(loader))
    batch['n'].zero_()
    assert batch['again'].tolist() == [0] * 8


def _with_an_alias(samples: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = torch.tensor([sample['n'] for sample in samples])
    return {'n': numbers, 'again': numbers}


RUN = 40  # samples of a batch, which is more than 32 KiB


def load(folder: str, workers: int, **options: Any) -> list[dict[str, Any]]:
    loader = {name: options.pop(name) for name in ('drop_last', 'multiprocessing_context', 'pin_memory') if name in options}
    dataset = StreamingDataset(local=folder, batch_size=RUN, num_canonical_nodes=1, **options)
    return list(StreamingDataLoader(dataset, batch_size=RUN, num_workers=workers, **loader))


@pytest.fixture(scope='module')
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_long(tmp_path_factory.mktemp('runs'), 200_000)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that the training process reads."""
    read = Handover.read
    found: list[Run] = []

    def note(self: Handover, run: Run) -> Any:
        found.append(run)
        return read(self, run)

    monkeypatch.setattr(Handover, 'read', note)
    return found


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_what_lies_side_by_side_is_read_where_it_is_needed(runs_folder: str, runs: list[Run], method: str) -> None:
    """And not by the worker, from the same files."""
    found = load(runs_folder, 1, multiprocessing_context=method)
    assert len(found) == 5
    assert_same(found, load(runs_folder, 0))
    # The others are of two shards.
    assert 0 < len(runs) < 5
    assert all(run.count == RUN and run.first % RUN == 0 for run in runs)
    assert not any(batch[name].is_shared() for batch in found for name in ('tokens', 'any'))


@pytest.mark.parametrize('options', [{'tail': 'mask'}, {'drop_last': True}, {'columns': ['tokens', 's']}])
def test_runs_are_the_batches_that_they_stand_for(runs_folder: str, runs: list[Run], options: dict[str, Any]) -> None:
    subset = {'subset': list(range(190))}  # so that the last batch is not whole
    assert_same(load(runs_folder, 1, **subset, **options), load(runs_folder, 0, **subset, **options))
    assert runs


def test_what_is_shuffled_or_small_or_large_comes_by_slots(
    runs_folder: str, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(runs_folder, 1, shuffle=True)
    for name, value in (('_LEAST_RUN_BYTES', 1 << 20), ('_MOST_RUN_BYTES', 1 << 10)):
        with monkeypatch.context() as patched:
            patched.setattr(samples, name, value)
            load(runs_folder, 1)
    assert not runs


@pytest.mark.parametrize('limit', [None, 500_000])
def test_runs_of_a_cache_only_where_shards_stay(runs_folder: str, tmp_path: Path, runs: list[Run], limit: int | None) -> None:
    found = load(str(tmp_path), 1, remote=runs_folder, cache_limit=limit)
    assert_same(found, load(runs_folder, 0))
    assert bool(runs) is (limit is None)


def test_a_shard_that_went_is_brought_again(runs_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Handover.read

    def after_a_fire(self: Handover, run: Run) -> Any:
        for path in tmp_path.glob('*.mds'):
            path.unlink()
        return read(self, run)

    monkeypatch.setattr(Handover, 'read', after_a_fire)
    assert_same(load(str(tmp_path), 1, remote=runs_folder), load(runs_folder, 0))


@pytest.mark.parametrize('pin_memory', [False, True])
def test_what_is_wrong_with_a_run_is_said_by_the_loader(
    runs_folder: str, monkeypatch: pytest.MonkeyPatch, pin_memory: bool
) -> None:
    """Also where it is read by the thread that pins memory, which must go on."""

    def fail(self: StreamingDataset, run: Run, empty: Any) -> Any:
        raise FormatError('sample 7: no such thing')

    monkeypatch.setattr(StreamingDataset, 'read_run', fail)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: pin_memory)  # else torch has no such thread
    with pytest.raises(FormatError, match=r'(?s)in the training process.*sample 7: no such thing'):
        load(runs_folder, 1, pin_memory=pin_memory)
