"""What stands between a batch and its shards being here: the walk ahead, the first batches by range, bad shards."""

import atexit
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

from streaming.cache import transfer
from streaming.early import EarlyReads
from streaming.epoch_log import EpochLog
from streaming.errors import FormatError, NotFoundError, StreamingError
from streaming.following import Following
from streaming.format.index import Int64Array
from streaming.order.plan import Plan
from streaming.prefetch import Prefetcher, ShardUse
from streaming.shards import DatasetShards
from streaming.stand_in import StandIns

__all__ = ['Arrivals']

logger = logging.getLogger(__name__)

# How much a worker fetches ahead of its reader where `predownload` does not say: a second of the fastest link that one process
# can keep busy. With less, and shards that a reader is through with in a tenth of that, the link would be idle now and then.
_AHEAD_BYTES = 512 << 20

# Of a cache with a limit, at most one part in so many lies ahead of a reader.
_PART_AHEAD = 8

# Waits are counted together, up to so many seconds of them: the sums are the whole node's, and take a lock.
_COUNTED_S = 0.1

# How long closing waits for threads to notice, and then for reads to be broken off.
_NOTICE_S, _BREAK_S = 0.05, 5.0

# What is wrong with a shard, and not with the way to it: it is not there, or not what the index says. That a store cannot be
# reached is no reason to go on with less data.
_BAD = (NotFoundError, FormatError)

# Shards fetched at a time by one worker. Each has a few requests in flight.
_FETCH_THREADS = 4


class Arrivals:
    """Has the shards of one iterator here when they are read.

    Args:
        shards: The dataset's.
        plan: What the iterator, which is the worker of the plan's world, goes through.
        next_plan: Makes the plan that it will go through after this one.
        predownload: Of how many of its samples the shards may be fetched ahead. None: about 512 MiB of shards, within the limit
            of the cache.
        timeout_s: Seconds without a byte after which a wait is an error.
        skip_bad: Let others stand in for the samples of bad shards. Default: False, a bad shard is an error.
    """

    _is_closed = True  # until it has been made

    def __init__(
        self,
        shards: DatasetShards,
        plan: Plan,
        next_plan: Callable[[], Plan],
        predownload: int | None,
        timeout_s: float,
        *,
        skip_bad: bool = False,
    ) -> None:
        self._shards = shards
        self._log = EpochLog(shards, plan)
        self._following = Following(shards, plan, next_plan) if shards.room.is_tight else None
        limit = sys.maxsize if shards.room.limit_bytes is None else shards.room.limit_bytes // _PART_AHEAD
        self._prefetcher = prefetcher = Prefetcher(
            _uses(shards, plan),
            shards.try_fetch,
            shards.ensure,
            describe=shards.describe,
            threads=_FETCH_THREADS,
            ahead=None if predownload is None else -(-predownload // (plan.config.batch_size or 1)),
            ahead_bytes=min(_AHEAD_BYTES if predownload is None else sys.maxsize, limit),
            timeout_s=timeout_s,
        )
        transfer.turns.share_rank(plan.world.num_workers)
        processes = plan.world.num_workers * plan.world.ranks_per_node
        # What is skipped must not depend on how much of a shard was read before it turned out to be bad.
        self._early = None if skip_bad else EarlyReads(shards, prefetcher, processes, timeout_s)
        self._waited_s = 0.0
        self._stand_ins = StandIns(shards.table, shards.stream_of) if skip_bad else None
        _living.add(self)
        self._is_closed = False

    def foresee(self, sample_ids: Int64Array) -> None:
        """Begin with the iterator's first batch, which is asked for soon."""
        if self._early is not None:
            self._early.begin(sample_ids)

    def prepare(self, index: int, sample_ids: Int64Array) -> Int64Array:
        """Return once the samples of the iterator's batch number ``index`` can be read.

        Returns:
            The samples to read: the same, but for those of bad shards, int64 (batch size,).

        Raises:
            DeadlineError: no byte came for ``timeout_s``.
            Exception: what a shard's fetch failed with.
        """
        if self._following is not None:
            self._following.advance(index)
        self._prefetcher.advance(index)
        self._log.batches = index + 1
        since = time.monotonic()
        try:
            return self._prepare(sample_ids)
        finally:
            self._waited_s += time.monotonic() - since
            if self._waited_s >= _COUNTED_S:
                self._count_wait()

    def _prepare(self, sample_ids: Int64Array) -> Int64Array:
        if self._stand_ins is not None:
            return self._prepare_good(sample_ids, self._stand_ins)
        needed = self._shards.first_uses(sample_ids)
        waits = not all(map(self._prefetcher.is_ready, needed))
        read = self._early.read(sample_ids) if self._early is not None and (waits or self._early.has_begun) else set()
        self._prefetcher.start()
        for shard in needed:
            if shard not in read:
                self._prefetcher.wait_for(shard)
                if self._early is not None:
                    self._early.give_way(shard)
        return sample_ids

    def __del__(self) -> None:
        if not self._is_closed:  # of an iterator that was dropped before it was asked for anything
            self.close()

    def close(self) -> None:
        """Give up what is going on, and wait for its threads a few seconds at most."""
        self._is_closed = True
        if self not in _living:  # closed already; or inherited by a fork, and the threads are the parent's
            return
        _living.discard(self)
        self._prefetcher.close()
        # Threads notice at the next byte. Where none comes, what they read is broken off, unless that could be another's.
        if not self._join(_NOTICE_S) and not any(other._shards is self._shards for other in _living):
            self._shards.break_off()
            self._join(_BREAK_S)
        with suppress(OSError, StreamingError):  # the folder may be gone by now, and this is but a figure
            self._count_wait()
        if self._early is not None:
            self._early.close()
        if self._following is not None:
            self._following.close()
        self._log.close()

    def _join(self, timeout_s: float) -> bool:
        has_ended = self._prefetcher.join(timeout_s)
        return (self._early is None or self._early.join(timeout_s)) and has_ended

    def _count_wait(self) -> None:
        waited, self._waited_s = self._waited_s, 0.0
        self._shards.count_wait(waited)

    def _prepare_good(self, sample_ids: Int64Array, stand_ins: StandIns) -> Int64Array:
        while True:
            ids = stand_ins.replace(sample_ids)
            for shard in self._shards.first_uses(ids):
                try:
                    self._prefetcher.wait_for(shard)
                    self._shards.check_opens(shard)
                except _BAD as error:
                    if not stand_ins.add(shard):
                        raise
                    self._report(shard, error)
                    break
            else:
                self._shards.count_replaced(sample_ids[ids != sample_ids])
                return ids

    def _report(self, shard: int, error: Exception) -> None:
        samples = int(self._shards.table.samples[shard])
        logger.warning(
            '%s is bad, and others stand in for its %d samples in this epoch: %s', self._shards.describe(shard), samples, error
        )


_living: 'weakref.WeakSet[Arrivals]' = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Leave no half-fetched files at the end of the interpreter, which stops threads wherever they are."""
    for arrivals in list(_living):
        arrivals.close()


# They are the parent's, and so are their threads.
os.register_at_fork(after_in_child=_living.clear)


def _uses(shards: DatasetShards, plan: Plan) -> Iterator[ShardUse]:
    """The shards of the plan's worker, by first use."""
    seen: set[int] = set()
    for index in range(plan.batches_of(plan.world.worker)):
        for shard in shards.first_uses(plan.batch(plan.world.worker, index)):
            if shard not in seen:
                seen.add(shard)
                yield index, shard, int(shards.table.raw_bytes[shard])
        if len(seen) == len(shards.table):  # what comes after that need not be looked at
            return
