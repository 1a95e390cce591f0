"""The shards that a process has open: as many as pay, the first opened let go first."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from streaming.readers import Reader

__all__ = ['ReaderPool']

# Readers that had to decompress their shard hold disk space; together at most this, or one.
_OWNED_LIMIT_BYTES = 1 << 30


class ReaderPool:
    """Open shards by number. Any thread may ask.

    Args:
        open_shard: Opens a shard.
        limit: How many stay open.
    """

    def __init__(self, open_shard: Callable[[int], Reader], limit: int) -> None:
        self._open_shard = open_shard
        self._limit = limit
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, Reader] = OrderedDict()
        self._owned_bytes = 0

    def get(self, shard: int) -> Reader:
        """The open shard. It stays usable for who has it, also when the pool lets it go."""
        # Without the lock: a hit is one dictionary look-up. So a reader that is in use all the time may be the oldest and
        # be let go; it is then opened again, which costs little.
        reader = self._readers.get(shard)
        if reader is not None:
            return reader
        opened = self._open_shard(shard)
        with self._lock:
            reader = self._readers.setdefault(shard, opened)
            if reader is opened:
                self._owned_bytes += reader.owned_bytes
            while len(self._readers) > self._limit or (self._owned_bytes > _OWNED_LIMIT_BYTES and len(self._readers) > 1):
                _, oldest = self._readers.popitem(last=False)
                self._owned_bytes -= oldest.owned_bytes
        return reader

    def put(self, shard: int, reader: Reader) -> None:
        """Have the shard read by a reader that was opened elsewhere, until it is dropped. It must own no disk space."""
        with self._lock:
            self._readers.setdefault(shard, reader)

    def drop(self, shard: int, reader: Reader) -> None:
        """Let the shard's reader go, if it is still this one."""
        with self._lock:
            if self._readers.get(shard) is reader:
                del self._readers[shard]

    def close(self) -> None:
        """Let all go."""
        with self._lock:
            self._readers.clear()
            self._owned_bytes = 0

    def renew(self) -> None:
        """Let all go, in a process that was just forked: a thread that is not there any more may have been at it."""
        self._lock = threading.Lock()
        self._readers = OrderedDict()
        self._owned_bytes = 0
