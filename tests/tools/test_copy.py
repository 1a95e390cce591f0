"""copy_dataset: the same objects elsewhere, or no dataset; taken up where it broke off."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming import LocalDataset, MDSWriter, merge_index
from streaming.errors import AlreadyExistsError, ArgumentError, CorruptError, DeniedError, NotFoundError, StreamingError
from streaming.store.local import LocalStore
from streaming.store.memory import MemoryStore
from streaming.store.protocol import Store
from streaming.testing.wrappers import Fault, FaultyStore
from streaming.tools import copy as module
from streaming.tools.copy import copy_dataset

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'
MARK = '.streaming-copy.json'

Serve = Callable[[Store], str]


def contents(store: Store) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list()}


@pytest.mark.parametrize('name', ['mds', 'mds-zstd', 'csv', 'json'])
def test_every_object_arrives_and_the_index_last(name: str, serve: Serve) -> None:
    target = FaultyStore(MemoryStore())
    read: list[int] = []
    begun: list[int] = []
    done = copy_dataset(GOLDEN / name, serve(target), on_begin=begun.append, on_bytes=read.append)
    assert contents(target.inner) == contents(LocalStore(GOLDEN / name))
    puts = [key for operation, key in target.calls if operation == 'put']
    assert (puts[0], puts[-1]) == (MARK, 'index.json')
    assert done.copied_objects == done.objects == len(puts) - 2
    assert sum(read) == begun[0] == done.bytes == done.copied_bytes


def test_a_merged_dataset_and_odd_paths(tmp_path: Path) -> None:
    for part in ('a b/ü', 'a b/x..'):
        with MDSWriter(out=tmp_path / part, columns={'x': 'int'}) as writer:
            writer.write({'x': len(part)})
    merge_index(tmp_path / 'a b')
    copy_dataset(tmp_path / 'a b', f'{tmp_path}/a b/../copied to/ß')
    assert len(LocalDataset(tmp_path / 'copied to' / 'ß')) == 2


def test_large_objects_go_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_MEMORY_BYTES', 5000)
    copy_dataset(GOLDEN / 'mds-zstd', tmp_path)
    assert contents(LocalStore(tmp_path)) == contents(LocalStore(GOLDEN / 'mds-zstd'))


@pytest.mark.parametrize('broken', range(8))
def test_a_copy_that_broke_off_is_taken_up(broken: int, serve: Serve) -> None:
    """Whichever put fails (mark, six shards, index), what had arrived is not put again."""
    target = FaultyStore(MemoryStore(), Fault('put', skip=broken, error=DeniedError))
    with pytest.raises(DeniedError):
        copy_dataset(GOLDEN / 'mds', serve(target), workers=1)
    assert 'index.json' not in contents(target.inner)
    there = sum(key.startswith('shard') for key in contents(target.inner))
    done = copy_dataset(GOLDEN / 'mds', serve(target))
    assert done.copied_objects == done.objects - there
    assert contents(target.inner) == contents(LocalStore(GOLDEN / 'mds'))
    assert copy_dataset(GOLDEN / 'mds', serve(target)).copied_objects == 0


def test_an_object_that_was_lost_or_cut_comes_back(tmp_path: Path) -> None:
    copy_dataset(GOLDEN / 'mds', tmp_path)
    (tmp_path / 'shard.00002.mds').unlink()
    (tmp_path / 'shard.00004.mds').write_bytes(b'cut')
    assert copy_dataset(GOLDEN / 'mds', tmp_path).copied_objects == 2
    assert contents(LocalStore(tmp_path)) == contents(LocalStore(GOLDEN / 'mds'))


@pytest.mark.parametrize('name', ['mds-zstd', 'mds'])
def test_nothing_bad_is_copied(name: str, serve: Serve) -> None:
    """A flipped bit is found where hashes are recorded, a wrong size everywhere."""
    inner = MemoryStore()
    for key, data in contents(LocalStore(GOLDEN / name)).items():
        inner.put(key, data[:-1] if name == 'mds' and '3.mds' in key else data)
    fault = Fault('read_into', r'shard\.00003\.mds.*', corrupt=name == 'mds-zstd', times=None if name == 'mds-zstd' else 0)
    target = MemoryStore()
    with pytest.raises(CorruptError, match=r'shard\.00003'):
        copy_dataset(serve(FaultyStore(inner, fault)), serve(target))
    found = contents(target)
    assert 'index.json' not in found and not any('3.mds' in key for key in found)


def test_whether_hashes_were_compared_is_said(tmp_path: Path) -> None:
    hashed, plain = (copy_dataset(GOLDEN / name, tmp_path / name) for name in ('mds-zstd', 'mds'))
    assert hashed.hashed_objects == hashed.copied_objects > 0
    assert plain.hashed_objects == 0 < plain.copied_objects


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    copy_dataset(GOLDEN / 'mds', tmp_path / 'a')
    with pytest.raises(AlreadyExistsError, match='another dataset'):
        copy_dataset(GOLDEN / 'mds-zstd', tmp_path / 'a')
    (tmp_path / 'a' / 'index.json').unlink()
    with pytest.raises(AlreadyExistsError, match=r'shard\.00000\.mds exists'):
        copy_dataset(GOLDEN / 'mds', tmp_path / 'a')
    LocalStore(tmp_path / 'b').put(MARK, b'{"index_sha256": "of another"}')
    with pytest.raises(AlreadyExistsError, match='another dataset was begun'):
        copy_dataset(GOLDEN / 'mds', tmp_path / 'b')
    with pytest.raises(ArgumentError, match='onto itself'):
        copy_dataset(GOLDEN / 'mds', GOLDEN / 'mds')
    with pytest.raises(NotFoundError):
        copy_dataset(tmp_path / 'nothing', tmp_path / 'c')
    assert not (tmp_path / 'c').exists()


def test_a_failure_ends_the_rest_at_once(serve: Serve) -> None:
    """The other threads wait for a gate that nobody opens; cancelling gets them out."""
    gate = threading.Event()

    class Waiting(FaultyStore):
        def read_into(self, key: str, *args: object, **keywords: object) -> None:  # type: ignore[override]
            if '00000' not in key:
                assert gate.wait(60)
            super().read_into(key, *args, **keywords)  # type: ignore[arg-type]

        def close(self) -> None:
            gate.set()

    source = Waiting(LocalStore(GOLDEN / 'mds'), Fault('read_into', r'shard\.00000\.mds', DeniedError))
    target = MemoryStore()
    with pytest.raises(StreamingError, match='on purpose'):
        copy_dataset(serve(source), serve(target))
    assert set(contents(target)) == {MARK}
