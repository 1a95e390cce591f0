"""What stands between the samples of a batch and their shards being here: the walk ahead, and the first batches by range."""

import sys
from collections.abc import Callable, Iterator

from streaming.early import EarlyReads
from streaming.following import Following
from streaming.format.index import Int64Array
from streaming.order.plan import Plan
from streaming.prefetch import Prefetcher, ShardUse
from streaming.shards import DatasetShards

__all__ = ['Arrivals']

# How much a worker fetches ahead of its reader where `predownload` does not say: about three seconds of a 100 MB/s link.
_AHEAD_BYTES = 256 << 20

# Of a cache with a limit, at most one part in so many lies ahead of a reader.
_PART_AHEAD = 2

# Shards fetched at a time by one worker. Each has a few requests in flight.
_FETCH_THREADS = 4


class Arrivals:
    """Has the shards of one iterator here when they are read.

    Args:
        shards: The dataset's.
        plan: What the iterator, which is the worker of the plan's world, goes through.
        next_plan: Makes the plan that it will go through after this one.
        predownload: Of how many of its samples the shards may be fetched ahead. None: about 256 MiB of shards, within the limit
            of the cache.
        timeout_s: Seconds without a byte after which a wait is an error.
    """

    def __init__(
        self, shards: DatasetShards, plan: Plan, next_plan: Callable[[], Plan], predownload: int | None, timeout_s: float
    ) -> None:
        self._shards = shards
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
        processes = plan.world.num_workers * plan.world.ranks_per_node
        self._early = EarlyReads(shards, prefetcher, processes, timeout_s)

    def prepare(self, index: int, sample_ids: Int64Array) -> None:
        """Return once the samples of the iterator's batch number ``index`` can be read.

        Raises:
            DeadlineError: no byte came for ``timeout_s``.
            Exception: what a shard's fetch failed with.
        """
        if self._following is not None:
            self._following.advance(index)
        self._prefetcher.advance(index)
        read = self._early.read(sample_ids)
        for shard in self._shards.first_uses(sample_ids):
            if shard not in read:
                self._prefetcher.wait_for(shard)
                self._early.give_way(shard)

    def close(self) -> None:
        """Give up what is going on."""
        self._prefetcher.close()
        self._early.close()
        if self._following is not None:
            self._following.close()


def _uses(shards: DatasetShards, plan: Plan) -> Iterator[ShardUse]:
    """The shards of the plan's worker, by first use."""
    seen: set[int] = set()
    for index in range(plan.batches_of(plan.world.worker)):
        for shard in shards.first_uses(plan.batch(plan.world.worker, index)):
            if shard not in seen:
                seen.add(shard)
                yield index, shard, int(shards.table.raw_bytes[shard])
