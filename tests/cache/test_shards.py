"""Bringing shards into a cache folder: once, whole, verified, whoever asks and whatever breaks."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streaming import MDSWriter
from streaming.cache.fetch import FetchPolicy
from streaming.cache.folder import CacheFolder
from streaming.cache.shards import ShardCache, Tried
from streaming.errors import CancelledError, CorruptError, NotFoundError, StaleCacheError, UnavailableError
from streaming.format.index import ShardInfo, ShardTable
from streaming.store import RetryPolicy, RetryStore, open_store
from streaming.store.local import LocalStore
from streaming.store.protocol import ObjectInfo, Store
from streaming.store.wrapper import WrapperStore

SMALL = FetchPolicy(range_bytes=1000, parallel=3, refetches=2)


class CountingStore(WrapperStore):
    """Remembers what was asked for, and may change what is answered."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reads: list[tuple[str, int, int]] = []
        self.change: Callable[[str, int, memoryview], None] = lambda key, start, buffer: None

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        self.reads.append((key, start, len(buffer)))
        info = self.inner.read_into(key, start, buffer, if_match=if_match, on_bytes=on_bytes)
        self.change(key, start, buffer)
        return info


class World:
    """A remote dataset, a store in front of it and a cache."""

    def __init__(self, tmp_path: Path, compression: str | None) -> None:
        self.remote = tmp_path / 'remote'
        rng = np.random.default_rng(0)
        with MDSWriter(
            out=str(self.remote), columns={'data': 'bytes'}, compression=compression, hashes=['sha1', 'xxh64'], size_limit=20_000
        ) as writer:
            for _ in range(40):
                writer.write({'data': rng.integers(0, 50, 1500, np.uint8).tobytes()})
        self.store = CountingStore(open_store(str(self.remote)))
        index = (self.remote / 'index.json').read_bytes()
        self.index_hash = hashlib.sha256(index).hexdigest()
        self.table = ShardTable.from_json(index, 'index')
        self.folder = CacheFolder(tmp_path / 'cache')

    def cache(self, policy: FetchPolicy = SMALL) -> ShardCache:
        return self.cache_of(self.store, policy)

    def cache_of(self, store: Store, policy: FetchPolicy) -> ShardCache:
        return ShardCache(store, self.folder, self.table, self.index_hash, policy, timeout_s=10)

    def is_whole(self, shard: ShardInfo) -> bool:
        data = (self.folder.path / shard.raw_data.basename).read_bytes()
        return hashlib.sha1(data, usedforsecurity=False).hexdigest() == shard.raw_data.hashes['sha1']

    def litter(self) -> list[str]:
        return sorted(path.name for path in (self.folder.hidden / 'fetching').glob('*'))


@pytest.fixture(params=[None, 'zstd', 'gz'])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, request.param)


def test_a_shard_is_brought_in_ranges_once(world: World) -> None:
    cache, shard = world.cache(), world.table[0]
    cache.ensure(0)
    cache.ensure(0)
    assert world.is_whole(shard)
    assert world.litter() == []
    size = shard.stored[0].bytes
    assert sorted(world.store.reads) == [
        (shard.stored[0].basename, start, min(1000, size - start)) for start in range(0, size, 1000)
    ]
    assert cache.counters().fetched_bytes == size
    assert cache.counters().fetched_shards == 1
    cache.close()


def test_threads_and_caches_share_one_fetch(world: World) -> None:
    caches = [world.cache() for _ in range(4)]
    threads = [threading.Thread(target=cache.ensure, args=(shard,)) for cache in caches for shard in range(len(world.table))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(world.is_whole(shard) for shard in world.table)
    assert caches[0].counters().fetched_bytes == int(world.table.stored_bytes.sum())
    assert world.litter() == []
    for cache in caches:
        cache.close()


def test_wrong_bytes_are_fetched_again(world: World) -> None:
    shard = world.table[0]
    broken = [1, 2]

    def flip(key: str, start: int, buffer: memoryview) -> None:
        if start == 2000 and broken:
            broken.pop()
            buffer[7] ^= 1

    world.store.change = flip
    cache = world.cache()
    cache.ensure(0)
    assert broken == []
    assert world.is_whole(shard)
    cache.close()


def test_bytes_that_stay_wrong_are_an_error_and_leave_nothing(world: World) -> None:
    shard = world.table[0]

    def flip(key: str, start: int, buffer: memoryview) -> None:
        buffer[0] ^= 1

    world.store.change = flip
    cache = world.cache()
    for _ in range(2):
        with pytest.raises(CorruptError, match=r'shard\.00000\.mds'):
            cache.ensure(0)
    assert not cache.has(0)
    assert world.litter() == []
    assert list(world.folder.path.glob('*.mds')) == []
    world.store.change = lambda key, start, buffer: None
    cache.ensure(0)
    assert world.is_whole(shard)
    assert cache.counters().failed_fetches == 2
    cache.close()


def test_a_busy_shard_is_left_to_who_fetches_it(world: World) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(key: str, start: int, buffer: memoryview) -> None:
        inside.set()
        assert go_on.wait(60)

    world.store.change = wait
    first, second = world.cache(), world.cache()
    fetching = threading.Thread(target=first.ensure, args=(0,))
    fetching.start()
    assert inside.wait(60)
    assert second.try_fetch(0) is Tried.ELSEWHERE
    waiting = threading.Thread(target=second.ensure, args=(0,))
    waiting.start()
    go_on.set()
    for thread in (fetching, waiting):
        thread.join()
    assert second.try_fetch(0) is Tried.HERE
    assert second.counters().fetched_shards == 1
    for cache in (first, second):
        cache.close()


def test_an_object_that_is_overwritten_while_it_is_read_is_fetched_anew(world: World) -> None:
    shard = world.table[0]
    path = world.remote / shard.stored[0].basename
    once = [True]

    def overwrite(key: str, start: int, buffer: memoryview) -> None:
        if start == 0 and once:
            once.pop()
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)

    world.store.change = overwrite
    cache = world.cache(FetchPolicy(range_bytes=1000, parallel=1))
    cache.ensure(0)
    assert world.is_whole(shard)
    cache.close()


