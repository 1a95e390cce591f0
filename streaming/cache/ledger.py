"""The one state file of a cache folder: found, checked, begun anew where it is lost, and changed by one thread at a time.

Every change is made under `Ledger.locked`, which holds a lock of the kernel on the hidden folder itself. A state file that is
missing, torn or of another dataset is begun anew from a listing of the folder.
"""

import fcntl
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streaming.cache.book import Book, CacheCounters, Int64Array
from streaming.cache.locks import lock_within
from streaming.errors import DeadlineError, StaleCacheError

__all__ = ['CacheCounters', 'Lease', 'Ledger', 'Listing', 'release']

# Lists the folder: bytes of each shard's files, int64 (shards,), and a mark for each, uint8 (shards,).
Listing = Callable[[], tuple[Int64Array, NDArray[np.uint8]]]

# The folder is held for microseconds, and for as long as its listing takes where the state file is lost.
_PATIENCE_S = 60.0

# Keeps the threads of this process out; locks of the kernel keep out other processes. One for all folders, so that several can be
# held at once in any process without a deadlock among its threads.
_threads = threading.RLock()

# How often the thread that has it has it.
_depth = 0

# What is to be closed by whoever has no more use for `_threads`.
_ended: 'deque[_Open]' = deque()

# The books that this process has open, by device and inode: two descriptors of one file would drop each other's leases.
_books: dict[tuple[int, int], Book] = {}


class Lease:
    """A shard that is here, and is not evicted until the lease is released or its process ends. As a context manager: for the
    block.

    Attributes:
        book: The state file that knows of the lease.
        shard: The shard.
        turn: What `Book.turns` says of the shard as long as it is not evicted.
    """

    __slots__ = ('_folder', 'book', 'shard', 'turn')

    def __init__(self, book: Book, shard: int, folder: Path) -> None:
        self.book: Book | None = book
        self.shard = shard
        self.turn = book.turns[shard]
        self._folder = folder

    def release(self) -> None:
        """Give it back; once more does nothing."""
        book, self.book = self.book, None
        if book is not None:
            release(book, self.shard, self._folder)

    def taken_over(self) -> Book:
        """Leave it to the caller to give the lease back, by `release`."""
        book, self.book = self.book, None
        if book is None:
            raise RuntimeError(f'the lease on shard {self.shard} was given back already')
        return book

    def __enter__(self) -> 'Lease':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def release(book: Book, shard: int, folder: Path) -> None:
    """Give back a lease on a shard of the book in the hidden ``folder``, and wake who waits for room."""
    if book.is_closed:  # a fork ago
        return
    book.leases.release(shard)
    try:
        is_waited_for = book.waiting > 0
    except AttributeError:  # closed meanwhile, by the garbage collector or in another thread
        return
    if is_waited_for:
        wake(book, folder)


