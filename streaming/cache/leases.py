"""Who is using which shard: shared locks of the kernel on one byte a shard, gone with their holder however it died.

A lease is a record lock (`lockf`): it belongs to the process, a forked child has none of it, and a syscall takes or drops it.
Record locks know nothing of threads, so a process counts its own; and closing any descriptor of the file would drop them all, so
a process has one descriptor of it and one `Leases`.
"""

import fcntl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ['Leases']


class Leases:
    """Numbered leases on one open file. Any thread may call.

    Args:
        descriptor: Of the file, open for reading and writing. Locked bytes need not exist.
        start: The byte of number 0.
    """

    def __init__(self, descriptor: int, start: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._guard = threading.Lock()
        self._counts: dict[int, int] = {}
        self._claimed: set[int] = set()
        # A lease may end with what the garbage collector finds, which comes in the middle of anything: here, too.
        self._given_back: deque[int] = deque()

    def try_share(self, number: int) -> bool:
        """Take a lease, beside whoever has one; False if somebody has claimed the number."""
        with self._alone():
            count = self._counts.get(number, 0)
            # Asking for a shared lock would turn a claim of this process into one.
            if not count and (number in self._claimed or not self._lock(number, fcntl.LOCK_SH)):
                return False
            self._counts[number] = count + 1
            return True

    def release(self, number: int) -> None:
        """Give one lease back. Never waits: if another thread, or this one, is in here, it does it on its way out."""
        self._given_back.append(number)
        self._take_back()

    def _take_back(self) -> None:
        while self._given_back and self._guard.acquire(blocking=False):
            try:
                self._take_back_all()
            finally:
                self._guard.release()

    def _take_back_all(self) -> None:
        while self._given_back:
            number = self._given_back.popleft()
            count = self._counts[number] - 1
            if count:
                self._counts[number] = count
            else:
                del self._counts[number]
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self._start + number)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._guard:
            self._take_back_all()
            yield
        self._take_back()

    def try_claim(self, number: int) -> bool:
        """Take the number alone; False if anybody has a lease on it, or a claim."""
        with self._alone():
            if number in self._counts or number in self._claimed or not self._lock(number, fcntl.LOCK_EX):
                return False
            self._claimed.add(number)
            return True

    def unclaim(self, number: int) -> None:
        """Give a claim back."""
        with self._alone():
            self._claimed.remove(number)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self._start + number)

    def _lock(self, number: int, kind: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, kind | fcntl.LOCK_NB, 1, self._start + number)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        return True
