"""Keeping what lies in cache folders within a limit: room is set aside before a fetch begins, by evicting what is needed last.

A limit holds over all folders of a dataset, and for all that lies in them: shards, the compressed copies that are kept, files
that are still growing, the index and the hidden folder. Whoever needs room and finds everything in use waits, and is woken by
who gives back a lease: through a pipe in the hidden folder, which holds nothing and may be removed at any time.
"""

import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from streaming.cache.book import FETCHED, FOREIGN, Book
from streaming.cache.eviction import NEVER, victims, victims_ahead
from streaming.cache.ledger import Lease, Ledger
from streaming.cache.plans import Plans
from streaming.errors import ArgumentError, DeadlineError
from streaming.units import human_bytes

__all__ = ['Member', 'Room']


class Member(Protocol):
    """A cache folder, as far as room is concerned."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def plans(self) -> Plans: ...

    @property
    def path(self) -> Path: ...

    def describe(self, shard: int) -> str:
        """The shard's name, for messages."""
        ...

    def overhead_bytes(self) -> int:
        """Bytes of all that lies in the folder beside its shards."""
        ...

    def largest_footprint(self) -> int:
        """The most bytes that one shard can take."""
        ...

    def all_footprints(self) -> int:
        """Bytes that all shards take together."""
        ...

    def delete(self, shard: int, mark: int) -> int:
        """Delete those of the shard's files that were fetched; bytes of those that are left."""
        ...


