"""What the processes of a node say of the plans they follow: a file of uses a plan, and a place in the state file an iterator.

A plan's file holds when each shard of the folder is used. It is named for all that this depends on, so it is written once and
never stale. An iterator says which plan it follows, which comes next, and where it is; that vanishes with its process.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from streaming.cache.book import Book, Int64Array
from streaming.cache.eviction import next_uses, one_after_the_other, soonest
from streaming.cache.ledger import Ledger
from streaming.cache.locks import try_lock
from streaming.files import new_file

__all__ = ['Follower', 'Plans']

# Files of plans that are kept though nobody says that he follows them: he may be about to.
_KEPT = 3


# A plan, the one that follows it, and the batches of the first.
_Course = tuple[str, str, int]


class Plans:
    """The plans that are followed in one cache folder.

    Args:
        ledger: The folder's.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._folder = ledger.folder / 'plans'
        self._courses: dict[_Course, Int64Array] = {}

    def publish(self, name: str, compute: Callable[[], Int64Array]) -> None:
        """Write a plan's uses, unless they are there or another process is at it.

        Args:
            name: 16 hexadecimal digits that no other plan has.
            compute: Gives shard, first and last batch of each use, sorted by first batch, (3, uses).
        """
        path = self._path(name)
        if path.exists():
            return
        lock = try_lock(path.with_suffix('.lock'))
        if lock is None:
            return
        with lock:
            if path.exists():
                return
            with new_file(path) as file:
                np.save(file, np.ascontiguousarray(compute(), np.int32))
            self._forget_old()

    @staticmethod
    def most_bytes(shards: int) -> int:
        """Bytes that the plans' files take, if each uses a shard in one stretch or two."""
        return 2 * _KEPT * (128 + 24 * shards)

    def follow(self, name: str, length: int) -> 'Follower':
        """Let an iterator follow a plan of ``length`` batches from its first one on."""
        return Follower(self._ledger, name, length)

    def distances(self, book: Book, shards: int, ahead: int = 0) -> Int64Array:
        """Batches to the next use of each shard, int64 (shards,), over all who follow a plan. The caller holds the folder.

        Args:
            book: The state file.
            shards: How many shards there are.
            ahead: As it will be when everybody is so many batches further. Default: 0, as it is.
        """
        positions: dict[_Course, list[int]] = {}
        for plan, next_plan, length, position in book.followers():
            positions.setdefault((plan, next_plan, length), []).append(position + ahead)
        self._courses = {course: uses for course, uses in self._courses.items() if course in positions}
        found = []
        for course, places in positions.items():
            uses = self._uses_of(course, shards)
            if uses is not None:
                found.append(next_uses(uses, np.sort(np.array(places)), shards))
        return soonest(found, shards)

    def _uses_of(self, course: _Course, shards: int) -> Int64Array | None:
        found = self._courses.get(course)
        if found is None:
            plan, next_plan, length = course
            uses, later = self._load(plan, shards), self._load(next_plan, shards)
            if uses is None:
                return None
            found = one_after_the_other(uses, length, later)
            if later is not None:
                self._courses[course] = found
        return found

    def _load(self, name: str, shards: int) -> Int64Array | None:
        try:
            uses: Int64Array = np.load(self._path(name))
        except (FileNotFoundError, ValueError):  # not written yet
            return None
        is_sane = uses.shape[:1] == (3,) and (not uses.size or 0 <= uses[0].min() <= uses[0].max() < shards)
        return uses if is_sane else None

    def _path(self, name: str) -> Path:
        return self._folder / f'{name}.npy'

    def _forget_old(self) -> None:
        """Remove plans that nobody follows, and what killed processes left."""
        with self._ledger.locked() as book:
            followed = {name for plan, next_plan, *_ in book.followers() for name in (plan, next_plan)}
        with suppress(FileNotFoundError):
            files = [path for path in self._folder.iterdir() if path.stem not in followed and path.suffix != '.lock']
            for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[:-_KEPT]:
                path.unlink()


class Follower:
    """An iterator's place in its plan, for all of the node to see.

    Args:
        ledger: The folder's.
        name: Its plan.
        length: Batches of the plan.
    """

    def __init__(self, ledger: Ledger, name: str, length: int) -> None:
        self._ledger = ledger
        self._plan = name, '', length
        self._book: Book | None = None
        self._number: int | None = None
        self._join()

    def _join(self) -> None:
        with self._ledger.locked() as book:
            self._book, self._number = book, book.add_follower(*self._plan)

    def advance(self, position: int) -> None:
        """Say which batch is read next."""
        if self._ledger.book is not self._book:  # lost and begun anew
            self._join()
        if self._book is not None and self._number is not None:
            self._book.advance(self._number, position)

    def follow_up(self, next_name: str) -> None:
        """Say which plan comes next."""
        name, _, length = self._plan
        self._plan = name, next_name, length
        with self._ledger.locked() as book:
            if book is self._book and self._number is not None:
                book.set_next_plan(self._number, next_name)

    def close(self) -> None:
        """Follow no more."""
        with self._ledger.locked() as book:
            if book is self._book and self._number is not None:
                book.remove_follower(self._number)
            self._book = self._number = None
