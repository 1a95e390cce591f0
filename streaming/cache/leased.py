"""Reading a shard that may be evicted between two reads: each read takes a lease, and sees whether its map is still good."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.cache.book import Book
from streaming.cache.ledger import Ledger, release
from streaming.cache.shards import ShardCache
from streaming.readers import Reader
from streaming.readers.gather import Mapped

__all__ = ['LeasedReader']


class LeasedReader:
    """A shard of a cache with a limit. Any thread may read.

    Between reads the map is kept, but not the file: who evicts it makes it empty before it is deleted, so that it takes no disk
    space. Whoever looked at such a map without a lease would be killed by the kernel, so the shard's own reader is only
    to be had by `borrowed`.

    Args:
        cache: Has the shard.
        shard: The shard, as the cache counts.
        samples: How many it has.
        open_shard: Opens it when it is here.
    """

    owned_bytes = 0

    def __init__(self, cache: ShardCache, shard: int, samples: int, open_shard: Callable[[], Reader]) -> None:
        self._cache = cache
        self._ledger: Ledger = cache.ledger
        self._shard = shard
        self._samples = samples
        self._open_shard = open_shard
        # The reader, and the book and the turn that its map is good for; replaced as one, for there may be several threads.
        self._opened: tuple[Reader, Book, int] | None = None

    def __len__(self) -> int:
        return self._samples

    @property
    def data(self) -> memoryview:
        """Not to be had: the file may be gone the next moment. See `borrowed`."""
        raise TypeError(f'shard {self._shard} of a cache with a limit has no bytes that stay')

    @property
    def read(self) -> Callable[[int], dict[str, Any]]:
        """Decodes a sample as brackets do, by a number that is known to be one of the shard's."""
        return self._read

    def _read(self, number: int) -> dict[str, Any]:
        reader, book = self._take()
        try:
            return reader.read(number)
        finally:
            release(book, self._shard, self._ledger.folder)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Decode sample ``number``, from 0, bringing the shard first if it is not here."""
        reader, book = self._take()
        try:
            return reader[number]
        finally:
            release(book, self._shard, self._ledger.folder)

    @contextmanager
    def borrowed(self) -> Iterator[Reader]:
        """The shard's own reader, within the block. What it gives out must be copies."""
        reader, book = self._take()
        try:
            yield reader
        finally:
            release(book, self._shard, self._ledger.folder)

    def read_each(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Decode some samples (N,) as `read` does, each when it is taken."""
        return map(self._read, numbers.tolist())

    def mapped(self, leases: ExitStack, numbers: NDArray[np.int64]) -> Mapped | None:
        """What whole columns of samples (N,) can be gathered from, until ``leases`` is closed; None if they must be read singly.

        Does not wait: whoever gathers from several shards and waited for one would hold the room of the others.
        """
        taken = self._try_take()
        if taken is None:
            return None
        reader, book = taken
        leases.callback(release, book, self._shard, self._ledger.folder)
        return reader.mapped(leases, numbers)

    def _try_take(self) -> tuple[Reader, Book] | None:
        """What `_take` gives, if that is to be had at once."""
        opened = self._opened
        if opened is not None:
            reader, book, turn = opened
            shard = self._shard
            if book is self._ledger.book and book.leases.try_share(shard):
                if book.turns[shard] == turn:
                    book.touch(shard)
                    return reader, book
                release(book, shard, self._ledger.folder)
        return None

    def _take(self) -> tuple[Reader, Book]:
        """The reader, and the book in which the caller now has a lease that he must give back."""
        taken = self._try_take()
        if taken is not None:
            return taken
        since = time.monotonic()
        lease = self._cache.hold(self._shard)
        waited_ms = round((time.monotonic() - since) * 1000)
        if waited_ms:
            self._ledger.add(waited_ms=waited_ms)
        try:
            reader, book = self._open_shard(), lease.taken_over()
        except BaseException:  # Ctrl-C too gives the lease back
            lease.release()
            raise
        book.touch(self._shard)
        self._opened = reader, book, lease.turn
        return reader, book
