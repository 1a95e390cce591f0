"""Bringing finished shards to their store: packed, hashed, compressed and put by a bounded pool, the index last."""

import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from streaming.errors import AlreadyExistsError, ArgumentError, NotFoundError, StoreError
from streaming.format.compression import get_codec
from streaming.format.hashing import hash_bytes
from streaming.format.index import FileInfo, ShardInfo, dump_index
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store

__all__ = ['Destination', 'Publisher', 'pack_file']

_INDEX = 'index.json'
_SHARD = re.compile(r'shard\.\d{5,}\.[a-z]+(\.[a-z0-9.]+)?')

# A shard on its way: gives the entry for the index and the files to put.
Packer = Callable[[], tuple[ShardInfo, list[tuple[str, bytes]]]]


def pack_file(
    name: str, data: bytes, compression: str | None, hashes: Sequence[str]
) -> tuple[FileInfo, FileInfo | None, str, bytes]:
    """Hash a file and compress it.

    Returns:
        What the index says of the raw file and of the compressed one, then the name and the bytes that are to be stored.
    """
    raw = FileInfo(name, len(data), {algo: hash_bytes(algo, data) for algo in hashes})
    if compression is None:
        return raw, None, name, data
    codec = get_codec(compression)
    packed = codec.compress(data)
    zip_name = f'{name}.{codec.extension}'
    return raw, FileInfo(zip_name, len(packed), {algo: hash_bytes(algo, packed) for algo in hashes}), zip_name, packed


class Destination:
    """Where a dataset is written: one store, or a remote one and a local copy.

    Args:
        out: A path, a URL, or ``(local, remote)``.
        keep_local: Whether to keep the local copy, where ``out`` has both. Default: False.
        retry: How often a failed upload is tried again at the least. Default: 2.

    Raises:
        ArgumentError: values that cannot work.
    """

    def __init__(self, out: str | Path | tuple[str, str], keep_local: bool, retry: int) -> None:
        if isinstance(out, (str, Path)):
            local, remote = (None, str(out))
        elif isinstance(out, (tuple, list)) and len(out) == 2 and all(isinstance(part, (str, Path)) for part in out):
            local, remote = str(out[0]), str(out[1])
        else:
            raise ArgumentError(f'out must be a path, a URL or (local, remote), got {out!r}')
        if retry < 0:
            raise ArgumentError(f'retry must not be negative, got {retry}')
        self.local, self.remote = local, remote
        policy = RetryPolicy(tries=max(RetryPolicy().tries, retry + 1))
        # Without keep_local nothing is put in the local folder at all: shards go to the remote from memory.
        places = [remote, *([local] if local is not None and keep_local else [])]
        self.stores: list[Store] = [open_store(place, retry=policy) for place in places]

    def prepare(self, exist_ok: bool) -> None:
        """See that nothing is overwritten by accident.

        Args:
            exist_ok: Remove what is left of another dataset, its index first, so that nobody reads a mixture.

        Raises:
            AlreadyExistsError: there is a dataset, or a part of one, and ``exist_ok`` is False.
        """
        for store in self.stores:
            leftovers = [info.key for info in store.list('shard.') if _SHARD.fullmatch(info.key)]
            has_index = self._has_index(store)
            if not exist_ok and (leftovers or has_index):
                found = _INDEX if has_index else f'{leftovers[0]} (of a writer that did not finish)'
                raise AlreadyExistsError(f'{store.url} holds a dataset already: {found}; pass exist_ok=True to overwrite it')
            if has_index:
                store.delete(_INDEX)
            for key in leftovers:
                store.delete(key)

    @staticmethod
    def _has_index(store: Store) -> bool:
        try:
            store.head(_INDEX)
        except NotFoundError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        """Put a file in every store, and see that all of it arrived."""
        for store in self.stores:
            info = store.put(key, data)
            if info.size != len(data):
                raise StoreError(f'{store.url_of(key)}: {len(data)} bytes were put, the store has {info.size}')

    def close(self) -> None:
        """Give back connections."""
        for store in self.stores:
            store.close()


class Publisher:
    """Publishes shards in the background, as many at a time as there are workers.

    Args:
        destination: Where to.
        max_workers: Threads. Default: None, the number of CPUs, at most 8.
        on_published: Called in the writer's thread for each shard that was stored.
    """

    def __init__(self, destination: Destination, max_workers: int | None, on_published: Callable[[ShardInfo], None]) -> None:
        if max_workers is not None and max_workers < 1:
            raise ArgumentError(f'max_workers must be at least 1, got {max_workers}')
        self._destination = destination
        self._workers = max_workers or min(8, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix='streaming-publish')
        self._on_published = on_published
        self._pending: deque[Future[ShardInfo]] = deque()
        self._done: list[ShardInfo] = []

    def submit(self, pack: Packer) -> None:
        """Publish a shard after those before it. Waits while as many shards are on their way as there are workers, and one.

        Raises:
            StreamingError: an earlier shard could not be published.
        """
        self.raise_failures()
        self._pending.append(self._pool.submit(self._publish, pack))
        while len(self._pending) > self._workers:
            self._take(self._pending.popleft())

    def raise_failures(self) -> None:
        """Raise what an earlier shard failed with; take in those that are stored."""
        for future in self._pending:
            if future.done() and future.exception() is not None:
                future.result()
        while self._pending and self._pending[0].done():
            self._take(self._pending.popleft())

    def commit(self) -> list[ShardInfo]:
        """Wait for all shards, then put the index.

        Raises:
            StreamingError: a shard could not be published; then there is no index.
        """
        wait(self._pending, return_when=FIRST_EXCEPTION)
        self.raise_failures()
        self._pool.shutdown()
        self._destination.put(_INDEX, dump_index(self._done))
        self._destination.close()
        return self._done

    def abort(self) -> None:
        """Give up what has not begun and wait for the rest. There will be no index."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._destination.close()
        self._pool.shutdown()

    def _publish(self, pack: Packer) -> ShardInfo:
        shard, files = pack()
        for name, data in files:
            self._destination.put(name, data)
        return shard

    def _take(self, future: Future[ShardInfo]) -> None:
        shard = future.result()
        self._done.append(shard)
        self._on_published(shard)
