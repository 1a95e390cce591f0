"""What MDSWriter writes, and where it cuts shards."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming import LocalDataset, MDSWriter
from streaming.errors import AlreadyExistsError, ArgumentError, ColumnTypeError
from streaming.writers import base

COLUMNS = {'number': 'int', 'text': 'str'}


def sample(number: int) -> dict[str, Any]:
    return {'number': number, 'text': f'sample {number} ' * (number % 5)}


def write(out: Path, numbers: Any, **options: Any) -> None:
    with MDSWriter(out=out, **{'columns': COLUMNS, **options}) as writer:
        for number in numbers:
            writer.write(sample(number))


def read(folder: Path) -> list[dict[str, Any]]:
    return list(LocalDataset(folder))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def index(folder: Path) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = json.loads((folder / 'index.json').read_bytes())['shards']
    return shards


@pytest.mark.parametrize('compression', [None, 'zstd', 'zstd:7', 'gz', 'bz2:1', 'br:4', 'snappy'])
def test_round_trip(tmp_path: Path, compression: str | None) -> None:
    write(tmp_path, range(1000), compression=compression, hashes=['xxh64', 'sha1'], size_limit='4kb')
    assert read(tmp_path) == [sample(number) for number in range(1000)]
    shards = index(tmp_path)
    assert len(shards) > 5
    stored = 'raw_data' if compression is None else 'zip_data'
    assert files(tmp_path) == {'index.json', *(shard[stored]['basename'] for shard in shards)}
    for shard in shards:
        assert shard['hashes'] == ['sha1', 'xxh64'] == sorted(shard[stored]['hashes'])
        assert (tmp_path / shard[stored]['basename']).stat().st_size == shard[stored]['bytes']


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=60), st.integers(150, 1500))
def test_shards_as_a_simple_model_cuts_them(tmp_path_factory: pytest.TempPathFactory, values: list[bytes], limit: int) -> None:
    folder = tmp_path_factory.mktemp('model')
    with MDSWriter(out=folder, columns={'x': 'bytes'}, size_limit=limit) as writer:
        for value in values:
            writer.write({'x': value})
    config = {'version': 2, 'format': 'mds', 'compression': None, 'hashes': [], 'size_limit': limit}
    config |= {'column_names': ['x'], 'column_encodings': ['bytes'], 'column_sizes': [None]}
    head = json.dumps(config, sort_keys=True).encode()
    shards: list[list[bytes]] = []
    size = limit + 1
    for value in values:
        data = len(value).to_bytes(4, 'little') + value
        if size + 4 + len(data) > limit:
            shards.append([])
            size = 8 + len(head)
        shards[-1].append(data)
        size += 4 + len(data)
    for number, shard in enumerate(shards):
        ends = np.cumsum([8 + 4 * len(shard) + len(head), *map(len, shard)])
        wanted = np.array([len(shard), *ends], '<u4').tobytes() + head + b''.join(shard)
        assert (folder / f'shard.{number:05}.mds').read_bytes() == wanted
    assert files(folder) == {'index.json', *(f'shard.{number:05}.mds' for number in range(len(shards)))}
    assert [s['x'] for s in LocalDataset(folder)] == values


def test_empty_dataset_has_an_index_and_no_shards(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert (tmp_path / 'index.json').read_bytes() == b'{"shards": [], "version": 2}'
    assert len(LocalDataset(tmp_path)) == 0


def test_no_limit_is_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, '_USUAL_BYTES', 100)  # so that the buffer has to grow again and again
    monkeypatch.setattr(base, '_LEAST_BYTES', 1)
    for name, limit in (('none', None), ('zero', 0)):
        write(tmp_path / name, range(5000), size_limit=limit)
        assert read(tmp_path / name) == [sample(number) for number in range(5000)]
        (shard,) = index(tmp_path / name)
        assert shard['size_limit'] is None


def test_a_sample_over_the_limit_is_a_shard_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, '_LEAST_BYTES', 1)
    sizes = [5, 5000, 5, 7, 10_000, 9000]
    with MDSWriter(out=tmp_path, columns={'x': 'bytes'}, size_limit=1000) as writer:
        for size in sizes:
            writer.write({'x': bytes(size)})
    assert [shard['samples'] for shard in index(tmp_path)] == [1, 1, 2, 1, 1]
    assert [len(s['x']) for s in LocalDataset(tmp_path)] == sizes


def test_too_large_for_any_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, '_MOST_BYTES', 4000)  # instead of 4 GiB
    with MDSWriter(out=tmp_path / 'a', columns={'x': 'bytes'}, size_limit=1000) as writer:
        writer.write({'x': bytes(10)})
        with pytest.raises(ArgumentError, match='split the sample'):
            writer.write({'x': bytes(5000)})
        writer.write({'x': bytes(20)})
    assert [len(s['x']) for s in LocalDataset(tmp_path / 'a')] == [10, 20]
    writer = MDSWriter(out=tmp_path / 'b', columns={'x': 'bytes'}, size_limit=None)
    with pytest.raises(ArgumentError, match='give a size_limit'), writer:
        for _ in range(5):
            writer.write({'x': bytes(1000)})
    assert files(tmp_path / 'b') == set()


def test_a_refused_sample_adds_nothing(tmp_path: Path) -> None:
    with MDSWriter(out=tmp_path, columns={'a': 'int', 'b': 'int'}) as writer:
        writer.write({'a': 1, 'b': 2})
        for bad, message in (
            ({'a': 1, 'b': 'x'}, "column 'b'.*takes an int, got str"),
            ({'a': 1, 'b': 1 << 63}, "column 'b'.*within its range"),
            ({'a': 1, 'b': b'short'}, "column 'b'.*8 bytes, got 5"),
            ({'a': 1}, 'has no b'),
            ([1, 2], 'a sample is a mapping'),
        ):
            with pytest.raises(ColumnTypeError, match=message):
                writer.write(bad)  # type: ignore[arg-type]
        writer.write({'a': True, 'b': np.int16(-4), 'more': 'is left out'})
        writer.write({'a': b'\1' + bytes(7), 'b': 4})
    assert read(tmp_path) == [{'a': 1, 'b': 2}, {'a': 1, 'b': -4}, {'a': 1, 'b': 4}]


def test_columns_of_the_first_sample(tmp_path: Path) -> None:
    first = {
        'int': 1,
        'big': 1 << 70,
        'float': 0.5,
        'text': 'ä',
        'bytes': b'\0',
        'tokens': np.arange(3, dtype=np.uint16),
        'scalar': np.float32(1.5),
        'decimal': Decimal('1.10'),
        'tree': {'a': [1, None, 'x']},
    }
    wanted = {
        'int': 'int',
        'big': 'str_int',
        'float': 'float64',
        'text': 'str',
        'bytes': 'bytes',
        'tokens': 'ndarray:uint16',
        'scalar': 'float32',
        'decimal': 'str_decimal',
        'tree': 'json',
    }
    with MDSWriter(out=tmp_path / 'a') as writer:
        assert writer.columns == {}
        writer.write(first)
        assert writer.columns == wanted
        writer.write({**first, 'tokens': np.zeros((2, 2), np.uint16)})
        with pytest.raises(ColumnTypeError, match="column 'tokens'"):
            writer.write({**first, 'tokens': np.zeros(2, np.int64)})
    a, b = LocalDataset(tmp_path / 'a')
    assert {**a, 'tokens': 0} == {**first, 'tokens': 0}
    assert b['tokens'].shape == (2, 2)
    with MDSWriter.for_sample(first, out=tmp_path / 'b', size_limit='1mb') as writer:
        assert writer.columns == wanted
    assert len(LocalDataset(tmp_path / 'b')) == 0
    with pytest.raises(ColumnTypeError, match=r"column 'x'.*object; give columns"):
        MDSWriter.for_sample({'x': object()}, out=tmp_path / 'c')
    with pytest.raises(ColumnTypeError, match='at least one column'):
        MDSWriter.for_sample({}, out=tmp_path / 'c')


def test_one_end(tmp_path: Path) -> None:
    writer = MDSWriter(out=tmp_path, columns=COLUMNS)
    writer.write(sample(1))
    writer.finish()
    writer.finish()
    with pytest.raises(ArgumentError, match='finished'):
        writer.write(sample(2))
    with pytest.raises(ArgumentError, match='finished'), writer:
        writer.write(sample(2))
    assert read(tmp_path) == [sample(1)]


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match='mine'), MDSWriter(out=tmp_path, columns=COLUMNS, size_limit=500) as writer:
        for number in range(200):
            writer.write(sample(number))
        raise KeyError('mine')
    assert files(tmp_path) == set()
    with pytest.raises(ArgumentError, match='given up'):
        writer.finish()
    with pytest.raises(ArgumentError, match='given up'):
        writer.write(sample(1))
    write(tmp_path, range(3))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'compression': 'lzma'}, "no compression named 'lzma'"),
        ({'compression': 'zstd:99'}, 'levels 1 to 22'),
        ({'hashes': ['nope']}, "no hash named 'nope'"),
        ({'hashes': 'sha1'}, 'a list of names'),
        ({'size_limit': -1}, 'must not be negative'),
        ({'size_limit': '4gb'}, 'under 4 GiB'),
        ({'max_workers': 0}, 'at least 1'),
        ({'retry': -1}, 'must not be negative'),
        ({'exist_ok': 'maybe'}, "'append'"),
        ({'columns': {}}, 'at least one column'),
        ({'columns': {'x': 'strr'}}, "no encoding 'strr'"),
        ({'out': ''}, 'a path, a URL or'),
        ({'out': ('a', 'b', 'c')}, 'a path, a URL or'),
        ({'out': 'gopher://x'}, 'no store serves gopher://'),
    ],
)
def test_bad_arguments_touch_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write(tmp_path, range(10))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ArgumentError, match=message):
        MDSWriter(**{'columns': COLUMNS, 'out': tmp_path, 'exist_ok': True, **options})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_unknown_keyword(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match='compresion'):
        MDSWriter(out=tmp_path, columns=COLUMNS, compresion='zstd')  # type: ignore[call-arg]


def test_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, range(100), progress_bar=True, size_limit=500)
    assert '100' in capsys.readouterr().err


# What is there already


def test_a_dataset_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    with pytest.raises(AlreadyExistsError, match=r'index\.json.*exist_ok=True'):
        write(tmp_path, range(5))
    assert read(tmp_path) == [sample(number) for number in range(10)]
    (tmp_path / 'index.json').unlink()
    with pytest.raises(AlreadyExistsError, match=r'shard\.00000\.mds, of a writer that did not finish'):
        write(tmp_path, range(5))


def test_overwriting_removes_what_the_old_one_had_and_no_more(tmp_path: Path) -> None:
    write(tmp_path, range(100), size_limit=500)
    assert len(files(tmp_path)) > 10
    (tmp_path / 'notes.txt').write_text('mine')
    (tmp_path / 'shard.of.mine').write_text('mine')
    write(tmp_path / 'train', range(3))
    with MDSWriter(out=tmp_path, columns=COLUMNS, compression='zstd', exist_ok=True) as writer:
        assert not (tmp_path / 'index.json').exists()
        writer.write(sample(7))
    mine = {'notes.txt', 'shard.of.mine', 'train/index.json', 'train/shard.00000.mds'}
    assert files(tmp_path) == {'index.json', 'shard.00000.mds.zstd', *mine}
    assert read(tmp_path) == [sample(7)]


@pytest.mark.parametrize('left', [None, b'{broken'])
def test_overwriting_what_never_was_a_dataset(tmp_path: Path, left: bytes | None) -> None:
    write(tmp_path, range(100), size_limit=500)
    if left is None:
        (tmp_path / 'index.json').unlink()
    else:
        (tmp_path / 'index.json').write_bytes(left)
    write(tmp_path, range(2), exist_ok=True)
    assert files(tmp_path) == {'index.json', 'shard.00000.mds'}
    assert read(tmp_path) == [sample(0), sample(1)]


def test_local_and_remote(tmp_path: Path) -> None:
    local, remote = tmp_path / 'local', tmp_path / 'remote'
    write((str(local), str(remote)), range(100), size_limit=500)  # type: ignore[arg-type]
    assert read(remote) == [sample(number) for number in range(100)]
    assert not local.exists()
    write((str(local), str(remote)), range(50), size_limit=500, keep_local=True, exist_ok=True)  # type: ignore[arg-type]
    assert read(local) == read(remote) == [sample(number) for number in range(50)]
    assert files(local) == files(remote)
    writer = MDSWriter(out=(local, remote), columns=COLUMNS, exist_ok=True)
    assert (writer.local, writer.remote) == (str(local), str(remote))
    writer.finish()
    writer = MDSWriter(out=tmp_path / 'x', columns=COLUMNS)
    assert (writer.local, writer.remote) == (str(tmp_path / 'x'), None)
    writer.finish()
