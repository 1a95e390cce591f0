"""The shards of one dataset in a cache folder: brought once by whichever process of the node comes first."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from streaming.cache.fetch import FetchPolicy, ShardFetch
from streaming.cache.folder import CacheFolder
from streaming.cache.ledger import CacheCounters, Ledger
from streaming.cache.locks import FileLock, try_lock, wait_for_lock
from streaming.cache.ranged import ObjectRanges
from streaming.errors import CancelledError, StreamingError
from streaming.format.index import ShardInfo
from streaming.store.protocol import Store

__all__ = ['ShardCache']

logger = logging.getLogger(__name__)


class ShardCache:
    """Brings shards on demand. Any thread may call; processes find each other through the folder alone.

    Args:
        store: Where the shards are.
        folder: The cache folder. Its index has been synced.
        policy: How to fetch.
        timeout_s: Seconds without progress after which a wait for another process's fetch is an error.
    """

    def __init__(self, store: Store, folder: CacheFolder, policy: FetchPolicy, timeout_s: float) -> None:
        self._store = store
        self._folder = folder
        self._policy = policy
        self._timeout_s = timeout_s
        self._ledger = Ledger(folder.ledger_path)

    @property
    def path(self) -> Path:
        return self._folder.path

    @property
    def hidden(self) -> Path:
        """The folder's hidden part."""
        return self._folder.hidden

    def has(self, shard: ShardInfo) -> bool:
        """Whether every file of the shard is here. A file under its final name is good; its size is held against the index only
        to notice what other programs may have left."""
        return all(self._size(file.basename) == file.bytes for file in shard.raw_files)

    def ensure(self, shard: ShardInfo, check_cancelled: Callable[[], None] = lambda: None) -> None:
        """Return once the shard is here, fetching it or waiting for whoever does.

        Args:
            shard: The shard.
            check_cancelled: Called while bytes arrive; whatever it raises ends the fetch.

        Raises:
            CorruptError: what the store has is not what the index says.
            DeadlineError: another process is fetching the shard and makes no progress.
            StoreError: the store failed.
        """
        if self.has(shard):
            return
        name = shard.raw_data.basename
        what = f'{self._store.url_of(name)} to be fetched'
        with wait_for_lock(self._folder.lock_path(name), self._timeout_s, what) as lock:
            self._fetch(shard, lock, check_cancelled)

    def try_fetch(self, shard: ShardInfo, check_cancelled: Callable[[], None] = lambda: None) -> bool:
        """Fetch the shard unless it is here or somebody else is fetching it; whether it is here now."""
        if self.has(shard):
            return True
        lock = try_lock(self._folder.lock_path(shard.raw_data.basename))
        if lock is None:
            return False
        with lock:
            self._fetch(shard, lock, check_cancelled)
        return True

    def ranges_of(self, shard: ShardInfo, check_cancelled: Callable[[], None]) -> ObjectRanges | None:
        """A shard's data file in the store, to be read in parts that do not stay.

        None where `validate_hash` was asked for: a part cannot be held against a hash.
        """
        if self._policy.validate_hash is not None:
            return None

        def on_bytes(count: int) -> None:
            check_cancelled()
            self._ledger.add(ranged_bytes=count)

        return ObjectRanges(self._store, shard.stored[0], on_bytes)

    def counters(self) -> CacheCounters:
        """What all processes have fetched into the folder."""
        return self._ledger.counters()

    def close(self) -> None:
        """Give back the ledger's descriptor. The store is its owner's to close."""
        self._ledger.close()

    def _fetch(self, shard: ShardInfo, lock: FileLock, check_cancelled: Callable[[], None]) -> None:
        if self.has(shard):  # by whoever had the lock before us
            return
        received = 0
        guard = threading.Lock()

        def on_bytes(count: int) -> None:
            nonlocal received
            check_cancelled()
            with guard:
                received += count
            lock.beat()

        name = shard.raw_data.basename
        fetch = ShardFetch(self._store, shard, self._folder.path, self._folder.scratch_path(name), self._policy, on_bytes)
        try:
            fetch.run()
        except StreamingError as error:
            self._ledger.add(fetched_bytes=received, failed_fetches=int(not isinstance(error, CancelledError)))
            raise
        self._ledger.add(fetched_bytes=received, fetched_shards=1)
        logger.debug('fetched %s: %d bytes', self._store.url_of(name), received)

    def _size(self, basename: str) -> int | None:
        try:
            return (self._folder.path / basename).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
