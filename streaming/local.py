"""LocalDataset: random access to a dataset in a folder, without torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streaming.errors import NotFoundError
from streaming.format.index import ShardTable
from streaming.indexing import resolve
from streaming.readers import Reader, open_shard
from streaming.readers.pool import ReaderPool

__all__ = ['LocalDataset']

_OPEN_SHARDS = 1024


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
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(
                f'{path} does not exist: wrong folder or split, or the dataset is not finished (its index is written last)'
            ) from error
        self._table = ShardTable.from_json(data, str(path))
        self._readers = ReaderPool(self._open, _OPEN_SHARDS)

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

    def __getitem__(self, index: Any) -> Any:
        """The sample, or the list of samples, at an int, negative int, slice, list or array of ints."""
        return resolve(index, self._table.num_samples, self._read)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for shard in range(len(self._table)):
            reader = self._readers.get(shard)
            for number in range(len(reader)):
                yield reader[number]

    def _read(self, sample_id: int) -> dict[str, Any]:
        shard, number = self._table.locate(sample_id)
        return self._readers.get(shard)[number]

    def _open(self, shard: int) -> Reader:
        return open_shard(self._folder, self._table[shard], columns=self._columns, allow_unsafe_types=self.allow_unsafe_types)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != '_readers'}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._readers = ReaderPool(self._open, _OPEN_SHARDS)
