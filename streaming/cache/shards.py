"""The shards of one dataset in a cache folder: brought by whichever process of the node comes first, kept while in use."""

import enum
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streaming.cache.book import FETCHED, FOREIGN, FOUND, CacheCounters, Int64Array
from streaming.cache.counted import CountedStore
from streaming.cache.fetch import FetchPolicy, ShardFetch, zip_scratch
from streaming.cache.folder import CacheFolder
from streaming.cache.ledger import Lease, Ledger
from streaming.cache.locks import FileLock, try_lock, wait_for_lock
from streaming.cache.plans import Plans
from streaming.cache.ranged import ObjectRanges
from streaming.cache.room import Room
from streaming.errors import (
    CacheError,
    CancelledError,
    CorruptError,
    NotFoundError,
    StreamingError,
    ThrottledError,
    UnavailableError,
)
from streaming.format.index import ShardInfo, ShardTable
from streaming.store.protocol import Store

__all__ = ['ShardCache', 'Tried']

logger = logging.getLogger(__name__)


# Entries of shards that stay parsed.
_INFOS = 1024


class Tried(enum.Enum):
    """What became of an attempt to fetch a shard ahead."""

    HERE = 'it is here'
    ELSEWHERE = 'somebody else fetches it'
    NO_ROOM = 'all that is here is needed sooner'


# What went wrong for all who want the shard. Credentials, say, may be one job's only.
_SHARED = (CorruptError, NotFoundError, ThrottledError, UnavailableError)


