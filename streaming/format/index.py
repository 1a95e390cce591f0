"""index.json <-> a table of shards."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from streaming.format.columns import extensions_of
from streaming.format.entries import read_entry, read_index
from streaming.format.shard import FORMATS, INDEX_VERSION, FileInfo, ShardInfo

__all__ = ['FORMATS', 'INDEX_VERSION', 'FileInfo', 'Int64Array', 'ShardInfo', 'ShardTable', 'dump_index']

Int64Array = NDArray[np.int64]


def dump_index(shards: Sequence[ShardInfo]) -> bytes:
    """The text of an ``index.json``, byte for byte as mosaicml-streaming writes it.

    Encodings that mosaicml-streaming cannot read are named under ``extensions``.
    """
    index: dict[str, Any] = {'version': INDEX_VERSION, 'shards': [shard.to_json() for shard in shards]}
    extensions = extensions_of({name for shard in shards for name in shard.column_encodings})
    if extensions:
        index['extensions'] = extensions
    return json.dumps(index, sort_keys=True).encode()


class ShardTable(Sequence[ShardInfo]):
    """The shards of a dataset, in order, and where each sample is among them.

    An entry is parsed when it is asked for; until then the table has its text and a few numbers.

    Args:
        shards: The shards.

    Attributes:
        samples: Samples of each shard, int64 (shards,).
        raw_bytes: Bytes of each shard's uncompressed files, int64 (shards,).
        stored_bytes: Bytes of each shard's files in the store, int64 (shards,).
        starts: First sample of each shard, and the end of the last, int64 (shards + 1,).
    """

    def __init__(self, shards: Sequence[ShardInfo]) -> None:
        raw = [sum(file.bytes for file in shard.raw_files) for shard in shards]
        stored = [sum(file.bytes for file in shard.stored) for shard in shards]
        self._fill(list(shards), [shard.samples for shard in shards], raw, stored)

    def _fill(
        self,
        entries: list[ShardInfo | msgspec.Raw],
        samples: ArrayLike,
        raw_bytes: ArrayLike,
        stored_bytes: ArrayLike,
    ) -> None:
        self._entries = entries
        self._source = ''
        self.samples = np.array(samples, np.int64)
        self.raw_bytes = np.array(raw_bytes, np.int64)
        self.stored_bytes = np.array(stored_bytes, np.int64)
        self.starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.samples)])
        self._starts: list[int] = self.starts.tolist()
        # The last samples that `holding` was asked for, and what it said; as one, for there may be several threads.
        self._held: tuple[Int64Array | None, int | None] = (None, None)

    @classmethod
    def from_json(cls, data: bytes, source: str) -> 'ShardTable':
        """Read an ``index.json``.

        Args:
            data: Its bytes.
            source: Its URL or path, for messages.

        Raises:
            FormatError: it is not an index, or says what cannot be.
        """
        found = read_index(data, source)
        table = cls.__new__(cls)
        table._fill([*found.texts], found.samples, found.raw_bytes, found.stored_bytes)
        table._source = source
        return table

    @classmethod
    def concat(cls, tables: Sequence['ShardTable']) -> 'ShardTable':
        """The shards of several tables, one after the other."""
        if len(tables) == 1:
            return tables[0]
        table = cls.__new__(cls)
        numbers = [np.concatenate([getattr(one, name) for one in tables]) for name in ('samples', 'raw_bytes', 'stored_bytes')]
        table._fill([entry for one in tables for entry in one._entries], *numbers)
        table._source = ', '.join(one._source for one in tables)
        return table

    def to_json(self) -> bytes:
        """The text of the ``index.json``."""
        return dump_index(self)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        entry = self._entries[number]
        if isinstance(entry, msgspec.Raw):
            return read_entry(entry, f'{self._source}, shard {number}')
        return entry

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            '_entries': [bytes(entry) if isinstance(entry, msgspec.Raw) else entry for entry in self._entries],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._entries = [msgspec.Raw(entry) if isinstance(entry, bytes) else entry for entry in self._entries]

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return self._starts[-1]

    def locate(self, sample_id: int) -> tuple[int, int]:
        """The shard of a sample, and its number in there.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= sample_id < self._starts[-1]:
            raise IndexError(f'sample {sample_id} of {self._starts[-1]}')
        shard = bisect_right(self._starts, sample_id) - 1
        return shard, sample_id - self._starts[shard]

    def holding(self, sample_ids: Int64Array) -> int | None:
        """The one shard that holds samples (N,); None if there are several, or no samples."""
        asked, found = self._held
        if sample_ids is asked:  # a plan's batch is asked for when its shard is waited for, and when it is read
            return found
        if not len(sample_ids):
            return None
        shard = bisect_right(self._starts, int(sample_ids.min())) - 1
        only = shard if int(sample_ids.max()) < self._starts[shard + 1] else None
        if not sample_ids.flags.writeable:
            self._held = sample_ids, only
        return only

    def find(self, sample_ids: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Shards of samples (N,), and their numbers in there (N,)."""
        shards = np.searchsorted(self.starts, sample_ids, side='right') - 1
        return shards, sample_ids - self.starts[shards]
