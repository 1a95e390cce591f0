"""Whole batches are what default_collate makes of the samples, bit for bit and type for type, and cost next to nothing."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from streaming import LocalDataset, MDSWriter, Stream, StreamingDataLoader, StreamingDataset, World
from streaming.errors import FormatError
from streaming.testing.effort import calls_of
from streaming.testing.values import VALUES, assert_same

ALONE = World(rank=0, num_ranks=1, ranks_per_node=1)
COLUMNS = {'tokens': 'ndarray:uint16', 'text': 'str', 'n': 'int', 'f': 'float32', 'v': 'ndarray:float32:3', 'raw': 'bytes'}


def row(number: int) -> dict[str, Any]:
    return {
        'tokens': np.arange(number, number + 8, dtype=np.uint16),
        'text': f'é{number}' * (number % 5),
        'n': number,
        'f': np.float32(number) / 3,
        'v': np.full(3, number, np.float32),
        'raw': bytes(number % 7),
    }


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp('set')
    with MDSWriter(out=str(path), columns=COLUMNS, size_limit=2000, exist_ok=True) as writer:
        for number in range(203):
            writer.write(row(number))
    return str(path)


def make(folder: str, **options: Any) -> StreamingDataset:
    return StreamingDataset(**{'local': folder, 'batch_size': 20, 'world': ALONE, 'shuffle': True, **options})


def outcome(work: Callable[[], Any]) -> Any:
    """What it gives, or what it raises."""
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, Any]]]:
    columns = draw(st.dictionaries(st.text(min_size=1, max_size=3), st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    # Often all of a column alike, as batches of ragged arrays cannot be made.
    alike = {name: draw(VALUES[encoding]) for name, encoding in columns.items() if draw(st.booleans())}
    count = draw(st.integers(1, 12))
    return columns, [{name: alike.get(name, draw(VALUES[columns[name]])) for name in columns} for _ in range(count)]


@settings(max_examples=150, deadline=None)
@given(datasets(), st.integers(1, 6), st.sampled_from([None, 150]), st.booleans(), st.sampled_from(['pad', 'drop', 'mask']))
def test_any_batch(
    tmp_path_factory: pytest.TempPathFactory, dataset: Any, batch_size: int, size_limit: int | None, shuffle: bool, tail: str
) -> None:
    columns, rows = dataset
    path = tmp_path_factory.mktemp('set')
    with MDSWriter(out=str(path), columns=columns, size_limit=size_limit, exist_ok=True) as writer:
        for sample in rows:
            writer.write(sample)
    options = {'batch_size': batch_size, 'shuffle': shuffle, 'tail': tail}
    whole = iter(StreamingDataLoader(make(str(path), **options), batch_size=batch_size))
    samples = iter(DataLoader(make(str(path), **options), batch_size=batch_size))
    while True:
        expected = outcome(lambda: next(samples))
        found = outcome(lambda: next(whole))
        assert_same(found, expected)
        if isinstance(expected, tuple):
            break


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('drop_last', [False, True])
@pytest.mark.parametrize('tail', ['pad', 'mask'])
def test_loaders_agree(folder: str, workers: int, drop_last: bool, tail: str) -> None:
    options: dict[str, Any] = {'batch_size': 20, 'drop_last': drop_last, 'num_workers': workers}
    whole = StreamingDataLoader(make(folder, tail=tail), persistent_workers=workers > 0, **options)
    samples = DataLoader(make(folder, tail=tail), persistent_workers=workers > 0, **options)
    assert len(whole) == len(samples) == (10 if drop_last else 11)
    assert whole.batch_size == 20
    for _ in range(2):
        assert_same(list(whole), list(samples))


@pytest.mark.parametrize('batch_size', [7, 64])
def test_long_arrays_and_texts_of_many_shards(tmp_path: Path, batch_size: int) -> None:
    columns = {'fixed': 'ndarray:int16:40,8', 'headed': 'ndarray', 'text': 'str'}
    with MDSWriter(out=str(tmp_path), columns=columns, size_limit=30_000, exist_ok=True) as writer:
        for number in range(150):
            array = np.arange(number, number + 320, dtype=np.int16).reshape(40, 8)
            writer.write({'fixed': array, 'headed': array.reshape(20, 16), 'text': f'é{number}' * 100})
    for shuffle in (False, True):
        whole = StreamingDataLoader(make(str(tmp_path), batch_size=batch_size, shuffle=shuffle), batch_size=batch_size)
        samples = DataLoader(make(str(tmp_path), batch_size=batch_size, shuffle=shuffle), batch_size=batch_size)
        found = list(whole)
        assert_same(found, list(samples))
        assert all(batch['fixed'].is_contiguous() and batch['headed'].is_contiguous() for batch in found)
        assert all(batch['fixed'].untyped_storage().nbytes() == batch['fixed'].nbytes for batch in found), 'batches share memory'


def test_a_batch_can_be_written_to_and_outlives_the_shard(folder: str) -> None:
    loader = StreamingDataLoader(make(folder, shuffle=False), batch_size=20)
    batch = next(iter(loader))
    for tensor in batch.values():
        if isinstance(tensor, torch.Tensor):
            assert tensor.is_contiguous()
            tensor.zero_()
    assert next(iter(StreamingDataLoader(make(folder, shuffle=False), batch_size=20)))['n'].tolist() == list(range(20))


@pytest.mark.filterwarnings('ignore:.*pin_memory')
def test_memory_is_pinned_as_torch_does_it(folder: str) -> None:
    """With an accelerator in pinned memory, without one with torch's warning; the same batches either way."""
    whole = StreamingDataLoader(make(folder), batch_size=20, pin_memory=True)
    samples = DataLoader(make(folder), batch_size=20, pin_memory=True)
    for found, expected in zip(whole, samples, strict=True):
        assert_same(found, expected)
        assert found['n'].is_pinned() == expected['n'].is_pinned()


