"""The mapped state file of a cache folder: what each shard takes on disk, when it was used, who follows which plan, and sums.

    header      8-byte words: magic, the index's hash, number of shards, clock of uses, waiters, sums
    followers   iterators that go through a plan, and where they are in it
    held        bytes that each shard's files take on disk, or may grow to while they are fetched
    used        when each shard was last used, by the clock in the header
    turns       how often each shard was evicted: who mapped it before, has a map of nothing
    marks       what is known of each shard's files

Beyond its end, bytes stand for things to be locked: shards, followers, the folder's users. Nothing here touches a shard's file.
"""

import fcntl
import mmap
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.cache.leases import Leases

__all__ = ['FETCHED', 'FOREIGN', 'FOUND', 'Book', 'CacheCounters', 'Int64Array']

Int64Array = NDArray[np.int64]

# What is known of a shard's files. Those that were there when the book was begun may be mapped by who has an older book.
FETCHED, FOUND, FOREIGN = 0, 1, 2

_MAGIC = b'streaming ledger 4\n'.ljust(32, b'\0')
_HEADER_BYTES = 1024
_SHARDS, _CLOCK, _WAITING, _SUMS = 8, 9, 10, 16  # words; 4 of magic and 4 of hash come first
_FOLLOWERS = 256
_FOLLOWER = np.dtype([('is_used', 'i8'), ('position', 'i8'), ('length', 'i8'), ('plan', 'S16'), ('next_plan', 'S16')])

# Where the locked bytes lie. No file system lets a file grow this long.
_USERS_AT, _FOLLOWERS_AT, _SHARDS_AT = 1 << 60, (1 << 60) + (1 << 20), 1 << 61


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """What has been done with a cache folder since its state file was begun, by all processes that used it.

    Args:
        fetched_bytes: Bytes that came over the network, those of broken attempts too.
        fetched_shards: Shards that were brought and found good.
        failed_fetches: Shards that could not be brought.
        ranged_bytes: Bytes of single samples, read by range before their shard was here.
        evicted_bytes: Bytes on disk that were freed to stay within a limit.
        evicted_shards: Shards that were deleted for it.
        refused_fetches: Shards that were not fetched ahead, because everything here is needed sooner.
        room_waits: How often a reader waited until others were done with what takes up the cache.
        replaced_samples: Samples for which others stood in, because their shards are bad.
        requests: Requests for parts of objects, further tries included.
        retries: Those that were further tries.
        waited_ms: Milliseconds that readers waited for shards, summed over all processes.
    """

    fetched_bytes: int = 0
    fetched_shards: int = 0
    failed_fetches: int = 0
    ranged_bytes: int = 0
    evicted_bytes: int = 0
    evicted_shards: int = 0
    refused_fetches: int = 0
    room_waits: int = 0
    replaced_samples: int = 0
    requests: int = 0
    retries: int = 0
    waited_ms: int = 0


_left: list['Book'] = []

_COUNTERS = {field.name: _SUMS + number for number, field in enumerate(fields(CacheCounters))}


