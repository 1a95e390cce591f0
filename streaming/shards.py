"""All shards of a dataset's streams as one row, and the samples in them as one."""

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.cache.arrays import SharedArrays
from streaming.cache.folder import default_cache_path
from streaming.cache.leased import LeasedReader
from streaming.cache.ledger import CacheCounters
from streaming.cache.room import Room
from streaming.cache.shards import Tried
from streaming.errors import CorruptError
from streaming.format.index import ShardTable
from streaming.readers import Reader
from streaming.readers.mds import MDSReader
from streaming.readers.pool import ReaderPool
from streaming.readers.ranged import RangedReader
from streaming.readers.samples import SampleReader
from streaming.stream import OpenStream

__all__ = ['DatasetShards']

# Maps of shards that a process keeps open: each costs a descriptor and page tables, not memory.
_OPEN_SHARDS = 256


class DatasetShards:
    """The shards of streams that were opened, numbered through: stream after stream, in index order.

    Args:
        streams: The open streams.
        columns: The columns to decode. None: all.
        allow_unsafe_types: Whether columns that run code when read (``pkl``) may be read.
        limit_bytes: The most that may lie in the cache folders, all together. Default: None, no limit.
        timeout_s: Seconds without any change after which a wait for room is an error. Default: 60.

    Attributes:
        num_samples: Samples of all streams.
        read: See `SampleReader.read`. It brings a shard that is not here.
        read_many: See `SampleReader.read_many`; likewise.
        columns: See `SampleReader.columns`; likewise.
        batches: See `SampleReader.batches`; likewise.
        run: See `SampleReader.run`; likewise.
        run_columns: See `SampleReader.run_columns`; likewise.

    Raises:
        ArgumentError: no shard fits into the limit.
    """

    def __init__(
        self,
        streams: Sequence[OpenStream],
        columns: list[str] | None,
        allow_unsafe_types: bool,
        *,
        limit_bytes: int | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._streams = list(streams)
        self._columns = columns
        self._allow_unsafe_types = allow_unsafe_types
        self.table = ShardTable.concat([stream.table for stream in streams])
        self._first_shard = np.cumsum([0, *(len(stream.table) for stream in streams)])
        self.caches = {number: stream.cache for number, stream in enumerate(streams) if stream.cache is not None}
        self.room = Room(list(self.caches.values()), limit_bytes, timeout_s)
        for cache in self.caches.values():
            cache.room = self.room
        self.room.check()
        self.room.trim()
        self._readers = ReaderPool(self._open, _OPEN_SHARDS)
        samples = SampleReader(self.table, self._readers)
        self.num_samples = self.table.num_samples
        self.read, self.read_many = samples.read, samples.read_many
        self.columns, self.batches = samples.columns, samples.batches
        self.run, self.run_columns = samples.run, samples.run_columns
        _open.add(self)

    @property
    def samples_by_stream(self) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """Samples of each shard, an array a stream."""
        return [stream.table.samples for stream in self._streams]

    def shards_of(self, stream: int) -> tuple[int, int]:
        """The first shard of a stream, and the first that is not its own any more."""
        return int(self._first_shard[stream]), int(self._first_shard[stream + 1])

    @property
    def index_hashes(self) -> list[str]:
        """The index hash of each stream."""
        return [stream.index_hash for stream in self._streams]

    @property
    def arrays(self) -> SharedArrays:
        """Where arrays of the epoch's length lie: in the first cache folder, or this user's cache if all folders are sources."""
        for stream in self._streams:
            if stream.cache is not None:
                return SharedArrays(stream.cache.hidden / 'arrays', make_room=self.room.trim)
        return SharedArrays(default_cache_path(self._streams[0].source, self._streams[0].index_hash) / 'arrays')

    @property
    def is_remote(self) -> bool:
        """Whether any shard may have to be fetched."""
        return any(stream.cache is not None for stream in self._streams)

    def first_uses(self, sample_ids: NDArray[np.int64]) -> list[int]:
        """The shards of some samples, each once, in the order of their first sample."""
        only = self.table.holding(sample_ids)
        if only is not None:
            return [only]
        shards, _ = self.table.find(sample_ids)
        return list(dict.fromkeys(shards.tolist()))

    def ensure(self, shard: int, check_cancelled: Callable[[], None] = lambda: None) -> None:
        """Return once the shard is here, fetching it or waiting for whoever does."""
        stream, number = self._find(shard)
        if stream.cache is not None:
            stream.cache.ensure(number, check_cancelled)

    def try_fetch(self, shard: int, check_cancelled: Callable[[], None]) -> Tried:
        """Fetch the shard, unless it is here, or somebody is at it already, or all that is here is needed sooner."""
        stream, number = self._find(shard)
        return Tried.HERE if stream.cache is None else stream.cache.try_fetch(number, check_cancelled)

    def is_here(self, shard: int) -> bool:
        """Whether the shard can be opened now."""
        stream, number = self._find(shard)
        return stream.is_here(number)

    def read_in_parts(self, shard: int, check_cancelled: Callable[[], None]) -> RangedReader | None:
        """Have `read` take the shard's samples from parts of it, until `read_whole`; None where it cannot be read in parts."""
        stream, number = self._find(shard)
        ranges = stream.ranges_of(number, check_cancelled)
        if ranges is None:
            return None
        reader = RangedReader(
            stream.table[number],
            self.describe(shard),
            ranges.read,
            lambda: self._open(shard),
            columns=self._columns,
            allow_unsafe_types=self._allow_unsafe_types,
        )
        self._readers.put(shard, reader)
        return reader

    def read_whole(self, shard: int, parts: RangedReader) -> None:
        """Have `read` take the shard's samples from its file again, which is here.

        Raises:
            CorruptError: what was read in parts is not what the verified file holds.
        """
        self._readers.drop(shard, parts)
        whole = self._readers.get(shard)
        with whole.borrowed() if isinstance(whole, LeasedReader) else nullcontext(whole) as reader:
            agrees = not isinstance(reader, MDSReader) or parts.agrees_with(reader.data)
        if not agrees:
            raise CorruptError(
                f'{self.describe(shard)}: samples that were read by range, while the shard was being fetched, are not those of '
                'the shard, whose length and hash are right; set validate_hash= to read no sample before its shard is verified'
            )

    def forget_parts(self, shard: int, parts: RangedReader) -> None:
        """Have `read` take the shard's samples from its file again, once it is asked for one."""
        self._readers.drop(shard, parts)

    def check_opens(self, shard: int) -> None:
        """Open a shard that is here.

        Raises:
            FormatError: it is not what the index says.
        """
        reader = self._readers.get(shard)
        if isinstance(reader, LeasedReader):
            with reader.borrowed():
                pass

    def stream_of(self, shard: int) -> tuple[int, int]:
        """The first shard of a shard's stream, and the end of its last."""
        return self.shards_of(int(np.searchsorted(self._first_shard, shard, side='right')) - 1)

    def count_replaced(self, sample_ids: NDArray[np.int64]) -> None:
        """Count samples for which others stood in, because their shards are bad."""
        shards, counts = np.unique(self.table.find(sample_ids)[0], return_counts=True)
        for shard, count in zip(shards.tolist(), counts.tolist(), strict=True):
            stream, _ = self._find(shard)
            if stream.cache is not None:
                stream.cache.ledger.add(replaced_samples=count)

    def count_wait(self, seconds: float) -> None:
        """Count time that a reader waited for shards, if it is worth it."""
        milliseconds = round(seconds * 1000)
        if milliseconds and self.caches:
            next(iter(self.caches.values())).ledger.add(waited_ms=milliseconds)

    def describe(self, shard: int) -> str:
        """The shard's name, for messages."""
        stream, number = self._find(shard)
        return f'{stream.table[number].raw_data.basename} of {stream.source}'

    def counters(self) -> dict[Path, CacheCounters]:
        """What has been fetched into each cache folder, by all processes."""
        return {stream.folder: stream.cache.counters() for stream in self._streams if stream.cache is not None}

    def cached_bytes(self) -> int:
        """Bytes of the shards' files that lie in the cache folders."""
        return sum(stream.cached_bytes() for stream in self._streams)

    def break_off(self) -> None:
        """Break off whatever threads of this process read from the stores. The stores may be used again."""
        for cache in self.caches.values():
            cache.break_off()

    def close(self) -> None:
        """Unmap the shards and give back the descriptors. Stores are closed too; they open again if asked."""
        self._readers.close()
        for stream in self._streams:
            if stream.cache is not None:
                stream.cache.close()

    def _find(self, shard: int) -> tuple[OpenStream, int]:
        """The shard's stream, and its number there."""
        number = int(np.searchsorted(self._first_shard, shard, side='right')) - 1
        return self._streams[number], shard - int(self._first_shard[number])

    def _open(self, shard: int) -> Reader:
        stream, number = self._find(shard)

        def open_shard() -> Reader:
            return stream.open_shard(number, columns=self._columns, allow_unsafe_types=self._allow_unsafe_types)

        if stream.cache is None:
            return open_shard()
        if self.room.is_tight:
            return LeasedReader(stream.cache, number, int(stream.table.samples[number]), open_shard)
        # Nothing is evicted by us, but perhaps by another job: as long as the shard is open, it must stay.
        lease = stream.cache.hold(number)
        try:
            reader = open_shard()
        except BaseException:  # Ctrl-C too gives the lease back
            lease.release()
            raise
        if reader.data.nbytes:
            # The map, and not the reader: what a reader gives out to read by outlives it.
            weakref.finalize(reader.data.obj, lease.release).atexit = False
        else:
            lease.release()
        return reader


_open: 'weakref.WeakSet[DatasetShards]' = weakref.WeakSet()


def _drop_inherited() -> None:
    """In a forked process: leases are the parent's, so what is mapped under them may be evicted; open it again."""
    for shards in list(_open):
        shards._readers.renew()


os.register_at_fork(after_in_child=_drop_inherited)
