"""Saying when the shards of a plan are used, so that whoever has to evict one knows: in each cache folder of a dataset."""

import logging
import threading
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np

from streaming.cache.book import Int64Array
from streaming.cache.eviction import peak_bytes
from streaming.errors import StreamingError
from streaming.order.plan import Plan
from streaming.shards import DatasetShards
from streaming.units import human_bytes

__all__ = ['Following']

logger = logging.getLogger(__name__)


class Following:
    """An iterator that goes through a plan, in the eyes of the node. Costs O(shards), once a plan and node.

    Args:
        shards: The dataset's, in folders with a limit.
        plan: The plan.
        next_plan: Makes the plan that will be followed after it. Called in another thread.
    """

    def __init__(self, shards: DatasetShards, plan: Plan, next_plan: Callable[[], Plan]) -> None:
        self._shards = shards
        self._plan = plan
        self._next_plan = next_plan
        self._publish(plan)
        self._followers = [cache.plans.follow(plan.signature, plan.num_batches) for cache in shards.caches.values()]
        if plan.world.rank_of_node == 0 and plan.world.worker == 0:
            self._warn()
        # The plan of the next epoch may take long to make, and is not needed yet.
        self._thread = threading.Thread(target=self._look_further, name='streaming-next-plan', daemon=True)
        self._thread.start()

    def advance(self, index: int) -> None:
        """Say that the iterator has come to its batch number ``index``."""
        world = self._plan.world
        position = index * world.num_workers + world.worker
        for follower in self._followers:
            follower.advance(position)

    def close(self) -> None:
        """Follow no more."""
        self._thread.join(5.0)
        for follower in self._followers:
            follower.close()

    def _look_further(self) -> None:
        try:
            plan = self._next_plan()
            self._publish(plan)
        except StreamingError as error:
            # Whatever it is, the next epoch will say so itself.
            logger.debug('the plan of the next epoch could not be made: %s', error)
            return
        for follower in self._followers:
            follower.follow_up(plan.signature)

    def _publish(self, plan: Plan) -> None:
        for stream, cache in self._shards.caches.items():
            cache.plans.publish(plan.signature, partial(self._uses, plan, stream))

    def _uses(self, plan: Plan, stream: int) -> Int64Array:
        uses, (first, end) = plan.shard_uses(), self._shards.shards_of(stream)
        here = (uses.shards >= first) & (uses.shards < end)
        return np.stack([uses.shards[here] - first, uses.first[here], uses.last[here]])

    def _warn(self) -> None:
        """Say what is costly, once a node."""
        limit = self._shards.room.limit_bytes
        uses = self._plan.shard_uses()
        needed = peak_bytes(np.stack([uses.shards, uses.first, uses.last]), self._shards.table.raw_bytes)
        workers = self._plan.world.num_workers * self._plan.world.ranks_per_node
        each = workers * int(self._shards.table.raw_bytes.max(initial=0))
        if limit is not None and limit < max(needed, each):
            warnings.warn(
                f'cache_limit is {limit} bytes ({human_bytes(limit)}), but this order has {human_bytes(needed)} of shards in use '
                f'at once, and the {workers} workers of a node read from {human_bytes(each)}: shards will be fetched more than '
                f'once an epoch. Raise cache_limit to {max(needed, each)} or more, or lower shuffle_block_size, '
                'num_canonical_nodes, the number of workers, or the size of the shards',
                stacklevel=2,
            )