class Book:
    """One state file, mapped. A process has at most one of a file.

    Args:
        descriptor: The open file, which the book then owns.
        key: Its device and inode.
        shards: Shards of the dataset.
    """

    def __init__(self, descriptor: int, key: tuple[int, int], shards: int) -> None:
        self.descriptor = descriptor
        self.key = key
        self.is_closed = False
        self.users = 0  # ledgers of this process
        self._map = mmap.mmap(descriptor, self.size_for(shards))
        self._words = memoryview(self._map)[:_HEADER_BYTES].cast('q')
        at = _HEADER_BYTES
        self._followers: NDArray[Any] = np.frombuffer(self._map, _FOLLOWER, _FOLLOWERS, at)
        at += _FOLLOWERS * _FOLLOWER.itemsize
        self.held: Int64Array = np.frombuffer(self._map, np.int64, shards, at)
        self.used: Int64Array = np.frombuffer(self._map, np.int64, shards, at + 8 * shards)
        # Plain Python ints come out of a cast memoryview much faster than out of an array, and these are asked for each sample.
        self.turns = memoryview(self._map)[at + 16 * shards : at + 24 * shards].cast('q')
        self._used = memoryview(self._map)[at + 8 * shards : at + 16 * shards].cast('q')
        self.marks: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8, shards, at + 24 * shards)
        self.leases = Leases(descriptor, _SHARDS_AT)
        self._followed = Leases(descriptor, _FOLLOWERS_AT)
        self._folder_users = Leases(descriptor, _USERS_AT)
        self._folder_users.try_share(0)

    # ---- the file ----------------------------------------------------------------------------------------------------------

    @staticmethod
    def size_for(shards: int) -> int:
        """Bytes of the file."""
        return _HEADER_BYTES + _FOLLOWERS * _FOLLOWER.itemsize + 25 * shards

    @staticmethod
    def head_for(shards: int, index_hash: str) -> bytes:
        """The bytes that a book of this dataset begins with."""
        return _MAGIC + bytes.fromhex(index_hash) + shards.to_bytes(8, 'little')

    @classmethod
    def is_whole(cls, descriptor: int, shards: int, index_hash: str) -> bool:
        """Whether the open file is a book of this dataset."""
        head = cls.head_for(shards, index_hash)
        return os.fstat(descriptor).st_size == cls.size_for(shards) and os.pread(descriptor, len(head), 0) == head

    @staticmethod
    def is_in_use(descriptor: int) -> bool:
        """Whether another process uses the folder by the open file."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _USERS_AT)
        except (BlockingIOError, PermissionError):
            return True
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, _USERS_AT)
        return False

    @classmethod
    def create(cls, path: Path, shards: int, index_hash: str, held: Int64Array, marks: NDArray[np.uint8]) -> None:
        """Put a new book in place of whatever is there. Who has the old one mapped keeps that."""
        temporary = path.with_suffix('.new')
        with temporary.open('wb') as file:
            file.write(cls.head_for(shards, index_hash))
            file.truncate(_HEADER_BYTES + _FOLLOWERS * _FOLLOWER.itemsize)
            file.seek(0, os.SEEK_END)
            file.write(held.tobytes() + bytes(16 * shards) + marks.tobytes())
        temporary.chmod(0o600)
        temporary.replace(path)

    def close(self) -> None:
        """Unmap the file and drop every lock of this process on it."""
        self.is_closed = True
        for name in ('_words', '_followers', 'held', 'used', '_used', 'turns', 'marks'):
            delattr(self, name)
        try:
            self._map.close()
        except BufferError:
            # A thread that a fork has left behind still looks at it. The map has a descriptor of its own, and when that is closed
            # the process loses its locks on the file, so it stays open.
            _left.append(self)
            return
        os.close(self.descriptor)

    # ---- sums, clock and waiters -------------------------------------------------------------------------------------------

    def add(self, **counts: int) -> None:
        """Add to the sums. The caller holds the folder."""
        for name, count in counts.items():
            self._words[_COUNTERS[name]] += count

    def counters(self) -> CacheCounters:
        """The sums."""
        return CacheCounters(**{name: self._words[at] for name, at in _COUNTERS.items()})

    def touch(self, shard: int) -> None:
        """Note that the shard is used now. Racing processes may note the same moment."""
        self._words[_CLOCK] = now = self._words[_CLOCK] + 1
        self._used[shard] = now

    @property
    def waiting(self) -> int:
        """How many threads, of all processes, wait for room. One that was killed counts until somebody notices."""
        return self._words[_WAITING]

    @waiting.setter
    def waiting(self, count: int) -> None:
        self._words[_WAITING] = max(0, count)

    # ---- followers of plans ------------------------------------------------------------------------------------------------

    def add_follower(self, plan: str, next_plan: str, length: int) -> int | None:
        """Let an iterator follow a plan from its first batch; its number, or None if there are too many. The caller holds the
        folder."""
        for number in range(_FOLLOWERS):
            if not self._followers['is_used'][number] and self._followed.try_claim(number):
                self._followers[number] = (1, 0, length, plan.encode(), next_plan.encode())
                return number
        return None

    def advance(self, follower: int, position: int) -> None:
        """Say that the iterator has come to batch ``position``."""
        self._followers['position'][follower] = position

    def set_next_plan(self, follower: int, next_plan: str) -> None:
        """Say which plan the iterator will follow after its own. The caller holds the folder."""
        self._followers['next_plan'][follower] = next_plan.encode()

    def remove_follower(self, follower: int) -> None:
        """Let the iterator follow no more. The caller holds the folder."""
        self._followers['is_used'][follower] = 0
        self._followed.unclaim(follower)

    def followers(self) -> list[tuple[str, str, int, int]]:
        """Plan, next plan, batches of the plan and position of each living follower. The caller holds the folder."""
        found = []
        for number in np.flatnonzero(self._followers['is_used']).tolist():
            if self._followed.try_claim(number):  # its process is gone
                self._followers['is_used'][number] = 0
                self._followed.unclaim(number)
                continue
            _, position, length, plan, next_plan = self._followers[number].tolist()
            found.append((plan.decode(), next_plan.decode(), length, position))
        return found
