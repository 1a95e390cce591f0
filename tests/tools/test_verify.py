"""verify_dataset: every way in which an object can be wrong is found and named, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming import JSONWriter, MDSWriter
from streaming.errors import ArgumentError, CredentialsError, DeniedError, NotFoundError
from streaming.store.local import LocalStore
from streaming.store.protocol import Store
from streaming.testing.wrappers import Fault, FaultyStore
from streaming.tools.verify import verify_dataset

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'


@pytest.mark.parametrize('name', ['mds', 'mds-zstd', 'mds-snappy', 'json', 'tsv'])
def test_good_datasets(name: str) -> None:
    read: list[int] = []
    begun: list[int] = []
    found = verify_dataset(GOLDEN / name, on_begin=begun.append, on_bytes=read.append)
    assert found.is_good and found.problems == ()
    assert sum(read) == begun[0] == found.bytes
    assert found.hashed == (0 if name in ('mds', 'json') else found.objects)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.fixture(params=['mds-zstd', 'mds', 'json', 'csv'])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / request.param, tmp_path / 'set')
    return tmp_path / 'set'


@pytest.mark.parametrize(
    ('kind', 'spoil', 'seen_by_size'),
    [
        ('missing', lambda path: path.unlink(), True),
        ('corrupt', lambda path: path.write_bytes(path.read_bytes()[:-1]), True),
        ('corrupt', lambda path: path.write_bytes(path.read_bytes() + b'\0'), True),
        ('corrupt', lambda path: path.write_bytes(b''), True),
        ('corrupt', lambda path: flip(path, 6), False),
    ],
    ids=['missing', 'cut', 'longer', 'empty', 'flipped'],
)
def test_each_kind_of_damage(folder: Path, kind: str, spoil: Callable[[Path], None], seen_by_size: bool) -> None:
    shard = json.loads((folder / 'index.json').read_bytes())['shards'][-1]
    file = (
        shard['zip_meta' if shard['compression'] else 'raw_meta']
        if shard['format'] != 'mds'
        else shard['zip_data'] or shard['raw_data']
    )
    spoil(folder / file['basename'])
    found = verify_dataset(folder)
    assert [(problem.url, problem.kind) for problem in found.problems] == [(str(folder / file['basename']), kind)]
    assert file['basename'] in found.problems[0].message
    assert verify_dataset(folder, sizes_only=True).is_good is not seen_by_size


def test_every_recorded_hash_counts(tmp_path: Path) -> None:
    with MDSWriter(out=tmp_path, columns={'x': 'int'}, hashes=['xxh64', 'sha256'], compression='zstd') as writer:
        writer.write({'x': 1})
    index = tmp_path / 'index.json'
    good = index.read_text()
    shard = json.loads(good)['shards'][0]
    for file, name in (('zip_data', 'sha256'), ('zip_data', 'xxh64'), ('raw_data', 'sha256'), ('raw_data', 'xxh64')):
        digest = shard[file]['hashes'][name]
        index.write_text(good.replace(digest, digest[::-1]))
        assert name in verify_dataset(tmp_path).problems[0].message
        index.write_text(good.replace(f'"{name}": "{digest}"', f'"unheard": "{digest}"'))
        assert verify_dataset(tmp_path).is_good


def test_the_whole_is_looked_at_whatever_is_wrong(tmp_path: Path) -> None:
    with JSONWriter(out=tmp_path, columns={'x': 'int'}, size_limit=100) as writer:
        for x in range(100):
            writer.write({'x': x})
    for path in tmp_path.glob('*.json'):
        if path.name != 'index.json':
            path.unlink()
    found = verify_dataset(tmp_path, workers=3)
    assert len(found.problems) == found.shards == found.objects / 2
    assert [problem.url for problem in found.problems] == sorted(problem.url for problem in found.problems)


def test_a_store_that_will_not_say(serve: Callable[[Store], str]) -> None:
    inner = LocalStore(GOLDEN / 'mds')
    found = verify_dataset(serve(FaultyStore(inner, Fault('read_into', r'shard\.00003\.mds', DeniedError, times=None))))
    assert [(problem.url.rpartition('/')[2], problem.kind) for problem in found.problems] == [('shard.00003.mds', 'unread')]
    with pytest.raises(CredentialsError):
        verify_dataset(serve(FaultyStore(inner, Fault('read_into', r'shard\.00003\.mds', CredentialsError, times=None))))


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify_dataset(tmp_path)
    with pytest.raises(ArgumentError, match='workers'):
        verify_dataset(GOLDEN / 'mds', workers=0)