class Room:
    """The room for shards in some folders.

    Args:
        members: The folders.
        limit_bytes: The most that may lie in all of them together. None: no limit; then the room only keeps the books.
        timeout_s: Seconds without any change after which a wait for room is an error.
    """

    def __init__(self, members: Sequence[Member], limit_bytes: int | None, timeout_s: float) -> None:
        # By path: the same folder counts once, and everybody holds folders in the same order.
        self._members = [member for _, member in sorted({str(member.path): member for member in members}.items())]
        self.limit_bytes = limit_bytes
        self._timeout_s = timeout_s

    @property
    def least_bytes(self) -> int:
        """The least limit with which every shard can be read, one after the other."""
        largest = max((folder.largest_footprint() for folder in self._members), default=0)
        return largest + sum(folder.overhead_bytes() for folder in self._members)

    @cached_property
    def is_tight(self) -> bool:
        """Whether anything may have to be evicted; found out once, with something to spare for plans and epochs' arrays."""
        if self.limit_bytes is None:
            return False
        shards = sum(folder.all_footprints() for folder in self._members)
        return self.limit_bytes < 1.1 * shards + sum(folder.overhead_bytes() for folder in self._members)

    def check(self) -> None:
        """Refuse a limit within which not even one shard can be read.

        Raises:
            ArgumentError: the message says the least limit that works.
        """
        if self.limit_bytes is not None and self._members and self.limit_bytes < self.least_bytes:
            largest = max(folder.largest_footprint() for folder in self._members)
            raise ArgumentError(
                f'cache_limit is {self.limit_bytes} bytes, but it takes at least {self.least_bytes} '
                f'({human_bytes(self.least_bytes)}) to read this dataset: the largest shard takes {largest}, the index and '
                f'the state files {self.least_bytes - largest}. Raise cache_limit, or write smaller shards (size_limit)'
            )

    def reserve(self, member: Member, shard: int, size: int, *, patient: bool, on_wait: Callable[[], None]) -> Lease | None:
        """Set aside room for a shard's files.

        Args:
            member: Its folder.
            shard: The shard.
            size: Bytes that its files take on disk, those that are there already too.
            patient: Whether it is needed now: then anything may be evicted for it, and if all is in use, we wait. Otherwise only
                what is needed later than it.
            on_wait: Called now and then while waiting; may raise to give up.

        Returns:
            A lease on the shard, which keeps the room until the shard is here; None if there is none for who is not patient.

        Raises:
            DeadlineError: all is in use, and nothing of it was given back for ``timeout_s``.
        """
        lease = self._try_reserve(member, shard, size, patient)
        if lease is not None or not patient:
            return lease
        with self._woken() as wait:
            seen, since = self._moves(), time.monotonic()
            while True:
                lease = self._try_reserve(member, shard, size, patient)
                if lease is not None:
                    return lease
                now = self._moves()
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self._timeout_s:
                    raise DeadlineError(self._say_what_is_in_use(member, shard, size))
                on_wait()
                wait(self._timeout_s / 4)

    def trim(self, size: int = 0) -> None:
        """Evict what is over the limit, which an earlier run without one, or with a higher one, may have left.

        Args:
            size: Bytes that are about to be written beside the shards. Default: 0.
        """
        if self.limit_bytes is not None:
            with self._held() as books:
                self._evict(books, self._queue(books, None), self._taken(books) + size - self.limit_bytes)

    def _try_reserve(self, member: Member, shard: int, size: int, patient: bool) -> Lease | None:
        with self._held() as books:
            book = books[str(member.path)]
            size = max(size, int(book.held[shard]))
            if self.limit_bytes is not None:
                missing = self._taken(books) + size - int(book.held[shard]) - self.limit_bytes
                if missing > 0 and not self._make_room(books, member, shard, missing, patient):
                    book.add(**{'room_waits' if patient else 'refused_fetches': 1})
                    return None
            book.held[shard] = size
            book.marks[shard] = FETCHED
            return member.ledger.lease_of(book, shard)

    def _make_room(self, books: dict[str, Book], member: Member, shard: int, missing: int, patient: bool) -> bool:
        """Free so many bytes; whether they are free. Who is not patient evicts nothing unless it is enough."""
        if patient:
            return self._evict(books, self._queue(books, (member, shard)), missing)
        book = books[str(member.path)]
        lead = int(member.plans.distances(book, len(book.held))[shard])
        if lead == NEVER:  # no plan is known yet
            return False
        queue = self._queue(books, (member, shard), lead)
        enough = sum(int(books[str(folder.path)].held[victim]) for folder, victim in queue) >= missing
        return enough and self._evict(books, queue, missing)

    def _evict(self, books: dict[str, Book], queue: Sequence[tuple[Member, int]], missing: int) -> bool:
        """Evict shards until ``missing`` bytes are free; whether they are."""
        for folder, shard in queue:
            if missing <= 0:
                break
            missing -= _evict_one(folder, books[str(folder.path)], shard)
        return missing <= 0

    def _queue(
        self, books: dict[str, Book], spare: tuple[Member, int] | None, lead: int | None = None
    ) -> list[tuple[Member, int]]:
        """Shards that may go, of all folders, the first to go first.

        Args:
            books: The folders' books.
            spare: The shard that needs the room.
            lead: In how many batches it is needed. Default: None, at once.
        """
        homes, shards, distances, then, used = [], [], [], [], []
        for number, folder in enumerate(self._members):
            book = books[str(folder.path)]
            here = np.flatnonzero((book.held > 0) & (book.marks != FOREIGN))
            if spare is not None and spare[0].path == folder.path:
                here = here[here != spare[1]]
            homes.append(np.full(len(here), number))
            shards.append(here)
            distances.append(folder.plans.distances(book, len(book.held))[here])
            if lead is not None:
                then.append(folder.plans.distances(book, len(book.held), lead)[here])
            used.append(book.used[here])
        home, shard, distance, last_used = map(np.concatenate, (homes, shards, distances, used))
        if lead is None:
            order = victims(distance, last_used, np.arange(len(shard)))
        else:
            order = victims_ahead(distance, np.concatenate(then), last_used, np.arange(len(shard)), lead)
        return [(self._members[home[at]], int(shard[at])) for at in order.tolist()]

    def _taken(self, books: dict[str, Book]) -> int:
        return sum(int(books[str(folder.path)].held.sum()) + folder.overhead_bytes() for folder in self._members)

    @contextmanager
    def _held(self) -> Iterator[dict[str, Book]]:
        with ExitStack() as stack:
            yield {str(folder.path): stack.enter_context(folder.ledger.locked()) for folder in self._members}

    def _moves(self) -> list[tuple[int, int, int]]:
        """What changes when anybody gets on."""
        found = [folder.ledger.counters() for folder in self._members]
        return [(sums.fetched_shards, sums.failed_fetches, sums.evicted_shards) for sums in found]

    @contextmanager
    def _woken(self) -> Iterator[Callable[[float], None]]:
        """Within the block, a function that waits until somebody gives something back, or for so many seconds."""
        poll = select.poll()
        descriptors = [_open_pipe(folder.ledger.folder / 'room') for folder in self._members]
        try:
            for descriptor in descriptors:
                poll.register(descriptor, select.POLLIN)
            self._count_waiters(1)

            def wait(timeout_s: float) -> None:
                for descriptor, _ in poll.poll(timeout_s * 1000):
                    with suppress(BlockingIOError):  # another one took it
                        os.read(descriptor, 1)

            try:
                yield wait
            finally:
                self._count_waiters(-1)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _count_waiters(self, change: int) -> None:
        with self._held() as books:
            for book in books.values():
                book.waiting += change

    def _say_what_is_in_use(self, member: Member, shard: int, size: int) -> str:
        with self._held() as books:
            taken = self._taken(books)
        return (
            f'waited {self._timeout_s:g} s for {size} bytes in {member.path} for {member.describe(shard)}: {taken} bytes of the '
            f'cache_limit of {human_bytes(self.limit_bytes or 0)} are taken, and all of it is being read or fetched by processes '
            'that do not get on, or by jobs without a cache_limit. Give every job on this folder the same limit, or raise it'
        )


def _evict_one(folder: Member, book: Book, shard: int) -> int:
    """Delete a shard's files unless somebody uses them; the bytes that are free now."""
    if not book.leases.try_claim(shard):
        return 0
    try:
        before = int(book.held[shard])
        # First: who has the shard mapped must know that the map is of nothing before it is.
        book.turns[shard] += 1
        left = folder.delete(shard, int(book.marks[shard]))
        book.held[shard] = left
        if left:
            book.marks[shard] = FOREIGN
        if left < before:
            book.add(evicted_shards=1, evicted_bytes=before - left)
        return before - left
    finally:
        book.leases.unclaim(shard)


def _open_pipe(path: Path) -> int:
    while True:
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # For writing too: a pipe whose writers have all gone would be readable without end.
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
