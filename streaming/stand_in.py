"""What an epoch goes on with where a shard is bad: samples of another shard, chosen by arithmetic alone.

Number n of a bad shard is replaced by number n, modulo its samples, of the next shard of the same stream that is good; after the
stream's last shard comes its first. So a batch keeps its size, a rank its batches, and which sample stands in depends on which
shards are bad, and not on the world, the worker or the moment at which somebody noticed.
"""

from collections.abc import Callable

from streaming.format.index import Int64Array, ShardTable

__all__ = ['StandIns']


class StandIns:
    """The bad shards of one iteration.

    Args:
        table: The shards of all streams.
        stream_of: Gives the first shard of a shard's stream, and the end of its last.
    """

    def __init__(self, table: ShardTable, stream_of: Callable[[int], tuple[int, int]]) -> None:
        self._table = table
        self._stream_of = stream_of
        self._bad: dict[int, int | None] = {}

    def add(self, shard: int) -> bool:
        """Note that a shard is bad; False if the stream has no good one."""
        self._bad[shard] = None
        for bad in self._bad:
            self._bad[bad] = self._next_good(bad)
        return self._bad[shard] is not None

    def replace(self, sample_ids: Int64Array) -> Int64Array:
        """The samples to be read instead of some, int64 (samples,)."""
        if not self._bad:
            return sample_ids
        shards, numbers = self._table.find(sample_ids)
        ids: Int64Array = sample_ids.copy()
        for bad, good in self._bad.items():
            hit = shards == bad
            if good is not None and hit.any():
                ids[hit] = self._table.starts[good] + numbers[hit] % self._table.samples[good]
        return ids

    def _next_good(self, shard: int) -> int | None:
        first, end = self._stream_of(shard)
        others = [*range(shard + 1, end), *range(first, shard)]
        return next((other for other in others if other not in self._bad and self._table.samples[other]), None)
