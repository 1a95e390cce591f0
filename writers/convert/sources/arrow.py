"""Arrow IPC files and streams (Feather is one): ranges of record batches."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from streaming.errors import FormatError
from streaming.writers.convert.sources.arrow_values import columns_of, load_arrow, schema_encodings
from streaming.writers.convert.sources.base import Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files, InputFile

__all__ = ['ArrowSource']

_MAGIC = b'ARROW1'
# Rows that become samples at a time.
_ROWS = 1024


class ArrowSource(Source):
    """Arrow files.

    Files of this machine are mapped and cut at their record batches; one of another store is one range.

    Args:
        files: Where they lie.
        suffixes: What their names end in.

    Raises:
        MissingExtraError: pyarrow is not installed.
        NotFoundError: there is no such file.
        FormatError: a file is none, or has other columns than the first.
    """

    name = 'arrow'

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        load_arrow()
        self._files = files
        found = files.select(suffixes)
        self.url = files.url
        self._batches = [self._look_at(file) for file in found]
        first = self._schema_of(found[0])
        for file in found:
            names = self._schema_of(file).names
            if sorted(names) != sorted(first.names):
                raise FormatError(
                    f'{files.name(file.place, file.key)} has the columns {", ".join(sorted(names))}, '
                    f'{files.name(found[0].place, found[0].key)} has {", ".join(sorted(first.names))}'
                )
        self._encodings = schema_encodings(first, self._peek)
        self._encodings.update(dict.fromkeys({name for _, lacking in self._batches for name in lacking}, 'json'))

    def split_of(self, file: InputFile) -> str:
        """The sub-folder of the output that a file's records belong to. Default: none."""
        return ''

    def _open(self, place: int, key: str) -> Any:
        """The batches of a file, as an iterable that knows its schema."""
        arrow = load_arrow()
        path = self._files.path(place, key)
        try:
            file = self._files.open(place, key) if path is None else arrow.memory_map(str(path))
            start = file.read(len(_MAGIC))
            file.seek(0)
            return _FileBatches(arrow.ipc.open_file(file)) if start == _MAGIC else arrow.ipc.open_stream(file)
        except (arrow.ArrowException, OSError) as error:
            raise FormatError(f'{self._files.name(place, key)} is no Arrow file, or only a part of one: {error}') from error

    def _schema_of(self, file: InputFile) -> Any:
        return self._open(file.place, file.key).schema

    def _look_at(self, file: InputFile) -> tuple[list[int], set[str]]:
        """Rows of each batch of a mapped file, and the columns in which values are missing; of another, nothing is known."""
        if self._files.path(file.place, file.key) is None:
            return [], set()
        rows: list[int] = []
        lacking: set[str] = set()
        for batch in self._all(file.place, file.key):
            rows.append(len(batch))
            lacking.update(name for name, column in zip(batch.schema.names, batch.columns, strict=True) if column.null_count)
        return rows, lacking

    def _all(self, place: int, key: str) -> Iterator[Any]:
        arrow = load_arrow()
        try:
            yield from self._open(place, key)
        except (arrow.ArrowException, OSError) as error:
            raise FormatError(f'{self._files.name(place, key)} cannot be read: {error}') from error

    def _peek(self, column: str) -> Any:
        """The first value of a column that is there; None if there is none."""
        for file in self._files.find():
            for batch in self._all(file.place, file.key):
                for value in batch.column(batch.schema.names.index(column)):
                    if value.is_valid:
                        return value.as_py()
        return None

    def describe(self) -> Mapping[str, Any]:
        return self._files.describe()

    def encodings(self) -> dict[str, str]:
        return dict(self._encodings)

    def total_bytes(self) -> int:
        return self._files.total_bytes()

    def ranges(self, part_bytes: int) -> list[Range]:
        found = []
        for file, (rows, _) in zip(self._files.find(), self._batches, strict=True):
            split = self.split_of(file)
            if not rows:
                found.append(Range(place=file.place, key=file.key, bytes=file.size, split=split))
                continue
            count = max(1, min(len(rows), round(file.size / max(1, part_bytes))))
            for start, end in pairwise(len(rows) * number // count for number in range(count + 1)):
                found.append(
                    Range(
                        place=file.place,
                        key=file.key,
                        start=start,
                        end=end,
                        bytes=file.size * (end - start) // len(rows),
                        records=sum(rows[start:end]),
                        split=split,
                        extra=sum(rows[:start]),
                    )
                )
        return found

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        name = self._files.name(piece.place, piece.key)
        row = piece.extra or 0
        row_bytes = piece.bytes / max(1, piece.records or 0) if piece.records else 0.0
        for number, batch in enumerate(self._all(piece.place, piece.key)):
            if number < piece.start:
                continue
            if piece.end is not None and number >= piece.end:
                return
            kept = [
                index for index, column in enumerate(batch.schema.names) if wanted.columns is None or column in wanted.columns
            ]
            chosen = batch.select(kept)
            for start in range(0, len(chosen), _ROWS):
                rows = chosen.slice(start, _ROWS)
                first = row + start
                size = round(len(rows) * row_bytes) if row_bytes else rows.nbytes
                yield Batch(None, lambda index, first=first: f'{name}, row {first + index}', size, columns_of(rows, wanted))  # type: ignore[misc]
            row += len(batch)

    def close(self) -> None:
        self._files.close()

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, '_batches': []}


class _FileBatches:
    """The batches of a file whose batches are numbered."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.schema = reader.schema

    def __iter__(self) -> Iterator[Any]:
        return (self._reader.get_batch(number) for number in range(self._reader.num_record_batches))
