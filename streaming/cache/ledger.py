"""What the processes of a node have done with a cache folder, in one small mapped file.

It holds only sums, so losing it loses no data: a file that is missing, torn or of another layout starts again from zero.
"""

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

__all__ = ['CacheCounters', 'Ledger']

_MAGIC = b'streaming ledger 2\n'.ljust(32, b'\0')


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """What has been fetched into a cache folder since it was made, by all processes that ever used it.

    Args:
        fetched_bytes: Bytes that came over the network, those of broken attempts too.
        fetched_shards: Shards that were brought and found good.
        failed_fetches: Shards that could not be brought.
        ranged_bytes: Bytes of single samples, read by range before their shard was here.
    """

    fetched_bytes: int = 0
    fetched_shards: int = 0
    failed_fetches: int = 0
    ranged_bytes: int = 0


_COUNTS = struct.Struct(f'<{len(fields(CacheCounters))}q')
_SIZE = len(_MAGIC) + _COUNTS.size

# Record locks are a process's: they keep other processes out, and this keeps out its own threads. One for all ledgers, because
# closing any descriptor of a file drops all of the process's record locks on it.
_threads = threading.Lock()


def _renew_lock() -> None:
    global _threads
    _threads = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Ledger:
    """The mapped file. Any process or thread may add; an addition is whole or not at all."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with self._locked():
                if os.fstat(self._descriptor).st_size != _SIZE or os.pread(self._descriptor, len(_MAGIC), 0) != _MAGIC:
                    os.ftruncate(self._descriptor, 0)
                    os.pwrite(self._descriptor, _MAGIC.ljust(_SIZE, b'\0'), 0)
            self._map = mmap.mmap(self._descriptor, _SIZE)
        except BaseException:
            os.close(self._descriptor)
            raise

    def add(self, **counts: int) -> None:
        """Add to the sums, by the names of `CacheCounters`."""
        added = astuple(CacheCounters(**counts))
        with self._locked():
            before = _COUNTS.unpack_from(self._map, len(_MAGIC))
            _COUNTS.pack_into(self._map, len(_MAGIC), *(a + b for a, b in zip(before, added, strict=True)))

    def counters(self) -> CacheCounters:
        """The sums as they are now."""
        with self._locked():
            return CacheCounters(*_COUNTS.unpack_from(self._map, len(_MAGIC)))

    def close(self) -> None:
        """Unmap and close."""
        with _threads:
            self._map.close()
            os.close(self._descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _threads:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
