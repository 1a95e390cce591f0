"""Kernel locks on files: held by an open file, gone with its holder, whoever that was and however it died.

A lock file is short-lived: its holder removes it. So whoever gets a lock checks that the file it locked is still the one under
that name, and starts over if not. It is empty, unless its holder failed: then it says why to those who have waited for it, so
that they do not find out one after the other.
"""

import fcntl
import os
import threading
import time
from _thread import start_new_thread
from contextlib import suppress
from pathlib import Path

from streaming import errors
from streaming.errors import DeadlineError, StreamingError

__all__ = ['FileLock', 'lock_within', 'try_lock', 'wait_for_lock']

# Descriptors of locks that this process holds. A flock belongs to the open file, which a fork shares: without this, a worker
# forked in the middle of a fetch would keep the lock alive after its parent was killed.
_held: dict[int, 'FileLock'] = {}


def _close_inherited() -> None:
    for descriptor in list(_held):
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited)

# The most of an error that is passed on.
_MESSAGE_BYTES = 4096


class FileLock:
    """A lock that is held until it is released, by any thread, or its process ends. As a context manager: for the block."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._next_beat = 0.0

    def beat(self) -> None:
        """Tell whoever waits that the work gets on; cheap enough to call for every few bytes."""
        now = time.monotonic()
        if now >= self._next_beat and _held.get(self._descriptor) is self:
            self._next_beat = now + 0.5
            os.utime(self._descriptor)

    def fail(self, error: StreamingError) -> None:
        """Tell whoever waits that the work failed, and with what, when the lock is released."""
        os.pwrite(self._descriptor, f'{type(error).__name__}\n{error}'.encode()[:_MESSAGE_BYTES], 0)

    def release(self) -> None:
        """Remove the lock file and wake whoever waits for it."""
        # Not only whether the descriptor is held: its number may be another lock's by now.
        if _held.get(self._descriptor) is self:
            # Unlink first: a waiter that then gets the lock finds that its file has no name any more, and starts over.
            with suppress(FileNotFoundError):
                os.unlink(self.path)
            del _held[self._descriptor]
            # Unlocking, and not only closing: a process that was forked meanwhile may still have the file open.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)

    def __enter__(self) -> 'FileLock':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_named(path: Path, descriptor: int) -> bool:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _raise_failure(descriptor: int) -> None:
    """Raise what the holder of a lock, which has no name any more, failed with."""
    kind, _, message = os.pread(descriptor, _MESSAGE_BYTES, 0).decode(errors='replace').partition('\n')
    error = getattr(errors, kind, None)
    if isinstance(error, type) and issubclass(error, StreamingError):
        raise error(f'{message} (found by another process, or thread, that fetched it)')


def _acquire(path: Path, flags: int) -> FileLock:
    """Take the lock; with LOCK_NB in ``flags``, raise BlockingIOError if it is another's.

    Raises:
        StreamingError: the lock was another's, who failed and said with what.
    """
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
            named = _is_named(path, descriptor)
            if not named:
                _raise_failure(descriptor)
            os.ftruncate(descriptor, 0)  # what a holder wrote who was killed before it could remove the file
        except BaseException:  # Ctrl-C too, or the lock would be held for ever
            os.close(descriptor)
            raise
        if named:
            lock = _held[descriptor] = FileLock(path, descriptor)
            return lock
        os.close(descriptor)


def try_lock(path: Path) -> FileLock | None:
    """Take the lock at ``path`` if nobody, in this or any process, holds it; else None, at once."""
    try:
        return _acquire(path, fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def lock_within(descriptor: int, timeout_s: float) -> bool:
    """Take the lock on an open file; False where another one has held it for so many seconds. Then close the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    # The kernel's wait has no deadline. A thread waits there, through a descriptor that stays open for as long as it does.
    copy, done, guard = os.dup(descriptor), threading.Event(), threading.Lock()
    is_late = False

    def wait() -> None:
        fcntl.flock(copy, fcntl.LOCK_EX)
        with guard:
            if is_late:
                fcntl.flock(copy, fcntl.LOCK_UN)
            done.set()
        os.close(copy)

    # Not a threading.Thread, whose start() waits for it without a deadline: in its first steps it may be made to collect garbage,
    # and that may wait for what our caller holds.
    start_new_thread(wait, ())
    done.wait(timeout_s)
    with guard:
        is_late = not done.is_set()
        return not is_late


class _Waiter:
    """A thread that blocks in the kernel for a lock, so that the one that needs it can wait with a deadline."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._abandoned = False
        self._lock: FileLock | None = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        # A daemon: one whose lock never comes (its holder is stopped, say) must not keep the interpreter alive.
        threading.Thread(target=self._run, name=f'lock-waiter-{path.name}', daemon=True).start()

    def _run(self) -> None:
        try:
            lock = _acquire(self._path, 0)
        except BaseException as error:  # handed to the waiting thread, which raises it
            self._error = error
        else:
            with self._guard:
                if not self._abandoned:
                    self._lock = lock
                else:
                    lock.release()
        self._done.set()

    def wait(self, timeout_s: float) -> FileLock | None:
        self._done.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return self._lock

    def abandon(self) -> None:
        with self._guard:
            self._abandoned = True
            if self._lock is not None:
                self._lock.release()


def _last_beat(path: Path) -> tuple[int, int] | None:
    """Which lock file lies at ``path`` and when its holder last showed signs of work; not a time to compare with any clock."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def wait_for_lock(path: Path, timeout_s: float, what: str) -> FileLock:
    """Wait until the lock at ``path`` is ours.

    Args:
        path: The lock file.
        timeout_s: Seconds to wait since the holder's last beat.
        what: What the lock stands for, for the error.

    Raises:
        StreamingError: what the holder failed with, if it said so.
        DeadlineError: the holder kept the lock for ``timeout_s`` without a beat.
    """
    lock = try_lock(path)
    if lock is not None:
        return lock
    waiter = _Waiter(path)
    try:
        seen = _last_beat(path)
        since = time.monotonic()
        while True:
            # Look at the holder's progress a few times within the limit; the lock itself wakes us at once.
            lock = waiter.wait(timeout_s / 4)
            if lock is not None:
                return lock
            now = _last_beat(path)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= timeout_s:
                raise DeadlineError(
                    f'waited {timeout_s:g} s for {what}: another process holds {path} and has made no progress; '
                    'see which with "fuser" or "lsof", and end it, or raise download_timeout'
                )
    except BaseException:  # whoever is not there to take the lock, for whatever reason, shall not get it
        waiter.abandon()
        raise
