"""Samples by their number in a dataset, over the shards that hold them."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.format.index import Int64Array, ShardTable
from streaming.readers.gather import Column, Empty, gather
from streaming.readers.mds import MDSReader
from streaming.readers.pool import ReaderPool

__all__ = ['Run', 'SampleReader']

# Samples whose shards are looked at together.
_TOGETHER = 1024

# The most that is gathered before it is asked for. More would only drive what is asked for out of the caches of a core.
_TOGETHER_BYTES = 256 << 10

# Shards that are kept open beside the pool's, while samples of them are read one after the other.
_APART = 128

# Samples a shard that pay for looking at a shard's columns at once; where samples are long, it saves a copy of them.
_FEW, _FEW_LONG = 5, 2
_LONG = 512

# Runs of fewer bytes, or of more, are gathered by whoever is asked for them: it takes no time, or so much that others should not
# have to do it.
_LEAST_RUN_BYTES, _MOST_RUN_BYTES = 32 << 10, 16 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """Samples that lie one after the other, instead of their columns: for another process, which has the same files.

    Args:
        first: The id of the first one.
        count: How many.
        is_real: Which of them are not padding, bool (count,). Default: None, nobody asks.
    """

    first: int
    count: int
    is_real: NDArray[np.bool_] | None = None

    @property
    def sample_ids(self) -> Int64Array:
        """Their ids, (count,)."""
        return np.arange(self.first, self.first + self.count)


class SampleReader:
    """Reads samples by their ids, which count through all shards. Any thread may read.

    Args:
        table: The shards.
        readers: Opens them.
    """

    def __init__(self, table: ShardTable, readers: ReaderPool) -> None:
        self._table = table
        self._starts: Sequence[int] = table.starts.tolist()
        self._get = readers.get
        self._mean_bytes = max(1.0, float(table.raw_bytes.sum()) / max(1, table.num_samples))

    def read(self, sample_id: int) -> dict[str, Any]:
        """One sample. The id must be one of the dataset's."""
        shard = bisect_right(self._starts, sample_id) - 1
        return self._get(shard).read(sample_id - self._starts[shard])

    def read_many(self, sample_ids: Int64Array) -> Iterator[dict[str, Any]]:
        """Samples in the order of their ids (N,), which must be of the dataset, each decoded when it is taken."""
        shards, numbers = self._table.find(sample_ids)
        if len(shards) and (shards == shards[0]).all():
            return self._get(int(shards[0])).read_each(numbers)
        parts = [slice(first, first + _TOGETHER) for first in range(0, len(shards), _TOGETHER)]
        return chain.from_iterable(self._read_some(shards[part], numbers[part]) for part in parts)

    def run(self, sample_ids: Int64Array) -> Run | None:
        """The samples (N,), which must be of the dataset, as a run, with their bytes in memory.

        None where whoever reads them has more to do than to copy: where they do not lie one after the other, in the file of
        one shard, which may not go, or where values are not copied but decoded. Also where they are few bytes, or very many.
        """
        only = self._table.holding(sample_ids)
        count = len(sample_ids)
        if only is None or not _LEAST_RUN_BYTES <= count * self._mean_bytes <= _MOST_RUN_BYTES:
            return None
        first = int(sample_ids[0])
        if int(sample_ids[-1]) - first != count - 1 or (sample_ids[1:] - sample_ids[:-1] != 1).any():
            return None
        reader = self._get(only)
        number = first - self._starts[only]
        is_run = type(reader) is MDSReader and not reader.owned_bytes and reader.bring_to_memory(number, count)
        return Run(first, count) if is_run else None

    def run_columns(self, run: Run, empty: Empty = np.empty) -> dict[str, Column] | None:
        """What `columns` gives of a run."""
        shard = bisect_right(self._starts, run.first) - 1
        reader = self._get(shard)
        columns = reader.run_columns(run.first - self._starts[shard], run.count, empty) if type(reader) is MDSReader else None
        return columns or self.columns(run.sample_ids, empty)

    def columns(self, sample_ids: Int64Array, empty: Empty = np.empty) -> dict[str, Column] | None:
        """The columns of samples in the order of their ids (N,), which must be of the dataset.

        Args:
            sample_ids: Their ids.
            empty: Makes arrays for the columns of long arrays. Default: numpy.empty.

        Returns:
            By name, in the order of a sample's: numbers (N,), arrays of one dtype and shape (N, ...), or a list of values. None
            where the samples have to be read one by one: where one is broken, where they lie in so many shards that it is faster,
            or where these have not the same columns.
        """
        places = None
        only = self._table.holding(sample_ids)
        if only is not None:
            found, parts = [only], [sample_ids - self._starts[only]]
        else:
            found, parts, places = _by_shard(*self._table.find(sample_ids))
            if len(found) * (_FEW_LONG if self._mean_bytes >= _LONG else _FEW) > len(sample_ids):
                return None
        with ExitStack() as leases:
            whole = []
            for shard, numbers in zip(found, parts, strict=True):
                mapped = self._get(shard).mapped(leases, numbers)
                if mapped is None:
                    return None
                whole.append(mapped)
            return gather(whole, parts, places, empty)

    def batches(
        self, sample_ids: Int64Array, size: int, empty: Empty = np.empty, *, runs: bool = False
    ) -> Iterator[dict[str, Column] | Run | None]:
        """What `columns` gives of each batch of ``size`` samples; the last may be smaller. Small ones are gathered together.

        With ``runs`` what `run` gives, where it gives one.
        """
        if runs and _LEAST_RUN_BYTES <= size * self._mean_bytes <= _MOST_RUN_BYTES:
            for first in range(0, len(sample_ids), size):
                batch = sample_ids[first : first + size]
                yield self.run(batch) or self.columns(batch, empty)
            return
        together = size * max(1, min(_TOGETHER, int(_TOGETHER_BYTES / self._mean_bytes)) // size)
        for first in range(0, len(sample_ids), together):
            ids = sample_ids[first : first + together]
            parts = [slice(at, at + size) for at in range(0, len(ids), size)]
            columns = self.columns(ids) if len(parts) > 1 else None
            for part in parts:
                yield (
                    self.columns(ids[part], empty)
                    if columns is None
                    else {name: column[part].copy() for name, column in columns.items()}
                )

    def _read_some(self, shards: Int64Array, numbers: Int64Array) -> Iterator[dict[str, Any]]:
        found, parts, places = _by_shard(shards, numbers)
        if len(found) * _FEW > len(shards):
            pieces = [slice(first, first + _APART) for first in range(0, len(shards), _APART)]
            return chain.from_iterable(self._read_apart(shards[piece], numbers[piece]) for piece in pieces)
        if (places[1:] > places[:-1]).all():
            return chain.from_iterable(self._get(shard).read_each(part) for shard, part in zip(found, parts, strict=True))
        # Each shard's samples come from an iterator of its own, which is asked whenever it is the shard's turn.
        samples = {shard: self._get(shard).read_each(part) for shard, part in zip(found, parts, strict=True)}
        return map(next, map(samples.__getitem__, shards.tolist()))

    def _read_apart(self, shards: Int64Array, numbers: Int64Array) -> Iterator[dict[str, Any]]:
        of_each = shards.tolist()
        reads = {shard: self._get(shard).read for shard in dict.fromkeys(of_each)}
        return (reads[shard](number) for shard, number in zip(of_each, numbers.tolist(), strict=True))


def _by_shard(shards: Int64Array, numbers: Int64Array) -> tuple[list[int], list[Int64Array], Int64Array]:
    """The shards of some samples (N,), each once, the numbers of its samples, and in what order these are then, (N,)."""
    places = np.argsort(shards, kind='stable')
    in_order, numbers = shards[places], numbers[places]
    firsts = [0, *(np.flatnonzero(in_order[1:] != in_order[:-1]) + 1).tolist()]
    return in_order[firsts].tolist(), [numbers[first:end] for first, end in pairwise([*firsts, len(numbers)])], places