def test_random_numbers_go_on_as_after_torchs_loader(folder: str) -> None:
    numbers = []
    for kind in (StreamingDataLoader, DataLoader):
        torch.manual_seed(3)
        list(kind(make(folder), batch_size=20))
        numbers.append(torch.rand(1).item())
    assert numbers[0] == numbers[1]


def test_shards_of_other_columns_in_one_batch(tmp_path: Path) -> None:
    """What default_collate makes of such batches, errors too."""
    for name, columns, sample in (
        ('a', {'x': 'int', 'y': 'str'}, {'x': 1, 'y': 'a'}),
        ('b', {'x': 'int32', 'y': 'str', 'z': 'int'}, {'x': 2, 'y': 'b', 'z': 0}),
        ('c', {'x': 'str'}, {'x': 'c'}),
    ):
        with MDSWriter(out=str(tmp_path / name), columns=columns) as writer:
            for _ in range(8):
                writer.write(sample)
    for names in ('aa', 'ab', 'ba', 'ac', 'ca'):
        loaders = []
        for kind in (StreamingDataLoader, DataLoader):
            streams = [Stream(local=str(tmp_path / name)) for name in names]
            dataset = StreamingDataset(streams=streams, batch_size=16, shuffle=True, shuffle_seed=1, world=ALONE)
            loaders.append(iter(kind(dataset, batch_size=16)))
        found, expected = (outcome(lambda loader=loader: next(loader)) for loader in loaders)
        assert_same(found, expected)


class Doubled(StreamingDataset):
    def __getitem__(self, at: Any) -> Any:
        return {'n': super().__getitem__(at)['n'] * 2}


def test_code_of_the_user_is_run_and_the_log_says_so(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    def first(batch: list[Any]) -> Any:
        return batch[0]

    with caplog.at_level(logging.DEBUG, 'streaming.loader'):
        doubled = Doubled(local=folder, batch_size=20, world=ALONE)
        assert next(iter(StreamingDataLoader(doubled, batch_size=20)))['n'].tolist() == list(range(0, 40, 2))
        assert 'Doubled has its own __getitem__' in caplog.text
        plain = make(folder, shuffle=False)
        assert next(iter(StreamingDataLoader(plain, batch_size=20, collate_fn=first)))['n'] == 0
        assert 'collate_fn' in caplog.text
        assert next(iter(StreamingDataLoader(plain, batch_size=None)))['n'] == 0
        assert 'batch_size=None' in caplog.text
        caplog.clear()
        next(iter(StreamingDataLoader(plain, batch_size=20, collate_fn=default_collate)))
        assert not caplog.text


def test_a_default_collate_that_its_user_changed_is_used(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def join(batch: list[str], *, collate_fn_map: Any = None) -> str:
        return ','.join(batch)

    monkeypatch.setitem(default_collate_fn_map, str, join)
    batch = next(iter(StreamingDataLoader(make(folder, shuffle=False), batch_size=20)))
    assert batch['text'] == ','.join(row(number)['text'] for number in range(20))


def test_a_broken_sample_is_named(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={'a': 'str', 'b': 'int'}, size_limit=300) as writer:
        for number in range(40):
            writer.write({'a': 'abc', 'b': number})
    path = tmp_path / 'shard.00001.mds'
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[12:16], 'little')  # of its sample number 2
    for where, value in ((start, 0xFF), (start + 4, 0xFF)):
        path.write_bytes(data[:where] + bytes([value]) + data[where + 1 :])
        with pytest.raises(FormatError, match=r'shard\.00001\.mds, sample 2'):
            list(StreamingDataLoader(make(str(tmp_path)), batch_size=20))


def test_a_cache_with_a_limit(folder: str, tmp_path: Path) -> None:
    expected = list(DataLoader(make(folder), batch_size=20))
    stored = sum(path.stat().st_size for path in Path(folder).glob('*.mds'))
    dataset = make('', local=str(tmp_path / 'cache'), remote=folder, cache_limit=stored // 2 + (1 << 16))
    found = list(StreamingDataLoader(dataset, batch_size=20))
    assert sorted(number for batch in found for number in batch['n'].tolist()) == sorted(
        number for batch in expected for number in batch['n'].tolist()
    )


def test_a_batch_costs_the_same_however_many_samples_it_has(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={'a': 'ndarray:uint16', 'b': 'int', 'c': 'float32', 'd': 'bool'}) as writer:
        for number in range(6000):
            writer.write({'a': np.arange(8, dtype=np.uint16), 'b': number, 'c': 0.5, 'd': True})
    counts = {}
    for batch_size in (20, 1000, 1400):
        loader = StreamingDataLoader(make(str(tmp_path), shuffle=False, batch_size=batch_size), batch_size=batch_size)
        batches = iter(loader)
        next(batches)
        counts[batch_size] = calls_of(lambda batches=batches: [next(batches) for _ in range(3)]).total()
    assert counts[1400] <= counts[1000] + 20
    assert counts[20] <= counts[1000] / 3, 'small ones are made several at once'


def test_a_map_style_dataset_gives_batches_to_a_plain_loader(folder: str) -> None:
    dataset = LocalDataset(folder)
    for workers in (0, 2):
        (batch,) = DataLoader(dataset, batch_size=203, num_workers=workers)
        assert batch['n'].tolist() == list(range(203))
    expected = default_collate([dataset[number] for number in (5, 200, 5)])
    assert_same(default_collate(dataset.__getitems__([5, 200, 5])), expected)
    with pytest.raises(IndexError):
        dataset.__getitems__([5, 203])
