"""merge_index: every way to call it, and what it refuses."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streaming import CSVWriter, LocalDataset, MDSWriter, merge_index
from streaming.errors import ArgumentError, DeniedError, FormatError, NotFoundError, StreamingError
from streaming.format.index import ShardTable
from streaming.store import open_store
from streaming.store.local import LocalStore
from streaming.store.memory import MemoryStore
from streaming.store.protocol import Store
from streaming.testing.wrappers import Fault, FaultyStore

FOLDERS = ['0', '1', '10', '2', 'deep/er/0', 'deep/er/1', 'other']


def write_parts(root: Any, folders: list[str] = FOLDERS, **options: Any) -> None:
    for number, folder in enumerate(folders):
        with MDSWriter(out=f'{root}/{folder}', columns={'x': 'int'}, size_limit=400, **options) as writer:
            for x in range(100 * number, 100 * number + 40):
                writer.write({'x': x})


def wanted(folders: list[str] = FOLDERS) -> list[int]:
    return [x for number in range(len(folders)) for x in range(100 * number, 100 * number + 40)]


def upload(folder: Path, store: Store) -> None:
    for path in folder.rglob('*'):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path)


def values(folder: Path) -> list[int]:
    return [sample['x'] for sample in LocalDataset(folder)]


def test_below_a_folder(tmp_path: Path) -> None:
    write_parts(tmp_path, compression='zstd', hashes=['sha1'])
    (tmp_path / '.hidden').mkdir()
    shutil.copy(tmp_path / '0' / 'index.json', tmp_path / '.hidden')
    merge_index(str(tmp_path))
    assert values(tmp_path) == wanted()
    first = (tmp_path / 'index.json').read_bytes()
    # Again, also with a merged index among the parts; the order stays that of the paths.
    merge_index(str(tmp_path / 'deep'))
    merge_index(tmp_path)
    assert (tmp_path / 'index.json').read_bytes() == first
    assert values(tmp_path / 'deep') == [*range(400, 440), *range(500, 540)]


def test_a_list_in_its_order(tmp_path: Path) -> None:
    write_parts(tmp_path)
    order = ['2', 'deep/er/1', '0']
    merge_index([str(tmp_path / folder / 'index.json') for folder in [*order, '2']], str(tmp_path), keep_local=False)
    assert values(tmp_path) == [*range(300, 340), *range(500, 540), *range(40)]
    merge_index(index_file_urls=[f'file://{tmp_path}/1/index.json', str(tmp_path / 'other')], out=tmp_path)
    assert values(tmp_path) == [*range(100, 140), *range(600, 640)]


def test_all_formats_in_one(tmp_path: Path) -> None:
    write_parts(tmp_path, ['a'])
    with CSVWriter(out=tmp_path / 'b', columns={'x': 'int'}, compression='gz') as writer:
        writer.write({'x': 7})
    merge_index(str(tmp_path))
    assert values(tmp_path) == [*range(40), 7]


def test_remote(tmp_path: Path) -> None:
    url = f'mem://{tmp_path.name}'
    store = open_store(url)
    write_parts(tmp_path / 'remote')
    upload(tmp_path / 'remote', store)
    merge_index(str(tmp_path / 'remote'))
    index = (tmp_path / 'remote' / 'index.json').read_bytes()

    merge_index(url)
    assert store.get('index.json') == index
    store.delete('index.json')
    merge_index((str(tmp_path / 'local'), url), keep_local=False, download_timeout=5)
    assert store.get('index.json') == index
    assert not (tmp_path / 'local').exists()
    merge_index((str(tmp_path / 'local'), url))
    assert (tmp_path / 'local' / 'index.json').read_bytes() == index

    store.delete('index.json')
    pairs = [(str(tmp_path / 'remote' / folder / 'index.json'), f'{url}/{folder}/index.json') for folder in FOLDERS]
    (tmp_path / 'remote' / '10' / 'index.json').unlink()
    for out in (url, (str(tmp_path / 'copy'), url)):
        merge_index(pairs, out)
        assert store.get('index.json') == index
    assert (tmp_path / 'copy' / 'index.json').read_bytes() == index
    merge_index([pair[1] for pair in pairs], url)
    assert store.get('index.json') == index


def test_indices_that_lie_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parts(tmp_path / 'parts', ['a/0', 'b/1'])
    merge_index([str(tmp_path / 'parts/a/0'), str(tmp_path / 'parts/b/1')], str(tmp_path / 'merged'))
    assert 'have to be brought there' in caplog.text
    shutil.copytree(tmp_path / 'parts/a', tmp_path / 'merged', dirs_exist_ok=True)
    shutil.copytree(tmp_path / 'parts/b', tmp_path / 'merged', dirs_exist_ok=True)
    assert values(tmp_path / 'merged') == wanted(['0', '1'])
    write_parts(tmp_path / 'parts', ['c/0'])
    with pytest.raises(ArgumentError, match='same names: 0/shard'):
        merge_index([str(tmp_path / 'parts/a/0'), str(tmp_path / 'parts/c/0')], str(tmp_path / 'merged'))


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match='no indices to merge'):
        merge_index(str(tmp_path))
    with pytest.raises(NotFoundError, match='is empty'):
        merge_index([], str(tmp_path))
    with pytest.raises(ArgumentError, match='a path, a URL'):
        merge_index('')
    with pytest.raises(TypeError):
        merge_index([str(tmp_path)])  # type: ignore[call-overload]
    write_parts(tmp_path)
    with pytest.raises(NotFoundError, match=r'nowhere/index\.json'):
        merge_index([str(tmp_path / '0'), str(tmp_path / 'nowhere')], str(tmp_path))
    index = tmp_path / '1' / 'index.json'
    shards = json.loads(index.read_bytes())
    index.write_bytes(b'{"version": 2, "shards": [')
    with pytest.raises(FormatError, match=r'1/index\.json'):
        merge_index(str(tmp_path))
    shards['shards'][0]['raw_data']['basename'] = '../0/shard.00000.mds'
    index.write_text(json.dumps(shards))
    with pytest.raises(FormatError, match='not a file inside the dataset'):
        merge_index(str(tmp_path))
    assert not (tmp_path / 'index.json').exists()


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / 'parts')
    with MDSWriter(out=tmp_path / 'one', columns={'x': 'int'}) as writer:
        writer.write({'x': 1})
    index = (tmp_path / 'one' / 'index.json').read_bytes()
    for depth, is_refused in ((400, False), (600, True)):
        store.put('d/' * depth + 'index.json', index)
        if is_refused:
            with pytest.raises(FormatError, match=r'parts/index\.json, shard 0: .*not a file inside the dataset'):
                merge_index(store.url)
        else:
            merge_index(store.url)
    assert len(ShardTable.from_json(store.get('index.json'), 'index.json')) == 1


def test_a_dataset_of_its_own_is_not_lost(tmp_path: Path) -> None:
    write_parts(tmp_path, ['a'])
    with MDSWriter(out=tmp_path, columns={'x': 'int'}) as writer:
        writer.write({'x': 1})
    with pytest.raises(ArgumentError, match='shards of its own'):
        merge_index(str(tmp_path))
    assert values(tmp_path) == [1]


def test_merged_indices_that_are_out_of_date(tmp_path: Path) -> None:
    write_parts(tmp_path, ['a/0', 'a/1'])
    merge_index(str(tmp_path / 'a'))
    write_parts(tmp_path, ['a/0'], exist_ok=True, hashes=['sha1'])
    with pytest.raises(FormatError, match='out of date'):
        merge_index(str(tmp_path))


@pytest.mark.parametrize('fault', [Fault('get', r'1/index\.json', DeniedError), Fault('put', r'index\.json', DeniedError)])
def test_a_failing_store(tmp_path: Path, fault: Fault, serve: Callable[[Store], str]) -> None:
    inner = MemoryStore()
    write_parts(tmp_path)
    upload(tmp_path, inner)
    with pytest.raises(StreamingError, match='on purpose'):
        merge_index(serve(FaultyStore(inner, fault)))
    assert 'index.json' not in {info.key for info in inner.list()}


def test_thousands_of_parts(tmp_path: Path) -> None:
    write_parts(tmp_path, ['0'])
    index = (tmp_path / '0' / 'index.json').read_bytes()
    store = open_store(f'mem://{tmp_path.name}')
    for number in range(3000):
        store.put(f'{number // 100}/{number}/index.json', index)
    used = time.process_time()
    merge_index(f'mem://{tmp_path.name}')
    assert len(json.loads(store.get('index.json'))['shards']) == 3000 * len(json.loads(index)['shards'])
    assert time.process_time() - used < 20  # of the processor: each part once, not each with each
