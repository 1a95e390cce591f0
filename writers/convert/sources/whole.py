"""Sources whose records are whole files: many at a time are one range, and many at a time are read from a store."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from streaming.errors import StoreError
from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files, InputFile

__all__ = ['WholeFileSource']

T = TypeVar('T')
R = TypeVar('R')

_PARALLEL = 32
_BATCH_FILES = 256
_BATCH_BYTES = 8 << 20
# A range goes to its reader with the names of its files.
_MOST_FILES = 4096


class WholeFileSource(Source):
    """Files of which each is a record.

    Args:
        files: Where they lie.
        suffixes: What their names end in.

    Raises:
        NotFoundError: there is no such file.
    """

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        self._files = files
        self._chosen = files.select(suffixes)
        self.url = files.url

    @abstractmethod
    def record(self, key: str, data: bytes, about: Any) -> Mapping[str, Any] | BadRecord:
        """The record of a file.

        Args:
            key: The file's.
            data: What it holds.
            about: What `about` said of it.
        """

    def about(self, file: InputFile) -> Any:
        """What is known of a file by its name. Default: nothing."""
        return None

    def split_of(self, file: InputFile) -> str:
        """The sub-folder of the output that a file's record belongs to. Default: none."""
        return ''

    def describe(self) -> Mapping[str, Any]:
        return self._files.describe()

    def total_bytes(self) -> int:
        return self._files.total_bytes()

    def ranges(self, part_bytes: int) -> list[Range]:
        found: list[Range] = []
        group: list[InputFile] = []
        size = 0
        for file in sorted(self._chosen, key=self.split_of):
            is_other = bool(group) and (file.place != group[0].place or self.split_of(file) != self.split_of(group[0]))
            if group and (is_other or size + file.size > part_bytes or len(group) == _MOST_FILES):
                found.append(self._range(group))
                group, size = [], 0
            group.append(file)
            size += file.size
        return [*found, self._range(group)]

    def _range(self, group: Sequence[InputFile]) -> Range:
        return Range(
            place=group[0].place,
            key=group[0].key,
            bytes=sum(file.size for file in group),
            records=len(group),
            split=self.split_of(group[0]),
            extra=tuple((file.key, file.size, self.about(file)) for file in group),
        )

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        # A disk of this machine answers sooner than a thread is asked.
        parallel = 1 if self._files.path(piece.place, piece.key) is not None else _PARALLEL
        names: list[str] = []
        records: list[Any] = []
        size = 0
        for (key, length, _), record in zip(
            piece.extra, _map(lambda item: self._read(piece, item), piece.extra, parallel), strict=True
        ):
            names.append(self._files.name(piece.place, key))
            records.append(record)
            size += length
            if len(records) == _BATCH_FILES or size > _BATCH_BYTES:
                yield Batch(records, names.__getitem__, size)
                names, records, size = [], [], 0
        if records:
            yield Batch(records, names.__getitem__, size)

    def _read(self, piece: Range, item: tuple[str, int, Any]) -> Mapping[str, Any] | BadRecord:
        key, size, about = item
        try:
            return self.record(key, self._files.read(piece.place, key, size), about)
        except StoreError:
            raise
        except ValueError as error:
            return BadRecord(str(error))

    def close(self) -> None:
        self._files.close()

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, '_chosen': []}


def _map(function: Callable[[T], R], items: Iterable[T], parallel: int) -> Iterator[R]:
    """What a function gives for each item, in order, a few ahead of whoever takes them."""
    if parallel == 1:
        yield from map(function, items)
        return
    left = iter(items)
    pool = ThreadPoolExecutor(parallel, thread_name_prefix='streaming-files')
    try:
        pending: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(left, parallel))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(left, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
