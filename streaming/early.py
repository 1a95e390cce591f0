"""The first batches, before their shards are here: samples are read by range while the shards are being fetched.

Only where the reader would otherwise wait, and only where it pays: where bytes and requests cost at most a quarter of what the
shard does. In an epoch a process may make 512 requests like this, and all processes of a node may read 64 MiB, or a sixteenth of
the dataset if that is less. So the beginning of an epoch is quick, and a job that waits for the network all the time does not ask
more of it.
"""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial

from streaming.errors import FormatError, StoreError
from streaming.format.index import Int64Array
from streaming.format.mds import head_bytes
from streaming.prefetch import Prefetcher
from streaming.readers.ranged import RangedReader
from streaming.shards import DatasetShards
from streaming.threads import CallerThreads

__all__ = ['EarlyReads']

logger = logging.getLogger(__name__)

# The most that may be spent on a shard by one process: one part in so many of its bytes.
_PART_OF_SHARD = 4

# What a request costs beside its bytes, in bytes. Measured: the work of a request is that of receiving 0.5 MB from OCI and 3 MB
# from S3, and a round trip of 30 ms is that of 2.4 MB at 80 MB/s; but round trips are made at the same time.
_REQUEST_BYTES = 1 << 20

# Samples that are less than this apart are read together with what is between them.
_GAP_BYTES = 256 << 10

# The most requests of one process in an epoch.
_MOST_REQUESTS = 512

# The most that the processes of a node read in an epoch: bytes, and one part of the dataset in so many.
_NODE_BYTES = 64 << 20
_PART_OF_DATASET = 16

# How long the first reads have the network and the interpreter to themselves, before shards are fetched beside them.
_HEAD_START_S = 0.25

# Requests at a time. A shuffled batch can need one for each sample.
_REQUESTS = 32


