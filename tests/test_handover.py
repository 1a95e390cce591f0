"""Batches come out of their slots as they went in, and by torch's way where there is no slot."""

import os
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset, handover
from streaming.handover import Handover
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
