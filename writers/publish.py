"""Bringing finished shards to their store: packed, hashed, compressed and put by a bounded pool, the index last."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from streaming.errors import ArgumentError, StreamingError
from streaming.format.compression import Codec
from streaming.format.hashing import hash_bytes
from streaming.format.index import FileInfo, ShardInfo, dump_index
from streaming.writers.destination import Destination

__all__ = ['FilePacker', 'PackedFile', 'Publisher', 'Put']

logger = logging.getLogger(__name__)

# While one thread waits for a store another can compress; each holds a shard in memory.
_MOST_WORKERS = 8
_REPORT_S = 60.0


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of a shard, ready to be put.

    Args:
        raw: What the index says of it uncompressed.
        packed: What the index says of it compressed; None where it is not.
        data: The bytes to put; without compression those that were given.
    """

    raw: FileInfo
    packed: FileInfo | None
    data: bytes | memoryview

    @property
    def key(self) -> str:
        """Under which it is put."""
        return (self.packed or self.raw).basename


@dataclass(frozen=True, slots=True)
class FilePacker:
    """Hashes and compresses files.

    Args:
        codec: None does not compress.
        hashes: Names of the hashes to record of each file, raw and compressed.
    """

    codec: Codec | None
    hashes: Sequence[str]

    def pack(self, name: str, data: bytes | memoryview) -> PackedFile:
        """Hash and compress a file; the name is of the raw one."""
        raw = self._describe(name, data)
        if self.codec is None:
            return PackedFile(raw, None, data)
        packed = self.codec.compress(data)
        return PackedFile(raw, self._describe(f'{name}.{self.codec.extension}', packed), packed)

    def _describe(self, name: str, data: bytes | memoryview) -> FileInfo:
        return FileInfo(name, len(data), {algo: hash_bytes(algo, data) for algo in self.hashes})


Put = Callable[[str, bytes | memoryview], None]
# A shard on its way: puts its files, and gives its entry for the index. It is called once, in a thread of the pool.
Shard = Callable[[Put], ShardInfo]


class Publisher:
    """Publishes shards in the background. One thread calls it.

    Args:
        destination: Where to.
        max_workers: Threads. Default: None, two more than CPUs, at most 8.
        on_stored: Called in the caller's thread with each shard that was stored.
        on_failure: Called in a thread of the pool when a shard could not be.

    Attributes:
        error: What there will be no dataset for; None while all is well.

    Raises:
        ArgumentError: no workers.
    """

    def __init__(
        self,
        destination: Destination,
        max_workers: int | None,
        *,
        on_stored: Callable[[ShardInfo], None],
        on_failure: Callable[[], None],
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ArgumentError(f'max_workers must be at least 1, got {max_workers}')
        self.error: StreamingError | None = None
        self._destination = destination
        self._workers = max_workers or min(_MOST_WORKERS, (os.cpu_count() or 1) + 2)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix='streaming-publish')
        self._on_stored = on_stored
        self._on_failure = on_failure
        self._pending: dict[Future[ShardInfo], int] = {}
        self._done: dict[int, ShardInfo] = {}

    def submit(self, number: int, shard: Shard) -> None:
        """Publish a shard. Waits until no more shards are on their way than there are workers.

        Args:
            number: Its place in the dataset.
            shard: Puts its files.

        Raises:
            StreamingError: a shard could not be published.
        """
        self._wait(self._workers)
        future = self._pool.submit(shard, self._destination.put)
        self._pending[future] = number
        future.add_done_callback(self._note_failure)

    def check(self) -> None:
        """Take in what is done.

        Raises:
            StreamingError: a shard could not be published. Everything has been given up, then.
        """
        if self.error is not None:
            raise self.error
        for future in [future for future in self._pending if future.done()]:
            number = self._pending.pop(future)
            error = future.exception()
            if error is not None:
                self._fail(f'shard {number} could not be published', error)
            self._done[number] = future.result()
            self._on_stored(self._done[number])

    def commit(self) -> None:
        """Wait for all shards, then put the index.

        Raises:
            StreamingError: something could not be published; there is no index, or nobody knows.
        """
        self._wait(0)
        self._pool.shutdown()
        shards = [*(self._destination.existing or ()), *(self._done[number] for number in sorted(self._done))]
        try:
            self._destination.commit(dump_index(shards), (file.basename for shard in shards for file in shard.stored))
        except StreamingError as error:
            self._fail('the index could not be put', error)
        self._destination.close()

    def abort(self) -> None:
        """Give up: end what is on its way and delete what is stored already. There will be no index."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._destination.cancel()
        # A cancelled future that never ran is not done for wait(). Again and again: a thread may have been just before the wait
        # that is to be cut short.
        running = [future for future in self._pending if not future.cancelled()]
        while wait(running, timeout=0.2).not_done:
            self._destination.cancel()
        self._pool.shutdown()
        self._pending.clear()
        self._destination.withdraw()
        self._destination.close()

    def _wait(self, most: int) -> None:
        """Wait until at most so many shards are on their way. Each has its store's deadlines, so this ends."""
        self.check()
        while len(self._pending) > most:
            if not wait(self._pending, timeout=_REPORT_S, return_when=FIRST_COMPLETED).done:
                logger.warning('%s: waiting for %d shards to be stored', self._destination.url, len(self._pending))
            self.check()

    def _note_failure(self, future: Future[ShardInfo]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._on_failure()

    def _fail(self, what: str, error: BaseException) -> None:
        kind = type(error) if isinstance(error, StreamingError) else StreamingError
        self.error = kind(f'{what}, so there is no dataset at {self._destination.url}: {error}')
        self.abort()
        raise self.error from error