class EarlyReads:
    """Lets one iterator read samples whose shards are on their way.

    Args:
        shards: The dataset's.
        prefetcher: Brings them, in another thread.
        processes: How many processes of this node iterate the dataset.
        timeout_s: Seconds after which reading by range is given up and the shards are waited for.
    """

    def __init__(self, shards: DatasetShards, prefetcher: Prefetcher, processes: int, timeout_s: float) -> None:
        self._shards = shards
        self._prefetcher = prefetcher
        self._timeout_s = timeout_s
        dataset_bytes = int(shards.table.raw_bytes.sum())
        self._budget = min(_NODE_BYTES, dataset_bytes // _PART_OF_DATASET) // processes
        self._requests = _MOST_REQUESTS
        self._spent: dict[int, int] = {}
        self._readers: dict[int, RangedReader] = {}
        self._first = CallerThreads[set[int]](1, 'streaming-first')
        self._begun: Future[set[int]] | None = None

    def begin(self, sample_ids: Int64Array) -> None:
        """Begin with what `read` will be asked for first, in another thread."""
        self._begun = self._first.submit(partial(self._read_missing, sample_ids))

    @property
    def has_begun(self) -> bool:
        """Whether `read` has yet to be asked for what was begun with."""
        return self._begun is not None

    def read(self, sample_ids: Int64Array) -> set[int]:
        """Read samples by range where their shards are not here, and where it pays; the shards that need not be waited for."""
        begun, self._begun = self._begun, None
        if begun is None:
            return self._read_missing(sample_ids)
        self._first.close_when_done()
        return begun.result()

    def join(self, timeout_s: float) -> bool:
        """Wait for what was begun, once the prefetcher is closed; whether it has ended."""
        self._first.close_when_done()
        return self._begun is None or bool(wait([self._begun], timeout_s).done)

    def _read_missing(self, sample_ids: Int64Array) -> set[int]:
        if self._budget <= 0:
            return set()
        numbers, within = self._shards.table.find(sample_ids)
        missing = [shard for shard in dict.fromkeys(numbers.tolist()) if not self._is_here(shard)]
        if not missing:
            return set()
        return self._read({shard: sorted(set(within[numbers == shard].tolist())) for shard in missing})

    def give_way(self, shard: int) -> None:
        """Have the samples of a shard read from its file, which is here now.

        Raises:
            CorruptError: what was read by range is not what the file holds.
        """
        reader = self._readers.pop(shard, None)
        if reader is not None:
            self._shards.read_whole(shard, reader)

    def close(self) -> None:
        """Forget what was read by range."""
        for shard, reader in self._readers.items():
            self._shards.forget_parts(shard, reader)
        self._readers.clear()

    def _is_here(self, shard: int) -> bool:
        return self._prefetcher.is_ready(shard) or self._shards.is_here(shard)

    def _read(self, wanted: dict[int, list[int]]) -> set[int]:
        """Read the samples of shards by range, where that pays; the shards whose samples are now here."""
        readers = {shard: reader for shard in wanted if (reader := self._reader_for(shard, len(wanted[shard]))) is not None}
        heads: dict[int, list[Callable[[], None]]] = {}
        for shard, reader in readers.items():
            if not reader.has_head:
                ranges = reader.foreseen(wanted[shard], _GAP_BYTES)
                pays = self._spend(shard, sum(end - start for start, end in ranges), len(ranges))
                heads[shard] = [reader.read_head, *(partial(reader.read_range, *span) for span in ranges if pays)]
        failed = self._call(heads, wanted)
        calls: dict[int, list[Callable[[], None]]] = {}
        for shard, reader in readers.items():
            if shard not in failed and reader.has_head:
                ranges = reader.missing(wanted[shard], _GAP_BYTES)
                if self._spend(shard, sum(end - start for start, end in ranges), len(ranges)):
                    calls[shard] = [partial(reader.read_range, start, end) for start, end in ranges]
        failed = self._call(calls, wanted)
        done = calls.keys() - failed
        for shard in done:
            readers[shard].add(wanted[shard])
        return done

    def _reader_for(self, shard: int, samples: int) -> RangedReader | None:
        """The shard's reader, if reading so many of its samples by range is likely to pay."""
        all_bytes, all_samples = int(self._shards.table.raw_bytes[shard]), int(self._shards.table.samples[shard])
        reader = self._readers.get(shard)
        needs_head = reader is None or not reader.has_head
        head = head_bytes(all_samples, b'') if needs_head else 0
        # In order samples are one range. Shuffled they are as many, which is found out when the head has come.
        if not self._can_spend(shard, head + samples * all_bytes // all_samples, needs_head + 1):
            return None
        if reader is None:
            reader = self._shards.read_in_parts(shard, self._prefetcher.check)
            if reader is not None:
                self._readers[shard] = reader
        if reader is not None and needs_head:
            self._spend(shard, head, 1)
        return reader

    def _can_spend(self, shard: int, size: int, requests: int) -> bool:
        cost = self._spent.get(shard, 0) + size + requests * _REQUEST_BYTES
        pays = cost <= int(self._shards.table.raw_bytes[shard]) // _PART_OF_SHARD
        return pays and size <= self._budget and requests <= self._requests

    def _spend(self, shard: int, size: int, requests: int) -> bool:
        if not self._can_spend(shard, size, requests):
            return False
        self._budget -= size
        self._requests -= requests
        self._spent[shard] = self._spent.get(shard, 0) + size + requests * _REQUEST_BYTES
        return True

    def _call(self, calls: dict[int, list[Callable[[], None]]], wanted: Iterable[int]) -> set[int]:
        """Make the calls of each shard, all at a time; the shards for which they did not all succeed.

        Ends early once all shards that are wanted have come as a whole meanwhile.
        """
        count = sum(map(len, calls.values()))
        if not count:
            return set()
        with CallerThreads[None](min(_REQUESTS, count), 'streaming-early') as threads:
            futures = {shard: [threads.submit(call) for call in made] for shard, made in calls.items()}
            every = [future for made in futures.values() for future in made]
            for future in every:
                future.add_done_callback(lambda _: self._prefetcher.wake())

            def is_over() -> bool:
                return all(future.done() for future in every) or all(map(self._prefetcher.is_ready, wanted))

            if not self._prefetcher.wait_until(is_over, _HEAD_START_S):
                self._prefetcher.start()
                self._prefetcher.wait_until(is_over, self._timeout_s)
        failed = set()
        for shard, made in futures.items():
            for future in made:
                error = None if not future.done() or future.cancelled() else future.exception()
                if error is not None and not isinstance(error, (StoreError, FormatError)):
                    raise error
                if error is not None or future.cancelled() or not future.done():
                    logger.debug('reading %s by range: %s', self._shards.describe(shard), error or 'given up')
                    # Whatever it was, the shard's own fetch is waited for, and says so if it meets it too.
                    failed.add(shard)
        return failed
