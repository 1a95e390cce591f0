"""Another try after what may pass: throttling, an outage, a cut connection. A store around a store.

Waits double from a tenth of a second, with full jitter, and honour the store's Retry-After. All threads of a store
share a budget of tries, so that a dying service is not stormed. Everything that another try cannot mend (not found,
denied, corrupt) passes at once.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from streaming.errors import (
    AlreadyExistsError,
    ArgumentError,
    CancelledError,
    StoreError,
    ThrottledError,
    UnavailableError,
)
from streaming.store.parts import PartsStore, open_source, put_in_parts, size_of
from streaming.store.protocol import ObjectInfo, Store, check_prefix
from streaming.store.wrapper import WrapperStore

__all__ = ['RETRYABLE', 'Attempts', 'Retrier', 'RetryPolicy', 'RetryStore']

logger = logging.getLogger(__name__)

T = TypeVar('T')

RETRYABLE = (ThrottledError, UnavailableError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon.

    Args:
        tries: Requests for one operation, the first included. Default: 8.
        first_wait_s: Longest wait before the second try; doubles with each. The wait is uniform between 0 and it.
            Default: 0.1.
        max_wait_s: Where the doubling ends. Default: 5.
        retry_after_limit_s: The store's own Retry-After is honoured up to this. Default: 30.
        deadline_s: No try begins later than this after the first one. Default: 300.
        contact_s: The same while the store has never answered: a wrong host name or a missing network shall not take
            minutes to be an error. Default: 4.
        budget: Further tries that all threads together may make in a burst. Default: 100.
        budget_per_s: How fast the budget fills again. Default: 2.

    Raises:
        ArgumentError: a value that cannot work.
    """

    tries: int = 8
    first_wait_s: float = 0.1
    max_wait_s: float = 5.0
    retry_after_limit_s: float = 30.0
    deadline_s: float = 300.0
    contact_s: float = 4.0
    budget: int = 100
    budget_per_s: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ArgumentError(f'RetryPolicy.{field.name} must not be negative, got {getattr(self, field.name)!r}')
        if self.tries < 1:
            raise ArgumentError(f'RetryPolicy.tries must be at least 1, got {self.tries}')

    def wait_s(self, failures: int, retry_after_s: float | None = None, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many failures (1 or more); ``draw`` gives the jitter, in [0, 1)."""
        longest = min(self.max_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 60))
        jitter = draw() * longest
        if retry_after_s is None:
            return jitter
        # On top, so that those who were turned away together do not come back together.
        return min(retry_after_s, self.retry_after_limit_s) + min(jitter, 1.0)


class _Shared:
    """What the threads of one process share: the budget, whether the store ever answered, and the end of waiting."""

    def __init__(self, policy: RetryPolicy, answered: bool) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._tokens = float(policy.budget)
        self._filled_at = time.monotonic()
        self.answered = answered
        self.closing = threading.Event()
        self.retries = 0

    def take_token(self) -> bool:
        with self._lock:
            now = time.monotonic()
            grown = self._tokens + (now - self._filled_at) * self._policy.budget_per_s
            self._tokens = min(float(self._policy.budget), grown)
            self._filled_at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            self.retries += 1
            return True


class Attempts:
    """The tries of one operation. Made by `Retrier.begin`."""

    def __init__(self, policy: RetryPolicy, shared: _Shared, what: str) -> None:
        self._policy = policy
        self._shared = shared
        self._what = what
        self._closing = shared.closing
        self._began = time.monotonic()
        self.failures = 0

    def failed(self, error: StoreError) -> None:
        """Return when it is time for the next try.

        Raises:
            CancelledError: the store was closed.
            StoreError: of the error's own type, where there is to be no further try.
        """
        if self._closing.is_set():
            raise CancelledError(f'{self._what} was given up: its store was closed') from error
        self.failures += 1
        if error.status is not None:
            self._shared.answered = True
        left_s = self._left_s()
        wait_s = self._policy.wait_s(self.failures, error.retry_after_s)
        if error.retry_after_s is None and left_s > 0:
            # The last try is made when the time is up: a long draw of the jitter does not end the tries early.
            wait_s = min(wait_s, left_s)
        reason = self._why_stop(wait_s > left_s)
        if reason:
            final = type(error)(f'{error} ({reason})' if self.failures > 1 else str(error))
            final.status, final.retry_after_s, final.etag = error.status, error.retry_after_s, error.etag
            raise final from error
        logger.info('%s failed: %s; try %d of %d in %.2f s', self._what, error, self.failures + 1, self._policy.tries, wait_s)
        if self._closing.wait(wait_s):
            raise CancelledError(f'{self._what} was given up: its store was closed') from error

    def _left_s(self) -> float:
        deadline_s = self._policy.deadline_s
        if not self._shared.answered:
            deadline_s = min(deadline_s, self._policy.contact_s)
        return self._began + deadline_s - time.monotonic()

    def _why_stop(self, too_late: bool) -> str:
        if self.failures >= self._policy.tries or too_late:
            return f'gave up after {self.failures} tries in {time.monotonic() - self._began:.1f} s'
        if not self._shared.take_token():
            return f'gave up after {self.failures} tries: too much has failed in this store, its retry budget is spent'
        return ''


class Retrier:
    """Tries operations again by one policy. Any thread may use it; it pickles, and begins anew in a forked process.

    Args:
        policy: How often and how soon.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._answered_before = False
        self._by_process: dict[int, _Shared] = {}

    def __getstate__(self) -> tuple[RetryPolicy, bool]:
        return self.policy, self._answered()

    def __setstate__(self, state: tuple[RetryPolicy, bool]) -> None:
        self.policy, self._answered_before = state
        self._by_process = {}

    def _shared(self) -> _Shared:
        # By process: a lock that another thread held during a fork would stay locked in the child for ever.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Shared(self.policy, self._answered()))

    @property
    def retries(self) -> int:
        """How many further tries this process has made."""
        return self._shared().retries

    def _answered(self) -> bool:
        """Whether the store has ever answered this process or one that it comes from."""
        return self._answered_before or any(shared.answered for shared in list(self._by_process.values()))

    def begin(self, what: str) -> Attempts:
        """Begin an operation, named for messages (``'GET oci://...'``)."""
        return Attempts(self.policy, self._shared(), what)

    def call(self, what: str, function: Callable[[], T]) -> T:
        """The function's result, from the first try that gives one."""
        attempts = self.begin(what)
        while True:
            try:
                result = function()
            except RETRYABLE as error:
                attempts.failed(error)
            else:
                self.note_answer()
                return result

    def note_answer(self) -> None:
        """Remember that the store has answered once."""
        self._shared().answered = True

    def cancel(self) -> None:
        """Wake everybody who waits for a further try; they raise CancelledError. Operations begun later are not
        touched.
        """
        shared = self._shared()
        closing, shared.closing = shared.closing, threading.Event()
        closing.set()


class RetryStore(WrapperStore):
    """Tries every operation of another store again where that may help, and takes up a cut read at the byte where it
    stopped.

    Args:
        inner: The store.
        policy: How often and how soon. Default: RetryPolicy().
    """

    def __init__(self, inner: Store, policy: RetryPolicy | None = None) -> None:
        super().__init__(inner)
        self.retrier = Retrier(policy or RetryPolicy())

    def head(self, key: str) -> ObjectInfo:
        return self.retrier.call(f'HEAD {self.url_of(key)}', lambda: self.inner.head(key))

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        return self.retrier.call(f'GET {self.url_of(key)}', lambda: self.inner.get(key, limit_bytes=limit_bytes))

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        done = 0

        def note(count: int) -> None:
            nonlocal done
            done += count
            if on_bytes is not None:
                on_bytes(count)

        attempts = self.retrier.begin(f'GET {self.url_of(key)}, {len(buffer)} bytes from {start}')
        while True:
            try:
                info = self.inner.read_into(key, start + done, buffer[done:], if_match=if_match, on_bytes=note)
            except RETRYABLE as error:
                if done == len(buffer):
                    return None  # the last byte came before the failure
                if if_match is None and done:
                    # The rest must be of the object that the first part was of.
                    if_match = error.etag
                attempts.failed(error)
            else:
                self.retrier.note_answer()
                return info

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        if isinstance(self.inner, PartsStore) and size_of(source) > self.inner.single_put_bytes:
            return put_in_parts(self.inner, self.retrier.call, key, source, overwrite=overwrite)
        attempts = self.retrier.begin(f'PUT {self.url_of(key)}')
        while True:
            try:
                info = self.inner.put(key, source, overwrite=overwrite)
            except RETRYABLE as error:
                attempts.failed(error)
            except AlreadyExistsError:
                # Perhaps an earlier try of ours was stored and only its answer was lost.
                if attempts.failures and self._holds(key, source):
                    return self.head(key)
                raise
            else:
                self.retrier.note_answer()
                return info

    def _holds(self, key: str, source: bytes | Path) -> bool:
        """Whether the object's bytes are those of ``source``."""
        size = size_of(source)
        if self.head(key).size != size:
            return False
        step = 8 << 20
        with open_source(source) as wanted:
            for start in range(0, size, step):
                found = memoryview(bytearray(min(step, size - start)))
                self.read_into(key, start, found)
                if wanted.read(len(found)) != found:
                    return False
        return True

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, after)

    def _list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        what = f'LIST {self.url_of(prefix)}'
        attempts = self.retrier.begin(what)
        while True:
            last = after
            try:
                for info in self.inner.list(prefix, after=after):
                    yield info
                    after = info.key
            except RETRYABLE as error:
                if after != last:
                    attempts = self.retrier.begin(what)
                attempts.failed(error)
            else:
                self.retrier.note_answer()
                return

    def delete(self, key: str) -> None:
        self.retrier.call(f'DELETE {self.url_of(key)}', lambda: self.inner.delete(key))

    def close(self) -> None:
        self.retrier.cancel()
        self.inner.close()