class ShardCache:
    """Brings shards on demand. Any thread may call; processes find each other through the folder alone.

    Args:
        store: Where the shards are.
        folder: The cache folder. Its index has been synced.
        table: Its shards.
        index_hash: SHA-256 of the index, in hex.
        policy: How to fetch.
        timeout_s: Seconds without progress after which a wait for another process is an error.
    """

    def __init__(
        self, store: Store, folder: CacheFolder, table: ShardTable, index_hash: str, policy: FetchPolicy, timeout_s: float
    ) -> None:
        self._store = CountedStore(store)
        self._folder = folder
        self._table = table
        self._policy = policy
        self._timeout_s = timeout_s
        # Parsing an entry takes longer than all else that a look at a shard that is here does.
        self._info = lru_cache(_INFOS)(table.__getitem__)
        self.ledger = Ledger(folder.hidden, len(table), index_hash, self._list)
        self.plans = Plans(self.ledger)
        self.room = Room([self], None, timeout_s)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def hidden(self) -> Path:
        """The folder's hidden part."""
        return self._folder.hidden

    # ---- bringing shards ---------------------------------------------------------------------------------------------------

    def has(self, shard: int) -> bool:
        """Whether every file of the shard is here. A file under its final name is good; its size is held against the index only
        to notice what other programs may have left."""
        return all(self._size(file.basename) == file.bytes for file in self._info(shard).raw_files)

    def hold(self, shard: int, check_cancelled: Callable[[], None] = lambda: None) -> Lease:
        """Bring the shard, or wait for whoever does, and keep it here until the lease is released.

        Args:
            shard: The shard.
            check_cancelled: Called while bytes arrive; whatever it raises ends the fetch.

        Raises:
            CorruptError: what the store has is not what the index says.
            DeadlineError: another process is fetching the shard and makes no progress, or there is no room for it.
            StoreError: the store failed.
        """
        lease = self._hold_if_here(shard)
        if lease is not None:
            return lease
        what = f'{self.describe(shard)} to be fetched'
        with wait_for_lock(self._lock_path(shard), self._timeout_s, what) as lock:
            lease = self._bring(shard, lock, check_cancelled, patient=True)
            assert lease is not None
            return lease

    def ensure(self, shard: int, check_cancelled: Callable[[], None] = lambda: None) -> None:
        """Return once the shard is here; see `hold`. With a limit, it may be gone the next moment."""
        if not self.has(shard):
            self.hold(shard, check_cancelled).release()

    def try_fetch(self, shard: int, check_cancelled: Callable[[], None] = lambda: None) -> Tried:
        """Fetch the shard unless it is here, somebody else is fetching it, or all that is here is needed sooner."""
        if self.has(shard):
            return Tried.HERE
        lock = try_lock(self._lock_path(shard))
        if lock is None:
            return Tried.ELSEWHERE
        with lock:
            lease = self._bring(shard, lock, check_cancelled, patient=False)
        if lease is None:
            return Tried.NO_ROOM
        lease.release()
        return Tried.HERE

    def ranges_of(self, info: ShardInfo, check_cancelled: Callable[[], None]) -> ObjectRanges | None:
        """A shard's data file in the store, to be read in parts that do not stay.

        None where `validate_hash` was asked for: a part cannot be held against a hash.
        """
        if self._policy.validate_hash is not None:
            return None

        def on_bytes(count: int) -> None:
            check_cancelled()
            self.ledger.add(ranged_bytes=count, **self._store.take())

        return ObjectRanges(self._store, info.stored[0], on_bytes)

    def describe(self, shard: int) -> str:
        """Where the shard comes from, for messages."""
        return self._store.url_of(self._info(shard).raw_data.basename)

    def counters(self) -> CacheCounters:
        """What all processes have done with the folder."""
        return self.ledger.counters()

    def break_off(self) -> None:
        """Break off what threads of this process read from the store, also where no byte comes."""
        self._store.close()

    def close(self) -> None:
        """Give back the ledger's descriptors. The store is its owner's to close."""
        self.ledger.close()

    def _hold_if_here(self, shard: int) -> Lease | None:
        lease = self.ledger.lease(shard)
        if self.has(shard):
            return lease
        lease.release()
        return None

    def _bring(self, shard: int, lock: FileLock, check_cancelled: Callable[[], None], *, patient: bool) -> Lease | None:
        """Fetch the shard unless it is here by now. The caller has its lock."""

        def on_wait() -> None:
            check_cancelled()
            lock.beat()

        info = self._info(shard)
        lease = self._hold_if_here(shard)
        if lease is not None:
            return lease
        lease = self.room.reserve(self, shard, self.footprint(info), patient=patient, on_wait=on_wait)
        if lease is not None:
            try:
                self._fetch(shard, info, lock, check_cancelled)
            except BaseException:  # whatever it was, the room is given back
                with self.ledger.locked() as book:
                    book.held[shard] = self._bytes_on_disk(info)
                lease.release()
                raise
        return lease

    def _fetch(self, shard: int, info: ShardInfo, lock: FileLock, check_cancelled: Callable[[], None]) -> None:
        received = 0
        guard = threading.Lock()

        def on_bytes(count: int) -> None:
            nonlocal received
            check_cancelled()
            with guard:
                received += count
            lock.beat()

        fetch = ShardFetch(self._store, info, self.path, self._scratch_path(info), self._policy, on_bytes)
        try:
            fetch.run()
        except StreamingError as error:
            if isinstance(error, _SHARED):
                lock.fail(error)
            failed = int(not isinstance(error, CancelledError))
            self.ledger.add(fetched_bytes=received, failed_fetches=failed, **self._store.take())
            raise
        except OSError as error:  # of the local disk: a store's are all StoreError
            self.ledger.add(fetched_bytes=received, failed_fetches=1, **self._store.take())
            raise CacheError(
                f'{self.path}: {error.strerror or error}: no place for {self.describe(shard)} ({self.footprint(info)} bytes on '
                'disk); free space, bound the cache by cache_limit=, or choose another folder by local='
            ) from error
        self.ledger.add(fetched_bytes=received, fetched_shards=1, **self._store.take())
        logger.debug('fetched %s: %d bytes', self.describe(shard), received)

    def _lock_path(self, shard: int) -> Path:
        return self._folder.lock_path(self._info(shard).raw_data.basename)

    def _scratch_path(self, info: ShardInfo) -> Path:
        return self._folder.scratch_path(info.raw_data.basename)

    # ---- what lies in the folder -------------------------------------------------------------------------------------------

    def footprint(self, info: ShardInfo) -> int:
        """Bytes on disk of the shard, fetched: its raw files, and the compressed ones that are kept."""
        packed = info.stored if info.compression is not None else ()
        kept = sum(file.bytes if self._policy.keep_zip else self._size(file.basename) or 0 for file in packed)
        return sum(file.bytes for file in info.raw_files) + kept

    def largest_footprint(self) -> int:
        """The most bytes that one shard can take."""
        return int(self._footprints().max(initial=0))

    def all_footprints(self) -> int:
        """Bytes that all shards take together."""
        return int(self._footprints().sum())

    def _footprints(self) -> Int64Array:
        raw, stored = self._table.raw_bytes, self._table.stored_bytes
        # Whether a shard is compressed says its entry alone; the few that pack into as many bytes count less than they take.
        return raw + np.where(stored != raw, stored, 0) if self._policy.keep_zip else raw

    def overhead_bytes(self) -> int:
        """Bytes of the index and of the hidden folder, without what is being fetched, but with the plans that may come."""
        fixed = (self._size('index.json') or 0) + _bytes_in(self.hidden) + _bytes_in(self.hidden / 'arrays')
        return fixed + max(_bytes_in(self.hidden / 'plans'), self.plans.most_bytes(len(self._table)))

    def delete(self, shard: int, mark: int) -> int:
        """Delete those of the shard's files that were fetched; bytes of those that are left.

        The caller holds the folder and has claimed the shard.
        """
        info = self._info(shard)
        left, scratch = 0, self._scratch_path(info)
        for path in self._paths(info):
            with suppress(FileNotFoundError, NotADirectoryError):
                status = path.stat()
                if status.st_mode & 0o222:
                    left += status.st_size
                    continue
                # Under its other name first, so that whatever a kill leaves of it is of no account.
                _move(path, scratch)
                if mark == FETCHED:
                    # A process may have it mapped for a later use. It would take up the disk until then.
                    scratch.chmod(0o600)
                    os.truncate(scratch, 0)
                scratch.unlink()
        for leftover in (scratch, zip_scratch(scratch)):
            leftover.unlink(missing_ok=True)
        return left

    def _list(self) -> tuple[Int64Array, NDArray[np.uint8]]:
        """What is in the folder, for a ledger that is begun anew."""
        held, marks = np.zeros(len(self._table), np.int64), np.full(len(self._table), FETCHED, np.uint8)
        if self._holds_nothing():
            return held, marks
        for shard, info in enumerate(self._table):
            held[shard] = self._bytes_on_disk(info)
            if held[shard]:
                marks[shard] = FOREIGN if any(map(_is_foreign, self._paths(info))) else FOUND
        return held, marks

    def _holds_nothing(self) -> bool:
        with os.scandir(self.path) as entries:
            empty = all(entry.name in ('index.json', self.hidden.name) for entry in entries)
        fetching = self.hidden / 'fetching'
        return empty and not (fetching.is_dir() and any(fetching.iterdir()))

    def _bytes_on_disk(self, info: ShardInfo) -> int:
        scratch = self._scratch_path(info)
        return sum(_size_at(path) or 0 for path in (*self._paths(info), scratch, zip_scratch(scratch)))

    def _paths(self, info: ShardInfo) -> list[Path]:
        """The shard's files, compressed and not, be they here or not."""
        return [self.path / name for name in dict.fromkeys(file.basename for file in (*info.raw_files, *info.stored))]

    def _size(self, basename: str) -> int | None:
        return _size_at(self.path / basename)


def _move(path: Path, scratch: Path) -> None:
    try:
        path.replace(scratch)
    except FileNotFoundError:
        scratch.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.replace(scratch)


def _is_foreign(path: Path) -> bool:
    """Whether it is here, but somebody else put it here: what is fetched is made read-only."""
    try:
        return bool(path.stat().st_mode & 0o222)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _bytes_in(folder: Path) -> int:
    """Bytes of the files in a folder, not of those in folders within."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total += entry.stat().st_size if entry.is_file() else 0
    return total


def _size_at(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
