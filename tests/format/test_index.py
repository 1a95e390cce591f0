"""index.json: what is read from it, and what is refused."""

import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import FormatError
from streaming.format.index import ShardTable, dump_index

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'


def entry(number: int, **changes: Any) -> dict[str, Any]:
    name = f'shard.{number:05}.mds'
    return {
        'version': 2,
        'format': 'mds',
        'compression': 'zstd',
        'hashes': ['xxh64'],
        'samples': 10 + number,
        'size_limit': 1000,
        'column_names': ['a', 'b'],
        'column_encodings': ['int', 'str'],
        'column_sizes': [8, None],
        'raw_data': {'basename': name, 'bytes': 1000 + number, 'hashes': {'xxh64': '0' * 16}},
        'zip_data': {'basename': f'{name}.zstd', 'bytes': 500, 'hashes': {'xxh64': '1' * 16}},
        **changes,
    }


def index(count: int = 3) -> dict[str, Any]:
    return {'version': 2, 'shards': [entry(number) for number in range(count)]}


def read(value: Any) -> ShardTable:
    return ShardTable.from_json(json.dumps(value).encode(), 'the/index.json')


@pytest.mark.parametrize('folder', sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_golden_indexes_come_out_byte_equal(folder: str) -> None:
    data = (GOLDEN / folder / 'index.json').read_bytes()
    assert ShardTable.from_json(data, folder).to_json() == data


def test_columns_of_the_table() -> None:
    table = read(index())
    assert len(table) == 3
    assert table.samples.tolist() == [10, 11, 12]
    assert table.raw_bytes.tolist() == [1000, 1001, 1002]
    assert table.stored_bytes.tolist() == [500] * 3
    assert table.starts.tolist() == [0, 10, 21, 33]
    assert table.num_samples == 33
    assert [shard.raw_data.basename for shard in table] == [f'shard.0000{i}.mds' for i in range(3)]
    assert table[-1].samples == 12
    assert [shard.samples for shard in table[1:]] == [11, 12]


def test_where_samples_are() -> None:
    table = ShardTable.concat([read(index()), read({'version': 2, 'shards': []}), read(index(2))])
    found = [table.locate(number) for number in range(table.num_samples)]
    assert found == [(s, i) for s, count in enumerate([10, 11, 12, 10, 11]) for i in range(count)]
    shards, within = table.find(np.arange(table.num_samples))
    assert list(zip(shards.tolist(), within.tolist(), strict=True)) == found
    for number in (-1, table.num_samples):
        with pytest.raises(IndexError):
            table.locate(number)


def test_empty_shards_hold_no_sample() -> None:
    value = index()
    value['shards'][1]['samples'] = 0
    table = read(value)
    assert table.locate(9) == (0, 9)
    assert table.locate(10) == (2, 0)


def test_it_pickles() -> None:
    table = pickle.loads(pickle.dumps(ShardTable.concat([read(index()), read(index(1))])))
    assert table.to_json() == dump_index([*read(index()), *read(index(1))])


def test_a_hundred_thousand_shards_fit_into_little_memory() -> None:
    data = json.dumps({'version': 2, 'shards': [entry(number, samples=10) for number in range(100_000)]}).encode()
    tracemalloc.start()
    try:
        table = ShardTable.from_json(data, 'index')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == 100_000
    assert peak < 100 << 20


def set_in(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(shard: dict[str, Any]) -> None:
        *path, last = key.split('.')
        for part in path:
            shard = shard[part]
        shard[last] = value

    return change


LIES: dict[str, Callable[[dict[str, Any]], None]] = {
    'version': set_in('version', 1),
    'format': set_in('format', 'parquet'),
    'no format': lambda shard: shard.pop('format'),
    'samples negative': set_in('samples', -1),
    'samples not whole': set_in('samples', 1.5),
    'samples a text': set_in('samples', '10'),
    'samples a bool': set_in('samples', True),
    'samples huge': set_in('samples', 1 << 70),
    'more samples than fit': set_in('samples', 300),
    'no samples': lambda shard: shard.pop('samples'),
    'bytes negative': set_in('raw_data.bytes', -1),
    'bytes over 4 GiB': set_in('raw_data.bytes', 1 << 32),
    'no bytes': lambda shard: shard['raw_data'].pop('bytes'),
    'no basename': lambda shard: shard['raw_data'].pop('basename'),
    'no raw_data': lambda shard: shard.pop('raw_data'),
    'raw_data null': set_in('raw_data', None),
    'no zip_data': set_in('zip_data', None),
    'hashes a text': set_in('hashes', 'sha1'),
    'digest a number': set_in('raw_data.hashes', {'sha1': 1}),
    'names not parallel': set_in('column_names', ['a']),
    'sizes not parallel': set_in('column_sizes', [8]),
    'size negative': set_in('column_sizes', [-8, None]),
    'names twice': set_in('column_names', ['a', 'a']),
    'no names': lambda shard: shard.pop('column_names'),
    'compression a number': set_in('compression', 3),
    'name of another shard': set_in('raw_data.basename', 'shard.00002.mds'),
    'name of the index': set_in('raw_data.basename', 'index.json'),
    'name in the hidden folder': set_in('raw_data.basename', '.streaming/ledger'),
    **{
        f'name {name!r}': set_in(f'{which}.basename', name)
        for which in ('raw_data', 'zip_data')
        for name in (
            '../a',
            '/etc/passwd',
            'a/../b',
            '..',
            '.',
            '',
            'a//b',
            'a/',
            'a\\b',
            'a\0b',
            'x' * 2000,
            'x' * 256,
            'é' * 128,
        )
    },
}


@pytest.mark.parametrize('lie', LIES)
@pytest.mark.parametrize(('count', 'number'), [(3, 0), (3, 1), (80, 0), (80, 50)])
def test_lies_are_refused(lie: str, count: int, number: int) -> None:
    value = index(count)
    LIES[lie](value['shards'][number])
    where = max(number, 2) if lie == 'name of another shard' else number
    with pytest.raises(FormatError, match=rf'the/index\.json, shard {where}\b'):
        list(read(value))


def test_offsets_of_text_over_4_gib_are_refused() -> None:
    meta = {'basename': 'm', 'bytes': 1 << 32, 'hashes': {}}
    text = {'format': 'json', 'compression': None, 'columns': {'a': 'int'}, 'newline': '\n', 'raw_meta': meta}
    shard = {**entry(0, samples=10), **text}
    with pytest.raises(FormatError, match='4 GiB'):
        read({'version': 2, 'shards': [shard]})


def test_sub_folders_and_unusual_names_are_fine() -> None:
    value = index(1)
    value['shards'][0]['raw_data']['basename'] = 'part-3/träin data/shard.00000.mds'
    assert read(value)[0].raw_data.basename == 'part-3/träin data/shard.00000.mds'


@pytest.mark.parametrize(
    'value', [[], 3, None, 'x', {}, {'version': 2}, {'version': 2, 'shards': {}}, {'version': 2, 'shards': [3]}]
)
def test_what_is_no_index_is_refused(value: Any) -> None:
    with pytest.raises(FormatError, match=r'the/index\.json'):
        read(value)


@pytest.mark.parametrize('version', [1, 3, '2', None])
def test_other_versions_are_named(version: Any) -> None:
    with pytest.raises(FormatError, match='version'):
        read({'version': version, 'shards': 'in another form'})


def test_constants_that_are_no_json_are_refused() -> None:
    for constant in ('NaN', 'Infinity', '-Infinity'):
        data = json.dumps(index()).replace('"samples": 10', f'"samples": {constant}').encode()
        with pytest.raises(FormatError):
            ShardTable.from_json(data, 'index')


@pytest.mark.parametrize(
    'key',
    [
        '"samples": 10',
        '"basename": "shard.00000.mds"',
        '"version": 2',
        '"format": "mds"',
        '"shards": []',
        '"column_names": ["a"]',
    ],
)
def test_keys_that_stand_twice_are_refused(key: str) -> None:
    name = key.partition(':')[0]
    data = json.dumps(index()).replace(f'{name}:', f'{key}, {name}:', 1).encode()
    with pytest.raises(FormatError, match='twice'):
        ShardTable.from_json(data, 'index')


def test_keys_that_stand_twice_in_a_later_shard_are_refused_when_it_is_read() -> None:
    first, second = (json.dumps(entry(number, samples=10)) for number in range(2))
    names = '"column_names": ["b", "a"], "column_names"'
    data = f'{{"version": 2, "shards": [{first}, {second.replace(chr(34) + "column_names" + chr(34), names)}]}}'.encode()
    table = ShardTable.from_json(data, 'index')
    assert table[0].samples == 10
    with pytest.raises(FormatError, match='twice'):
        table[1]


def test_columns_may_be_named_like_keys() -> None:
    value = index(1)
    value['shards'][0]['column_names'] = ['basename', 'samples']
    assert read(value)[0].column_names == ('basename', 'samples')


def test_what_the_old_package_cannot_read_is_marked() -> None:
    value = index(1)
    assert b'extensions' not in read(value).to_json()
    value['shards'][0].update(column_encodings=['bool', 'list[bfloat16]'], column_sizes=[1, None])
    written = read(value).to_json()
    assert json.loads(written)['extensions'] == ['bfloat16', 'bool']
    assert ShardTable.from_json(written, 'index').to_json() == written


def test_an_index_that_needs_more_than_we_know_is_refused() -> None:
    for name in ('time-travel', 'ndarray:no', 'list[no]'):
        with pytest.raises(FormatError, match='which nothing here knows'):
            read({**index(1), 'extensions': ['bool', name]})


def test_deep_nesting_is_refused() -> None:
    for data in (b'[' * 100_000, b'{"version": 2, "shards": ' + b'[' * 100_000, b'{"version": 2, "x": ' * 50_000):
        with pytest.raises(FormatError):
            ShardTable.from_json(data, 'index')


def test_every_truncation_is_refused() -> None:
    data = json.dumps(index(2)).encode()
    for length in range(len(data)):
        with pytest.raises(FormatError, match='index'):
            ShardTable.from_json(data[:length], 'index')


@settings(max_examples=300)
@given(st.data())
def test_flipped_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    text = bytearray(json.dumps(index(2)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        table = list(ShardTable.from_json(bytes(text), 'index'))
    except FormatError:
        return
    for shard in table:
        for file in (*shard.raw_files, *shard.stored):
            assert not any(part in ('', '.', '..') for part in file.basename.split('/'))
