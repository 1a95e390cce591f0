"""A dataset in a store, looked at without a cache: its index, and samples by range where their shard is not compressed."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from streaming.cache.fetch import FetchPolicy, ShardFetch
from streaming.cache.folder import INDEX_NAME
from streaming.cache.ranged import ObjectRanges
from streaming.errors import FormatError, NotFoundError
from streaming.format.index import Int64Array, ShardInfo, ShardTable
from streaming.readers import Reader, open_shard
from streaming.readers.decoding import sample_decoder
from streaming.store import open_store
from streaming.store.protocol import Store

__all__ = ['DatasetSource']

# Bytes of samples that are asked for in one request.
_RANGE_BYTES = 8 << 20
# An index of ten million shards is about 6 GB; more is not an index.
_INDEX_LIMIT_BYTES = 8 << 30


class DatasetSource:
    """A dataset where it lies. As a context manager it gives back its connections.

    Args:
        url: A path or a URL of the dataset's root.
        store: The store itself, instead of one opened from ``url``. Default: None.

    Attributes:
        store: Where it lies.
        url: Its root, without secrets.
        index: The bytes of its index.
        table: Its shards.

    Raises:
        NotFoundError: there is no dataset.
        FormatError: its index is not one.
    """

    def __init__(self, url: str | Path, store: Store | None = None) -> None:
        self.store = open_store(str(url)) if store is None else store
        self.url = self.store.url
        try:
            self.index = self.store.get(INDEX_NAME, limit_bytes=_INDEX_LIMIT_BYTES)
            self.table = ShardTable.from_json(self.index, self.store.url_of(INDEX_NAME))
        except NotFoundError as error:
            self.store.close()
            raise NotFoundError(
                f'{self.store.url_of(INDEX_NAME)} does not exist: this is no dataset, or it is not finished (its index is '
                f'written last), or its splits are folders below. The store says: {error}'
            ) from error
        except BaseException:
            self.store.close()
            raise

    @property
    def index_sha256(self) -> str:
        """What tells this version of the dataset from others, in hex."""
        return hashlib.sha256(self.index).hexdigest()

    def samples(
        self,
        start: int,
        stop: int,
        *,
        columns: Sequence[str] | None = None,
        allow_unsafe_types: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Samples ``start`` to ``stop``, in order.

        A part of a shard that is not compressed is read by range and held against nothing but its format; whole and compressed
        shards are fetched to a temporary folder, one at a time, and verified.

        Args:
            start: The first one, 0-based.
            stop: The end, exclusive; at most as many as there are.
            columns: Decode only these. Default: None, all.
            allow_unsafe_types: Whether columns that run code when read (``pkl``) may be read. Default: False.

        Raises:
            ArgumentError: there is no such column, or reading it is not allowed.
            FormatError: a shard is not what the index or its format says.
            StoreError: the store failed.
        """
        while start < stop:
            number, first = self.table.locate(start)
            shard = self.table[number]
            last = min(shard.samples, first + stop - start)
            if shard.compression is None and last - first < shard.samples:
                yield from self._read_ranges(shard, first, last, columns, allow_unsafe_types)
            else:
                reader = self._fetch(shard, columns, allow_unsafe_types)
                for sample in range(first, last):
                    yield reader[sample]
            start += last - first

    def _fetch(self, shard: ShardInfo, columns: Sequence[str] | None, allow_unsafe_types: bool) -> Reader:
        """Open a shard that lies nowhere any more: what is mapped needs no name."""
        with tempfile.TemporaryDirectory(prefix='streaming-') as name:
            folder = Path(name)
            ShardFetch(self.store, shard, folder, folder / '.part', FetchPolicy(), _nothing).run()
            return open_shard(folder, shard, columns=columns, allow_unsafe_types=allow_unsafe_types)

    def _read_ranges(
        self, shard: ShardInfo, first: int, last: int, columns: Sequence[str] | None, allow_unsafe_types: bool
    ) -> Iterator[dict[str, Any]]:
        url = self.store.url_of(shard.raw_data.basename)
        decode = sample_decoder(shard, url, columns=columns, allow_unsafe_types=allow_unsafe_types)
        offsets = self._read_offsets(shard, first, last)
        ranges = ObjectRanges(self.store, shard.raw_data, _nothing)
        for begin, end in _pieces(offsets, _RANGE_BYTES):
            base = int(offsets[begin])
            data = _read(ranges, base, int(offsets[end]) - base)
            for number in range(begin, end):
                try:
                    yield decode(data[int(offsets[number]) - base : int(offsets[number + 1]) - base])
                except FormatError as error:
                    raise type(error)(f'{url}, sample {first + number}: {error}') from error

    def _read_offsets(self, shard: ShardInfo, first: int, last: int) -> Int64Array:
        """Where samples lie in their data file, int64 (last - first + 1,)."""
        file = shard.raw_files[-1]
        data = _read(ObjectRanges(self.store, file, _nothing), 4 + 4 * first, 4 * (last - first + 1))
        offsets = np.frombuffer(data, '<u4').astype(np.int64)
        if bool((offsets[1:] < offsets[:-1]).any()) or int(offsets[-1]) > shard.raw_data.bytes:
            raise FormatError(
                f'{self.store.url_of(file.basename)}: offsets {first} to {last} are {offsets[0]} to {offsets[-1]}, and not '
                f'always upward; the data file has {shard.raw_data.bytes} bytes'
            )
        return offsets

    def close(self) -> None:
        """Give back connections."""
        self.store.close()

    def __enter__(self) -> 'DatasetSource':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _nothing(count: int) -> None:
    pass


def _read(ranges: ObjectRanges, start: int, size: int) -> memoryview:
    buffer = memoryview(bytearray(size))
    if size:
        ranges.read(start, buffer)
    return buffer


def _pieces(offsets: Int64Array, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Runs of samples of at most so many bytes together, or of one sample."""
    begin, samples = 0, len(offsets) - 1
    while begin < samples:
        fitting = int(np.searchsorted(offsets, offsets[begin] + most_bytes, side='right')) - 1
        end = min(samples, max(begin + 1, fitting))
        yield begin, end
        begin = end
