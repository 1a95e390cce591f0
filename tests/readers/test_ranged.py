"""A shard in parts reads like the whole."""

from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming import MDSWriter
from streaming.errors import FormatError
from streaming.format.index import ShardTable
from streaming.readers import open_shard
from streaming.readers.gather import gather
from streaming.readers.ranged import RangedReader, coalesce

RANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)).map(lambda pair: (pair[0], pair[0] + pair[1])))


@given(RANGES, st.integers(0, 20))
def test_coalesce_covers_all_and_no_more_than_gaps(ranges: list[tuple[int, int]], gap: int) -> None:
    joined = coalesce(ranges, gap)
    wanted = {at for start, end in ranges for at in range(start, end)}
    covered = [at for start, end in joined for at in range(start, end)]
    assert len(covered) == len(set(covered))
    assert wanted <= set(covered)
    for (_, end), (start, _) in pairwise(joined):
        assert start - end > gap
    for start, end in joined:
        assert start in wanted and end - 1 in wanted
        missing = ''.join('.' if at in wanted else 'x' for at in range(start, end))
        assert 'x' * (gap + 1) not in missing


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('ranged')
    with MDSWriter(out=str(folder), columns={'id': 'int', 'text': 'str', 'tokens': 'ndarray:uint16'}) as writer:
        for number in range(100):
            writer.write({'id': number, 'text': 'x' * (number % 7), 'tokens': np.arange(number, dtype=np.uint16)})
    return folder


@settings(deadline=None)  # it opens a shard, and machines have other things to do
@given(st.lists(st.lists(st.integers(0, 99), max_size=10), max_size=4), st.sampled_from([0, 50, 1 << 20]))
def test_samples_in_parts_are_those_of_the_whole(folder: Path, batches: list[list[int]], gap: int) -> None:
    shard = ShardTable.from_json((folder / 'index.json').read_bytes(), 'index')[0]
    data = (folder / shard.raw_data.basename).read_bytes()
    whole = open_shard(folder, shard)
    opened = []

    def read(start: int, buffer: memoryview) -> None:
        buffer[:] = data[start : start + len(buffer)]

    def open_whole() -> object:
        opened.append(1)
        return whole

    reader = RangedReader(shard, 'shard', read, open_whole)  # type: ignore[arg-type]
    assert len(reader) == 100
    reader.read_head()
    for numbers in batches:
        for start, end in reader.missing(numbers, gap):
            reader.read_range(start, end)
        reader.add(numbers)
        assert reader.missing(numbers, gap) == []
        for number in numbers:
            np.testing.assert_equal(reader[number], whole[number])
        with ExitStack() as leases:
            mapped = reader.mapped(leases, np.array(numbers, np.int64))
            assert mapped is not None
            columns = gather([mapped], [np.array(numbers, np.int64)], None) if numbers else None
        if columns is not None:
            np.testing.assert_equal(list(columns['id']), numbers)
            np.testing.assert_equal(columns['text'], [whole[number]['text'] for number in numbers])
    here = {number for numbers in batches for number in numbers}
    for number in set(range(100)) - here:
        assert reader.mapped(ExitStack(), np.array([number, *here])) is None
    assert not opened, 'what is here is not asked of the whole'
    assert reader.agrees_with(memoryview(data))
    np.testing.assert_equal([reader[number] for number in range(100)], [whole[number] for number in range(100)])
    assert len(opened) <= 1
    with pytest.raises(IndexError):
        reader[100]


@pytest.mark.parametrize(('at', 'value'), [(0, 99), (4, 0), (4, 1 << 31), (40, 0), (404, 1 << 20)])
def test_a_head_that_cannot_be_is_refused(folder: Path, at: int, value: int) -> None:
    shard = ShardTable.from_json((folder / 'index.json').read_bytes(), 'index')[0]
    data = bytearray((folder / shard.raw_data.basename).read_bytes())
    data[at : at + 4] = value.to_bytes(4, 'little')

    def read(start: int, buffer: memoryview) -> None:
        buffer[:] = data[start : start + len(buffer)]

    reader = RangedReader(shard, 'oci://bucket/shard.00000.mds', read, lambda: open_shard(folder, shard))
    with pytest.raises(FormatError, match='oci://bucket/shard'):
        reader.read_head()
    assert reader[5]['id'] == 5, 'the whole is asked'


def test_where_sizes_are_fixed_the_index_says_where_samples_are(tmp_path: Path, folder: Path) -> None:
    columns = {'id': 'int', 'tokens': 'ndarray:uint16:32'}
    with MDSWriter(out=str(tmp_path), columns=columns) as writer:
        for number in range(50):
            writer.write({'id': number, 'tokens': np.full(32, number, np.uint16)})
    shard = ShardTable.from_json((tmp_path / 'index.json').read_bytes(), 'index')[0]
    data = (tmp_path / shard.raw_data.basename).read_bytes()
    read: list[tuple[int, int]] = []

    def fill(start: int, buffer: memoryview) -> None:
        read.append((start, start + len(buffer)))
        buffer[:] = data[start : start + len(buffer)]

    reader = RangedReader(shard, 'shard', fill, lambda: open_shard(tmp_path, shard))
    spans = reader.foreseen([3, 4, 40], 0)
    assert [end - start for start, end in spans] == [2 * 72, 72]
    for span in spans:
        reader.read_range(*span)
    reader.read_head()
    assert reader.missing([3, 4, 40], 0) == []
    assert reader.missing([4, 5], 0) == [(spans[0][1], spans[0][1] + 72)]
    reader.add([3, 4, 40])
    assert [reader[number]['id'] for number in (3, 4, 40)] == [3, 4, 40]
    varying = ShardTable.from_json((folder / 'index.json').read_bytes(), 'index')[0]
    assert RangedReader(varying, 'shard', fill, lambda: open_shard(folder, varying)).foreseen([3], 0) == []
