"""Samples straight from a store: the same as from a folder, by range or from whole shards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming import LocalDataset
from streaming.errors import ArgumentError, CorruptError, FormatError, NotFoundError, StreamingError
from streaming.store.local import LocalStore
from streaming.store.protocol import ObjectInfo
from streaming.store.wrapper import WrapperStore
from streaming.tools import source as module
from streaming.tools.source import DatasetSource

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'


class Recorder(WrapperStore):
    """Notes the ranges that are asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStore(folder))
        self.ranges: list[tuple[str, int, int]] = []

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        self.ranges.append((key, start, len(buffer)))
        return super().read_into(key, start, buffer, if_match=if_match, on_bytes=on_bytes)


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return bool(left.dtype == right.dtype and left.shape == right.shape and (left == right).all())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


@pytest.mark.parametrize('name', ['mds', 'mds-zstd', 'mds-br', 'json', 'csv', 'xsv'])
@pytest.mark.parametrize(('start', 'stop'), [(0, 3), (5, 9), (7, 30), (13, 14), (4, 4)])
def test_any_run_of_samples(name: str, start: int, stop: int) -> None:
    wanted = LocalDataset(GOLDEN / name)[start:stop]
    with DatasetSource(GOLDEN / name) as source:
        found = list(source.samples(start, stop))
    assert [sample.keys() for sample in found] == [sample.keys() for sample in wanted]
    assert all(equal(a[key], b[key]) for a, b in zip(found, wanted, strict=True) for key in a)


def test_a_part_of_a_raw_shard_is_read_by_range() -> None:
    store = Recorder(GOLDEN / 'mds')
    with DatasetSource('', store) as source:
        found = list(source.samples(1, 4, columns=['a_int']))
        assert [list(sample) for sample in found] == [['a_int']] * 3
        assert store.ranges[0][:2] == ('shard.00000.mds', 8)
        assert len(store.ranges) == 2 and sum(size for *_, size in store.ranges) < source.table[0].raw_data.bytes / 2


def test_ranges_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_RANGE_BYTES', 5000)
    store = Recorder(GOLDEN / 'mds')
    with DatasetSource('', store) as source:
        assert len(list(source.samples(0, 5))) == 5
        assert 3 <= len(store.ranges) <= 6
        assert all(size <= 5000 for *_, size in store.ranges)


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match='splits are folders'):
        DatasetSource(tmp_path)
    (tmp_path / 'index.json').write_text('{}')
    with pytest.raises(FormatError, match=r'index\.json'):
        DatasetSource(tmp_path)


@pytest.mark.parametrize('name', ['mds', 'mds-zstd', 'json'])
def test_broken_shards_are_errors_that_name_the_file(tmp_path: Path, name: str) -> None:
    for path in (GOLDEN / name).iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data if path.name == 'index.json' else data[:3] + b'\xff' * (len(data) - 3))
    with DatasetSource(tmp_path) as source:
        for stop in (2, source.table[0].samples):
            with pytest.raises(StreamingError, match=r'shard\.00000') as caught:
                list(source.samples(0, stop))
            assert isinstance(caught.value, (FormatError, CorruptError))


def test_columns(tmp_path: Path) -> None:
    with DatasetSource(GOLDEN / 'mds') as source, pytest.raises(ArgumentError, match='no column nope'):
        list(source.samples(0, 1, columns=['nope']))
