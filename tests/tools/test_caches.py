"""find_caches and clear_cache: all that was fetched goes, nothing else does, and nothing that is in use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streaming import MDSWriter, Stream, StreamingDataset
from streaming.cache.arrays import SharedArrays
from streaming.cache.folder import cache_home, default_cache_path
from streaming.errors import ArgumentError
from streaming.tools.caches import clear_cache, find_caches

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))


def fetch(folder: Path, name: str = 'mds-zstd', **options: bool) -> None:
    opened = Stream(remote=str(GOLDEN / name), local=str(folder), **options).open()  # type: ignore[arg-type]
    assert opened.cache is not None
    for shard in range(4):
        opened.cache.ensure(shard)
    opened.cache.close()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_listing(tmp_path: Path) -> None:
    assert find_caches() == []
    fetch(default_cache_path('s3://bucket/some set?secret=1', None))
    fetch(tmp_path / 'given' / 'train')
    fetch(tmp_path / 'given' / 'deep' / 'val', keep_zip=True)
    (tmp_path / 'given' / 'other').mkdir()
    (own,) = find_caches()
    assert own.remote == str(GOLDEN / 'mds-zstd') and (own.shards_here, own.shards, own.in_use) == (4, 6, False)
    assert Path(own.path).parent == cache_home() and own.bytes > 4 * 14_000
    assert [Path(found.path).name for found in find_caches([tmp_path / 'given'])] == ['val', 'train']


@pytest.mark.parametrize('keep_zip', [False, True])
def test_all_that_was_fetched_goes(tmp_path: Path, keep_zip: bool) -> None:
    fetch(tmp_path / 'cache', keep_zip=keep_zip)
    before = files(tmp_path / 'cache')
    planned = clear_cache(tmp_path / 'cache', dry_run=True)
    assert files(tmp_path / 'cache') == before
    done = clear_cache(tmp_path / 'cache')
    assert done == planned and done.kept == () and done.files == len(before)
    assert not (tmp_path / 'cache').exists()


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    cache = tmp_path / 'cache'
    cache.mkdir()
    mine = cache / 'shard.00005.mds'
    mine.write_bytes((GOLDEN / 'mds' / mine.name).read_bytes())
    fetch(cache, 'mds')
    (cache / 'notes.txt').write_text('mine')
    (cache / 'sub').mkdir()
    (cache / 'sub' / 'shard.00000.mds').write_text('of another')
    done = clear_cache(cache)
    # With a shard that was not fetched, the index is of use.
    assert files(cache) == {'notes.txt', 'sub/shard.00000.mds', mine.name, 'index.json'}
    assert {str(cache / name) for name in files(cache)} == {*done.kept}


def test_a_dataset_is_no_cache(tmp_path: Path) -> None:
    with MDSWriter(out=tmp_path / 'set', columns={'x': 'int'}) as writer:
        writer.write({'x': 1})
    os.chmod(tmp_path / 'set' / 'shard.00000.mds', 0o444)
    for path in (tmp_path / 'set', tmp_path, tmp_path / 'nothing'):
        with pytest.raises(ArgumentError, match='not a cache folder'):
            clear_cache(path)
    # Somebody has put another index in place of the one that was fetched.
    fetch(tmp_path / 'cache', 'mds')
    index = tmp_path / 'cache' / 'index.json'
    index.write_bytes((tmp_path / 'set' / 'index.json').read_bytes())
    assert len(clear_cache(tmp_path / 'cache').kept) == 5
    assert index.exists() and (tmp_path / 'cache' / 'shard.00000.mds').exists()


def test_what_is_in_use_is_left(tmp_path: Path) -> None:
    code = f"""
import sys
from streaming import Stream
opened = Stream(remote={str(GOLDEN / 'mds')!r}, local={str(tmp_path / 'cache')!r}).open()
opened.cache.ensure(0)
print('ready', flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b'ready\n'
        assert find_caches([tmp_path])[0].in_use
        before = files(tmp_path / 'cache')
        with pytest.raises(ArgumentError, match='in use'):
            clear_cache(tmp_path / 'cache')
        assert files(tmp_path / 'cache') == before
        process.kill()
    clear_cache(tmp_path / 'cache')
    assert not (tmp_path / 'cache').exists()


def test_in_use_by_this_process(tmp_path: Path) -> None:
    dataset = StreamingDataset(remote=str(GOLDEN / 'mds'), local=str(tmp_path / 'cache'), batch_size=1)
    assert dataset[0]
    with pytest.raises(ArgumentError, match='in use'):
        clear_cache(tmp_path / 'cache')
    assert dataset[20]


def test_orders_of_epochs(tmp_path: Path) -> None:
    import numpy as np

    folder = default_cache_path('/some/set', 'hash')
    SharedArrays(folder / 'arrays')('name', lambda: np.arange(10))
    (folder / 'arrays' / 'mine.txt').write_text('mine')
    (found,) = find_caches()
    assert found.remote is None and not found.in_use
    assert clear_cache(folder).kept == (str(folder / 'arrays' / 'mine.txt'),)
    assert files(folder) == {'arrays/mine.txt'}
