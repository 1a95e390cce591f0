"""LocalDataset: random access to a dataset in a folder, without torch."""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from streaming.errors import NotFoundError
from streaming.files import open_file
from streaming.format.index import ShardTable
from streaming.indexing import resolve
from streaming.readers import Reader, open_shard
from streaming.readers.pool import ReaderPool
from streaming.readers.samples import SampleReader

__all__ = ['LocalDataset']

_OPEN_SHARDS = 1024

# Samples whose places are looked up at once while iterating.
_TOGETHER = 1024


class LocalDataset:
    """A dataset in a folder, read where it lies and never changed. Works as a map-style dataset of torch.

    Args:
        local: The folder.
        split: Sub-folder of it. Default: None.
        columns: Decode only these. Default: None, all.
        allow_unsafe_types: Whether columns that run code when read (``pkl``) may be read. Default: False.

    Raises:
        NotFoundError: there is no dataset.
        FormatError: its index is not one.
    """

    def __init__(
        self,
        local: str | Path,
        split: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        allow_unsafe_types: bool = False,
    ) -> None:
        self.local = str(local)
        self.split = split
        self.allow_unsafe_types = allow_unsafe_types
        self._columns = None if columns is None else list(columns)
        self._folder = Path(local).expanduser() / (split or '')
        path = self._folder / 'index.json'
        try:
            with open_file(path) as file:
                data = file.readall()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(
                f'{path} does not exist: wrong folder or split, or the dataset is not finished (its index is written last)'
            ) from error
        self._table = ShardTable.from_json(data, str(path))
        self._open_none()

    @property
    def num_samples(self) -> int:
        """How many samples it has."""
        return self._table.num_samples

    @property
    def size(self) -> int:
        """How many samples it has."""
        return self._table.num_samples

    def __len__(self) -> int:
        return self._table.num_samples

    def __getitem__(self, at: Any) -> Any:
        """The sample, or the list of samples, at an int, negative int, slice, list or array of ints."""
        if type(at) is int and 0 <= at < self._size:
            return self._read(at)
        return resolve(at, self._size, self._read, self._read_many)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The samples at a list of ints, as torch's DataLoader asks for a batch."""
        samples: list[dict[str, Any]] = self[np.fromiter(map(index, indices), np.int64, len(indices))]
        return samples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        blocks = range(0, self._size, _TOGETHER)
        return chain.from_iterable(self._read_many(np.arange(first, min(first + _TOGETHER, self._size))) for first in blocks)

    def _open(self, shard: int) -> Reader:
        return open_shard(self._folder, self._table[shard], columns=self._columns, allow_unsafe_types=self.allow_unsafe_types)

    def _open_none(self) -> None:
        self._readers = ReaderPool(self._open, _OPEN_SHARDS)
        samples = SampleReader(self._table, self._readers)
        self._size = self._table.num_samples
        self._read, self._read_many = samples.read, samples.read_many

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ('_readers', '_read', '_read_many')}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_none()