def wake(book: Book, folder: Path) -> None:
    """Wake who waits for room; see `streaming.cache.room`."""
    try:
        descriptor = os.open(folder / 'room', os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # nobody reads it: whoever waited is gone
        book.waiting = 0
        return
    try:
        # As many wake-ups as a pipe holds are on their way; or whoever waited went a moment ago.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, b'.' * min(book.waiting, 64))
    finally:
        os.close(descriptor)


class _Open:
    """What a ledger has open: the hidden folder, which is what it locks, and the book."""

    def __init__(self) -> None:
        self.gate = -1
        self.book: Book | None = None

    def end(self) -> None:
        """Close it, without waiting: at once, or when no thread of this process has a folder any more.

        The garbage collector may call it anywhere: in a thread that the holder of a folder waits for, or in the holder itself.
        """
        _ended.append(self)
        _close_ended()

    def close(self) -> None:
        """For who has `_threads`."""
        self.drop_book()
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1

    def drop_book(self) -> None:
        book, self.book = self.book, None
        if book is not None:
            book.users -= 1
            if not book.users:
                del _books[book.key]
                book.close()


_all_open: 'weakref.WeakSet[_Open]' = weakref.WeakSet()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep other threads out for the block."""
    global _depth
    try:
        with _threads:
            _depth += 1
            try:
                yield
            finally:
                _depth -= 1
    finally:
        _close_ended()


def _close_ended() -> None:
    """Close what has ended, unless a thread is in the middle of something: it does so when it is done."""
    global _depth
    while _ended and _threads.acquire(blocking=False):
        try:
            if _depth:
                return
            _depth += 1
            try:
                while _ended:
                    _ended.popleft().close()
            finally:
                _depth -= 1
        finally:
            _threads.release()


def _forget_inherited() -> None:
    """In a forked process: locks of the parent are not ours, and ours must not be the parent's."""
    global _threads, _depth
    _threads, _depth = threading.RLock(), 0
    _ended.clear()
    for opened in list(_all_open):
        opened.close()


os.register_at_fork(after_in_child=_forget_inherited)


class Ledger:
    """The state file of one folder. Threads may share it; a forked process opens its own.

    Args:
        folder: The hidden folder that it lies in.
        shards: Shards of the dataset.
        index_hash: SHA-256 of its index, in hex.
        listing: Lists what is in the cache folder, where the file has to be begun anew.

    Raises:
        StaleCacheError: a living process uses the folder for another dataset, or another version of it.
    """

    def __init__(self, folder: Path, shards: int, index_hash: str, listing: Listing) -> None:
        self.folder = folder
        self._shards = shards
        self._index_hash = index_hash
        self._listing = listing
        self._open = _Open()
        _all_open.add(self._open)
        self.close = weakref.finalize(self, self._open.end)
        with self.locked():
            pass

    @property
    def path(self) -> Path:
        """The state file."""
        return self.folder / 'ledger'

    @property
    def book(self) -> Book | None:
        """The state file as it was when the folder was last held; None in a process that was forked and has not held it yet."""
        return self._open.book

    @contextmanager
    def locked(self) -> Iterator[Book]:
        """The state file as it is now, for this thread alone among all of the node. Must not be nested.

        Raises:
            DeadlineError: another process holds the folder and does not get on.
        """
        with _one_thread():
            gate = self._lock_folder()
            try:
                yield self._current_book()
            finally:
                # Unlocking, and not only closing: a process that was forked meanwhile may have the folder open.
                fcntl.flock(gate, fcntl.LOCK_UN)

    def lease(self, shard: int) -> Lease:
        """A lease on a shard, be it here or not."""
        with self.locked() as book:
            return self.lease_of(book, shard)

    def lease_of(self, book: Book, shard: int) -> Lease:
        """The same, for who holds the folder."""
        if not book.leases.try_share(shard):
            raise RuntimeError(f'shard {shard} is claimed by who does not hold {self.folder}')
        return Lease(book, shard, self.folder)

    def add(self, **counts: int) -> None:
        """Add to the sums, by the names of `CacheCounters`."""
        with self.locked() as book:
            book.add(**counts)

    def counters(self) -> CacheCounters:
        """The sums as they are now."""
        with self.locked() as book:
            return book.counters()

    def _lock_folder(self) -> int:
        opened = self._open
        while True:
            if opened.gate < 0:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                opened.gate = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if not lock_within(opened.gate, _PATIENCE_S):
                os.close(opened.gate)
                opened.gate = -1
                raise DeadlineError(
                    f'waited {_PATIENCE_S:g} s for the lock on {self.folder}, which is held for moments: the process that has it '
                    'has stopped; see which with "fuser" or "lsof", and end it or let it go on'
                )
            if _is_named(self.folder, opened.gate):
                return opened.gate
            # Removed, and perhaps made again, since we opened it.
            os.close(opened.gate)
            opened.gate = -1

    def _current_book(self) -> Book:
        opened = self._open
        if opened.book is None or not _is_named(self.path, opened.book.descriptor):
            opened.drop_book()
            opened.book = self._open_book()
            opened.book.users += 1
        return opened.book

    def _open_book(self) -> Book:
        while True:
            try:
                status = self.path.stat()
            except FileNotFoundError:
                Book.create(self.path, self._shards, self._index_hash, *self._listing())
                continue
            key = status.st_dev, status.st_ino
            known = _books.get(key)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC) if known is None else known.descriptor
            if Book.is_whole(descriptor, self._shards, self._index_hash):
                if known is None:
                    known = _books[key] = Book(descriptor, key, self._shards)
                return known
            if known is not None or Book.is_in_use(descriptor):
                raise StaleCacheError(
                    f'{self.path} belongs to another version of the dataset, which a running job still reads; '
                    'let it end, or use another local folder'
                )
            os.close(descriptor)
            Book.create(self.path, self._shards, self._index_hash, *self._listing())


def _is_named(path: Path, descriptor: int) -> bool:
    try:
        named = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(named, os.fstat(descriptor))


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether no process, this one included, uses the cache of a hidden folder. If so, nobody begins to within the block."""
    with _one_thread():
        gate = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = not _is_used(folder / 'ledger')
        except BlockingIOError:
            is_free = False
        try:
            yield is_free
        finally:
            os.close(gate)


def _is_used(path: Path) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if (status.st_dev, status.st_ino) in _books:  # and closing another descriptor of it would drop the leases of this process
        return True
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return Book.is_in_use(descriptor)
    finally:
        os.close(descriptor)