def test_an_object_of_another_size_is_refused(world: World) -> None:
    shard = world.table[0]
    path = world.remote / shard.stored[0].basename
    path.write_bytes(path.read_bytes() + b'x')
    cache = world.cache()
    with pytest.raises(CorruptError, match='the index says'):
        cache.ensure(0)
    cache.close()


def test_a_cancelled_fetch_leaves_nothing(world: World) -> None:
    def cancel() -> None:
        raise CancelledError('enough')

    cache = world.cache()
    with pytest.raises(CancelledError):
        cache.ensure(0, cancel)
    assert world.litter() == []
    assert cache.counters().failed_fetches == 0
    cache.ensure(0)
    cache.close()


def test_what_a_killed_fetch_left_is_written_over(world: World) -> None:
    shard = world.table[0]
    name = shard.raw_data.basename
    world.folder.scratch_path(name).parent.mkdir(parents=True)
    world.folder.scratch_path(name).write_bytes(b'x' * 1_000_000)
    world.folder.lock_path(name).touch()
    cache = world.cache()
    cache.ensure(0)
    assert world.is_whole(shard)
    assert world.litter() == []
    cache.close()


def test_a_file_of_another_size_is_not_taken_for_the_shard(world: World) -> None:
    shard = world.table[0]
    path = world.folder.path / shard.raw_data.basename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'something else')
    cache = world.cache()
    assert not cache.has(0)
    cache.ensure(0)
    assert world.is_whole(shard)
    cache.close()


def test_a_missing_object_is_named(world: World) -> None:
    shard = world.table[1]
    (world.remote / shard.stored[0].basename).unlink()
    cache = world.cache()
    with pytest.raises(NotFoundError, match=r'shard\.00001'):
        cache.ensure(1)
    cache.close()


def test_validate_hash_takes_the_named_one(world: World) -> None:
    shard = world.table[0]
    stored = shard.stored[0]
    wrong = {**stored.hashes, 'sha1': '0' * 40}
    stored.hashes.clear()  # type: ignore[attr-defined]
    stored.hashes.update(wrong)  # type: ignore[attr-defined]
    world.table = ShardTable([shard, *world.table[1:]])
    cache = world.cache(FetchPolicy(validate_hash='xxh64'))
    cache.ensure(0)
    (world.folder.path / shard.raw_data.basename).unlink()
    cache.close()
    cache = world.cache(FetchPolicy(validate_hash='sha1'))
    with pytest.raises(CorruptError, match='its sha1 is'):
        cache.ensure(0)
    cache.close()


def test_retries_go_on_where_a_read_was_cut(tmp_path: Path) -> None:
    world = World(tmp_path, 'zstd')
    shard = world.table[0]
    cut = [True]
    asked: list[tuple[int, int]] = []

    class Cutting(WrapperStore):
        def read_into(
            self,
            key: str,
            start: int,
            buffer: memoryview,
            *,
            if_match: str | None = None,
            on_bytes: Callable[[int], None] | None = None,
        ) -> ObjectInfo | None:
            asked.append((start, len(buffer)))
            if cut:
                cut.pop()
                self.inner.read_into(key, start, buffer[:300], on_bytes=on_bytes)
                raise UnavailableError('the line went dead')
            return self.inner.read_into(key, start, buffer, if_match=if_match, on_bytes=on_bytes)

    store = RetryStore(Cutting(LocalStore.open(str(world.remote), {})), RetryPolicy(first_wait_s=0.01))
    cache = world.cache_of(store, FetchPolicy())
    cache.ensure(0)
    size = shard.stored[0].bytes
    assert asked == [(0, size), (300, size - 300)]
    assert cache.counters().fetched_bytes == size
    cache.close()


def test_the_index_is_kept_and_an_overwritten_remote_noticed(world: World) -> None:
    data = world.folder.sync_index(world.store, 10)
    assert (world.folder.path / 'index.json').read_bytes() == data
    assert world.folder.sync_index(world.store, 10) == data
    (world.remote / 'index.json').write_bytes(data + b' ')
    with pytest.raises(StaleCacheError, match='older version'):
        world.folder.sync_index(world.store, 10)
