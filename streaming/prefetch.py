"""Walking a plan ahead of its reader, so that shards are here, or on their way, before they are needed.

One prefetcher serves one iterator. Its threads take shards in the order of their first use, leave alone those that another
process is fetching, and stop when they are far enough ahead. Whoever waits is woken; nothing polls.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from streaming.cache.shards import Tried
from streaming.errors import CancelledError, DeadlineError

__all__ = ['Prefetcher', 'ShardUse']

# How long the shards that the reader needs first have the network to themselves.
_HEAD_START_S = 0.25

# (position of the shard's first use in the reader's own sequence, shard, bytes it takes on disk)
ShardUse = tuple[int, int, int]


class Prefetcher:
    """Brings the shards of one iterator.

    Args:
        uses: The shards by first use, each once; consumed lazily, in the prefetcher's threads.
        try_fetch: Brings a shard, unless somebody else is at it, or there is no room for it before the reader has got on. Given a
            function that raises when the work is to be given up.
        ensure: Brings a shard, waiting for whoever is at it. Called in the reader's thread.
        describe: Names a shard in messages.
        threads: Shards fetched at a time.
        ahead: How far the first use of a shard may lie before the reader, in positions. Default: None, no limit.
        ahead_bytes: How many bytes of shards may lie ahead of the reader. One more shard is begun while fewer do.
        timeout_s: Seconds without a byte after which the reader's wait is an error.
    """

    def __init__(
        self,
        uses: Iterator[ShardUse],
        try_fetch: Callable[[int, Callable[[], None]], Tried],
        ensure: Callable[[int, Callable[[], None]], None],
        *,
        describe: Callable[[int], str],
        threads: int,
        ahead: int | None,
        ahead_bytes: int,
        timeout_s: float,
    ) -> None:
        self._uses = uses
        self._try_fetch = try_fetch
        self._ensure = ensure
        self._describe = describe
        self._ahead = ahead
        self._ahead_bytes = ahead_bytes
        self._timeout_s = timeout_s

        self._changed = threading.Condition()
        self._position = 0
        self._head: ShardUse | None = None  # taken from `uses`, too far ahead to begin
        self._exhausted = False
        self._begun: deque[tuple[int, int]] = deque()  # (first use, bytes) of shards that the reader has not come to
        self._begun_bytes = 0
        self._turned_away: deque[ShardUse] = deque()  # for want of room
        self._full_at = -1  # where the reader was then
        self._fetching: set[int] = set()
        self._ready: set[int] = set()
        self._failed: dict[int, BaseException] = {}
        self._beats = 0
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f'streaming-prefetch-{i}', daemon=True) for i in range(threads)]
        self._starting = threading.Lock()
        self._started = False
        self._first: set[int] = set()  # shards of the reader's first position that are on their way
        self._head_start_ends = 0.0

    def start(self) -> None:
        """Begin to fetch; once more does nothing. `wait_for` does it too."""
        if self._started:
            return
        # Not `_changed`, which the threads are to have before whoever waits for a shard.
        with self._starting:
            if not self._started:
                self._head_start_ends = time.monotonic() + _HEAD_START_S
                for thread in self._threads:
                    thread.start()
                self._started = True

    def advance(self, position: int) -> None:
        """Say that the reader has come to ``position``."""
        with self._changed:
            was, self._position = self._position, position
            begun = len(self._begun)
            while self._begun and self._begun[0][0] <= position:
                self._begun_bytes -= self._begun.popleft()[1]
            # Threads that are woken at every step, and find nothing, take the interpreter from the reader.
            if was == 0 or self._full_at == was or len(self._begun) < begun or self._is_head_within(position):
                self._changed.notify_all()

    def wait_for(self, shard: int) -> None:
        """Return once the shard is here.

        Raises:
            DeadlineError: no byte came for ``timeout_s``.
            Exception: what the shard's fetch failed with.
        """
        if shard in self._ready:
            return
        self.start()
        with self._changed:
            self._await_own_fetch(shard)
            if shard in self._ready:
                return
            if shard in self._failed:
                raise self._failed[shard]
        # Not begun, or in another process's hands.
        self._ensure(shard, self.check)
        with self._changed:
            self._ready.add(shard)
            self._first.discard(shard)
            self._changed.notify_all()

    def is_ready(self, shard: int) -> bool:
        """Whether this prefetcher has found the shard to be here."""
        return shard in self._ready

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Return once a condition holds, looked at when a shard has come or somebody says `wake`; False after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def wake(self) -> None:
        """Let `wait_until` look again."""
        with self._changed:
            self._changed.notify_all()

    def check(self) -> None:
        """Raise CancelledError once the prefetcher is closed: to be called as bytes arrive."""
        self._beats += 1
        if self._closed:
            raise CancelledError('the iterator that needed this shard was closed')

    def close(self) -> None:
        """Give up what is going on, as soon as threads notice: at their next byte. Then they end; `join` waits for them."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads of a prefetcher that was closed; whether they have ended."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads if self._started else ():
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _await_own_fetch(self, shard: int) -> None:
        beats, since = self._beats, time.monotonic()
        while shard in self._fetching:
            self._changed.wait(self._timeout_s / 4)
            if self._beats != beats:
                beats, since = self._beats, time.monotonic()
            elif shard in self._fetching and time.monotonic() - since > self._timeout_s:
                raise DeadlineError(
                    f'waited {self._timeout_s:g} s for {self._describe(shard)} and no byte came; '
                    'is the store reachable? (download_timeout sets this limit)'
                )

    def _run(self) -> None:
        while True:
            use = self._take()
            if use is None:
                return
            shard = use[1]
            try:
                tried, error = self._try_fetch(shard, self.check), None
            except BaseException as caught:  # it is raised where the shard is needed
                tried, error = Tried.ELSEWHERE, caught
            with self._changed:
                self._fetching.discard(shard)
                if tried is not Tried.ELSEWHERE or error is not None:
                    self._first.discard(shard)
                if tried is Tried.HERE:
                    self._ready.add(shard)
                elif tried is Tried.NO_ROOM:
                    self._turned_away.append(use)
                    self._full_at = self._position
                elif error is not None and not isinstance(error, CancelledError):
                    self._failed[shard] = error
                self._changed.notify_all()

    def _take(self) -> ShardUse | None:
        """The next shard to fetch, once it is near enough; None when there is nothing left to do."""
        with self._changed:
            while not self._closed:
                try:
                    use = self._next_near()
                except Exception:  # whatever fails in the plan here fails in the reader too, which then says so
                    self._exhausted = True
                    self._changed.notify_all()
                    return None
                if use is not None:
                    self._fetching.add(use[1])
                    if use[0] == 0 and use[1] not in self._ready:
                        self._first.add(use[1])
                    return use
                if self._exhausted and not self._turned_away and not self._fetching:
                    return None
                self._changed.wait(self._head_start_left() or None)
            return None

    def _is_head_within(self, position: int) -> bool:
        """Whether the next shard is no longer too far ahead of a position, by its first use alone."""
        return self._head is not None and self._head[0] <= position + (self._ahead or 0)

    def _head_start_left(self) -> float:
        """Seconds for which only shards of the first position are fetched, so that others do not take the network from them."""
        return max(0.0, self._head_start_ends - time.monotonic()) if self._first and not self._position else 0.0

    def _next_near(self) -> ShardUse | None:
        if self._full_at == self._position:
            return None
        while self._turned_away:
            use = self._turned_away.popleft()
            if use[0] >= self._position:  # else the reader has brought it itself
                return use
        while True:
            if self._head is None:
                self._head = next(self._uses, None)
                if self._head is None:
                    self._exhausted = True
                    return None
            first_use, shard, size = use = self._head
            if shard in self._ready:
                self._head = None
                continue
            if first_use > self._position:
                if self._head_start_left():
                    return None
                if self._begun_bytes >= self._ahead_bytes:
                    return None
                if self._ahead is not None and first_use > self._position + self._ahead:
                    return None
                self._begun.append((first_use, size))
                self._begun_bytes += size
            self._head = None
            return use
