"""One line of the log for each epoch of a rank: what was read, what it waited for, and what the node fetched for it."""

import logging
import time
from dataclasses import astuple

from streaming.cache.book import CacheCounters
from streaming.order.plan import Plan
from streaming.shards import DatasetShards
from streaming.units import human_bytes

__all__ = ['EpochLog']

logger = logging.getLogger(__name__)


class EpochLog:
    """An epoch of one iterator. The first worker of a rank speaks for the rank.

    Args:
        shards: The dataset's.
        plan: What the iterator goes through.

    Attributes:
        batches: How many batches the iterator has come to.
    """

    def __init__(self, shards: DatasetShards, plan: Plan) -> None:
        self._shards = shards
        self._plan = plan
        self._began = time.monotonic()
        self._speaks = plan.world.worker == 0 and logger.isEnabledFor(logging.INFO)
        self._before = self._sums() if self._speaks else CacheCounters()
        self.batches = 0

    def close(self) -> None:
        """Write the line."""
        if not self._speaks:
            return
        self._speaks = False
        world, total = self._plan.world, self._plan.batches_of(0)
        sums = CacheCounters(*(now - then for now, then in zip(astuple(self._sums()), astuple(self._before), strict=True)))
        logger.info(
            'epoch %d, rank %d: %d of %d batches of each of %d workers in %.1f s. Meanwhile the node waited %.1f s for shards, '
            'fetched %d (%s in %d requests, %d of them again, %s of it by range), failed to fetch %d and evicted %d (%s)',
            self._plan.epoch,
            world.rank,
            self.batches,
            total,
            world.num_workers,
            time.monotonic() - self._began,
            sums.waited_ms / 1000,
            sums.fetched_shards,
            human_bytes(sums.fetched_bytes + sums.ranged_bytes),
            sums.requests,
            sums.retries,
            human_bytes(sums.ranged_bytes),
            sums.failed_fetches,
            sums.evicted_shards,
            human_bytes(sums.evicted_bytes),
        )

    def _sums(self) -> CacheCounters:
        found = [astuple(counters) for counters in self._shards.counters().values()]
        return CacheCounters(*map(sum, zip(*found, strict=True)))
