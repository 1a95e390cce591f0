"""What the fetches of a process share: turns to make requests, buffers for ranges, and the file that ranges are written to."""

import heapq
import mmap
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from streaming.errors import CancelledError

__all__ = ['Buffers', 'Scratch', 'Turn', 'Turns', 'buffers', 'turns']

# Requests in flight for the shards of one process: each has a buffer, and a few dozen of a rank fill its link. So a process may
# have that many at least, and the more, up to a limit, the fewer processes the rank has.
_LEAST_REQUESTS, _MOST_REQUESTS = 12, 24
_REQUESTS_OF_RANK = 32


class Turns:
    """Whose request is next, where all shards of a process together may have so many in flight: that of the shard begun first.

    So shards come one after the other, each over many connections, and not all of them late.
    """

    def __init__(self, limit: int = _LEAST_REQUESTS) -> None:
        self._lock = threading.Lock()
        self._limit = self._free = limit
        self._shards = 0
        self._waiting: list[tuple[int, int, Future[None]]] = []
        self._waited = 0

    def share_rank(self, processes: int) -> None:
        """Allow as many requests as a process should have of which a rank has so many; never fewer than before."""
        limit = max(_LEAST_REQUESTS, min(_MOST_REQUESTS, _REQUESTS_OF_RANK // processes))
        with self._lock:
            more = max(0, limit - self._limit)
            self._limit += more
        for _ in range(more):
            self.give_back()

    @contextmanager
    def of_one_shard(self) -> Iterator['Turn']:
        """The turns of a shard that is begun now; at the end of the block whoever waits for one gets none."""
        with self._lock:
            self._shards += 1
            turn = Turn(self, self._shards)
        try:
            yield turn
        finally:
            self._drop(turn.shard)

    def take(self, shard: int) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            granted: Future[None] = Future()
            self._waited += 1
            heapq.heappush(self._waiting, (shard, self._waited, granted))
        granted.result()

    def give_back(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set_result(None)
            else:
                self._free += 1

    def _drop(self, shard: int) -> None:
        with self._lock:
            dropped = [granted for other, _, granted in self._waiting if other == shard]
            self._waiting = [waiting for waiting in self._waiting if waiting[0] != shard]
            heapq.heapify(self._waiting)
        for granted in dropped:
            granted.set_exception(CancelledError('the fetch of the shard was given up'))


@dataclass(frozen=True, slots=True)
class Turn:
    """A shard's turns; a block is one of them."""

    turns: Turns
    shard: int

    def __enter__(self) -> None:
        self.turns.take(self.shard)

    def __exit__(self, *_: object) -> None:
        self.turns.give_back()


# Like `buffers` to be asked for by way of the module: a forked process has others.
turns = Turns()


class Buffers:
    """Memory for ranges, which goes from one to the next while anything is fetched: the system takes longer to make some than the
    network to fill it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fetches = 0
        self._free: list[memoryview] = []

    def take(self, size: int) -> memoryview:
        """A buffer of so many bytes, whatever they are."""
        with self._lock:
            while self._free:
                found = self._free.pop()
                if len(found) >= size:
                    return found[:size]
        # Not a bytearray: it would be cleared here, with Python's lock held. Private: of shared memory there are no huge pages,
        # and making it page by page took a fifth of the time of an epoch.
        made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, 'MADV_HUGEPAGE'):
            with suppress(OSError):  # a kernel without huge pages
                made.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(made)

    def lend(self, buffer: memoryview) -> Iterator[memoryview]:
        """Yield a buffer that was taken, and give it back when the next thing is asked for."""
        yield buffer
        with self._lock:
            if self._fetches:
                self._free.append(memoryview(buffer.obj))

    def __enter__(self) -> None:
        with self._lock:
            self._fetches += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._fetches -= 1
            if not self._fetches:
                self._free.clear()


buffers = Buffers()


def _forget_inherited() -> None:
    """In a forked process: they are of another's fetches, and perhaps another's thread has a lock."""
    global turns, buffers
    turns, buffers = Turns(), Buffers()


os.register_at_fork(after_in_child=_forget_inherited)


class Scratch:
    """The temporary file of a shard, written by several threads. Once it is closed, a late one changes nothing any more."""

    def __init__(self, path: Path) -> None:
        self._file = path.open('wb', buffering=0)
        self._changed = threading.Condition()
        self._writing = 0
        self._closed = False

    def write_at(self, data: bytes | memoryview, start: int) -> None:
        """Write bytes to their place."""
        with self._changed:
            if self._closed:
                raise CancelledError(f'the fetch into {self._file.name} was given up')
            self._writing += 1
        try:
            rest = memoryview(data)
            while rest:
                done = os.pwrite(self._file.fileno(), rest, start)
                rest, start = rest[done:], start + done
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def __enter__(self) -> 'Scratch':
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            # Its descriptor may be another file's the next moment.
            self._changed.wait_for(lambda: not self._writing)
        self._file.close()
