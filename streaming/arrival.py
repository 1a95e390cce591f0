"""What stands between the samples of a batch and their shards being here: the walk ahead, and the first batches by range."""

from streaming.early import EarlyReads
from streaming.format.index import Int64Array
from streaming.prefetch import Prefetcher
from streaming.shards import DatasetShards

__all__ = ['Arrivals']


class Arrivals:
    """Has the shards of one iterator here when they are read.

    Args:
        shards: The dataset's.
        prefetcher: Walks ahead of the iterator. Closed with this.
        processes: How many processes of this node iterate the dataset.
        timeout_s: Seconds without a byte after which a wait is an error.
    """

    def __init__(self, shards: DatasetShards, prefetcher: Prefetcher, processes: int, timeout_s: float) -> None:
        self._shards = shards
        self._prefetcher = prefetcher
        self._early = EarlyReads(shards, prefetcher, processes, timeout_s)

    def prepare(self, index: int, sample_ids: Int64Array) -> None:
        """Return once the samples of the iterator's batch number ``index`` can be read.

        Raises:
            DeadlineError: no byte came for ``timeout_s``.
            Exception: what a shard's fetch failed with.
        """
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
