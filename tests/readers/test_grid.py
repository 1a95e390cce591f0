"""Columns of shards whose samples are all alike are what looking at each sample gives; those of others are looked at."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming import LocalDataset, MDSWriter
from streaming.errors import FormatError
from streaming.format.index import ShardTable
from streaming.readers import gather
from streaming.readers.mds import MDSReader
from streaming.readers.samples import SampleReader
from streaming.testing.values import assert_same

COLUMNS = {
    'flag': 'bool',
    'half': 'bfloat16',
    'n': 'int',
    'small': 'uint8',
    'tokens': 'ndarray:uint16:2,150',
    'v': 'ndarray:float32:3',
}
SAMPLES = 50


def row(number: int) -> dict[str, Any]:
    return {
        'flag': number % 3 == 0,
        'half': number / 8,
        'n': number - 7,
        'small': np.uint8(number),
        'tokens': np.arange(300, dtype=np.uint16).reshape(2, 150) + np.uint16(number),
        'v': np.full(3, number, np.float32),
    }


def write(folder: Path, columns: dict[str, str], size_limit: int | None = None) -> Path:
    with MDSWriter(out=str(folder), columns=columns, size_limit=size_limit) as writer:
        for number in range(SAMPLES):
            writer.write({name: value for name, value in row(number).items() if name in columns})
    return folder


def open_shard(folder: Path, columns: list[str] | None = None) -> MDSReader:
    table = ShardTable.from_json((folder / 'index.json').read_bytes(), str(folder))
    return MDSReader(folder, table[0], columns=columns)


def columns_of(reader: MDSReader, numbers: Any, *, looking: bool) -> Any:
    """Its columns, of the grid or with a look at each sample."""
    mapped = reader._mapped
    assert mapped is not None
    if looking:
        mapped = gather.Mapped(mapped.schema, mapped.windows, mapped.bounds, None)
    return gather.gather([mapped], [np.asarray(numbers)], None)


def same_sample(columns: Any, at: int, sample: dict[str, Any]) -> bool:
    return all(np.array_equal(values[at], sample[name]) for name, values in columns.items())


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp('alike'), COLUMNS)


@given(
    numbers=st.one_of(
        st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=30),
        st.integers(0, SAMPLES - 6).flatmap(lambda first: st.integers(1, 6).map(lambda count: list(range(first, first + count)))),
    ),
    columns=st.one_of(st.none(), st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True)),
)
def test_both_ways_give_the_same(folder: Path, numbers: list[int], columns: list[str] | None) -> None:
    reader = open_shard(folder, columns)
    assert reader._mapped is not None
    assert reader._mapped.grid is not None
    found = columns_of(reader, numbers, looking=False)
    assert_same(found, columns_of(reader, numbers, looking=True))
    assert same_sample(found, -1, reader[numbers[-1]])
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        assert_same(reader.run_columns(numbers[0], len(numbers), np.empty), found)


def test_samples_of_several_shards_are_put_in_their_places(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set', COLUMNS, size_limit=8000)
    dataset = LocalDataset(str(folder))
    ids = np.random.default_rng(0).permutation(SAMPLES)
    columns = SampleReader(dataset._table, dataset._readers).columns(ids)
    assert columns is not None
    assert all(same_sample(columns, at, row(sample_id)) for at, sample_id in enumerate(ids.tolist()))
    assert len(dataset._table) > 2


@pytest.mark.parametrize('column', ['s', 'any', 'none', 'json'])
def test_samples_that_may_differ_are_looked_at(tmp_path: Path, column: str) -> None:
    encoding = {'s': 'str', 'any': 'ndarray:uint16', 'none': 'ndarray:uint16:0,3', 'json': 'json'}[column]
    value: Any = {'s': 'a', 'any': np.zeros(2, np.uint16), 'none': np.zeros((0, 3), np.uint16), 'json': {}}[column]
    with MDSWriter(out=str(tmp_path / 'set'), columns={'n': 'int', column: encoding}) as writer:
        for number in range(3):
            writer.write({'n': number, column: value})
    mapped = open_shard(tmp_path / 'set')._mapped
    assert mapped is not None
    assert mapped.grid is None
    assert mapped.schema.is_plain is (column != 'json')


def test_a_shard_with_a_sample_too_long_is_looked_at_and_said_to_be_wrong(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set', {'n': 'int', 'v': 'ndarray:float32:3'})
    path = folder / 'shard.00000.mds'
    data = bytearray(path.read_bytes())
    offsets = np.frombuffer(data, '<u4', SAMPLES + 1, 4)
    offsets[10] += 1  # sample 9 takes a byte of sample 10
    path.write_bytes(data)
    reader = open_shard(folder)
    assert reader._mapped is not None
    assert reader._mapped.grid is None
    assert columns_of(reader, [8, 9], looking=False) is None
    assert reader.run_columns(8, 2, np.empty) is None
    assert columns_of(reader, [7, 8], looking=False)['n'].tolist() == [0, 1]
    with pytest.raises(FormatError, match='sample 9'):
        reader[9]


def test_a_bool_that_is_none_makes_no_column(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set', {'flag': 'bool', 'n': 'int'})
    path = folder / 'shard.00000.mds'
    data = bytearray(path.read_bytes())
    start = int(np.frombuffer(data, '<u4', SAMPLES + 1, 4)[9])
    data[start] = 2
    path.write_bytes(data)
    reader = open_shard(folder)
    assert columns_of(reader, [8, 9], looking=False) is None
    assert reader.run_columns(8, 2, np.empty) is None
    assert reader.run_columns(0, 9, np.empty) is not None
    with pytest.raises(FormatError, match='sample 9'):
        reader[9]


def test_no_sample_is_looked_at_where_all_are_alike(folder: Path) -> None:
    reader = open_shard(folder)
    with patch.object(gather, 'spans', side_effect=AssertionError('looked at samples')):
        columns_of(reader, [3, 1, 2], looking=False)
        reader.run_columns(0, SAMPLES, np.empty)
