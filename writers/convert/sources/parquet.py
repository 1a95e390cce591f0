"""Parquet: ranges of row groups. One that is much larger than a part is read by several, each its own rows."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any

from streaming.errors import FormatError
from streaming.writers.convert.sources.arrow_values import columns_of, load_arrow, schema_encodings
from streaming.writers.convert.sources.base import Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files, InputFile

__all__ = ['ParquetSource']

_PARALLEL = 16
# Decoded together. Large enough to pay, small enough to stay in the cache.
_BATCH_BYTES = 4 << 20
_MOST_ROWS = 1 << 16
# Readers of one row group: each decodes what stands before its rows too.
_MOST_READERS = 8
_MOST_LOOKED_AT = 64


class ParquetSource(Source):
    """Parquet files. Bytes are counted as they are before compression.

    Args:
        files: Where they lie.
        suffixes: What their names end in.

    Raises:
        MissingExtraError: pyarrow is not installed.
        NotFoundError: there is no such file.
        FormatError: a file is none, or has other columns than the first.
    """

    name = 'parquet'

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        load_arrow()
        self._files = files
        self.url = files.url
        found = files.select(suffixes)
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix='streaming-footers') as pool:
            self._footers = list(pool.map(self._footer, found))
        schemas = [footer.schema.to_arrow_schema() for footer in self._footers]
        for file, schema in zip(found, schemas, strict=True):
            if sorted(schema.names) != sorted(schemas[0].names):
                raise FormatError(
                    f'{files.name(file.place, file.key)} has the columns {", ".join(sorted(schema.names))}, '
                    f'{files.name(found[0].place, found[0].key)} has {", ".join(sorted(schemas[0].names))}'
                )
        self._encodings = schema_encodings(schemas[0], self._peek)
        self._encodings.update(dict.fromkeys(self._nullable(), 'json'))

    def _footer(self, file: InputFile) -> Any:
        with self._open(file.place, file.key) as parquet:
            return parquet.metadata

    def _open(self, place: int, key: str) -> Any:
        arrow = load_arrow()
        path = self._files.path(place, key)
        try:
            # In threads of its own only where that hides a network: all cores are taken by other parts.
            return arrow.parquet.ParquetFile(self._files.open(place, key), pre_buffer=path is None)
        except arrow.ArrowException as error:
            raise FormatError(f'{self._files.name(place, key)} is no Parquet file, or only a part of one: {error}') from error

    def _peek(self, column: str) -> Any:
        """The first value of a column that is there; None if there is none."""
        for file in self._files.find():
            with self._open(file.place, file.key) as parquet:
                for batch in parquet.iter_batches(_MOST_LOOKED_AT, columns=[column], use_threads=False):
                    for value in batch.column(0):
                        if value.is_valid:
                            return value.as_py()
        return None

    def _nullable(self) -> set[str]:
        """The columns in which values are missing, as far as the files say."""
        found = set()
        for footer in self._footers:
            for group in range(footer.num_row_groups):
                for number in range(footer.num_columns):
                    column = footer.row_group(group).column(number)
                    # Of a list or a struct, what is inside may be missing; then it is for the values to show.
                    if '.' not in column.path_in_schema and column.statistics is not None and column.statistics.null_count:
                        found.add(column.path_in_schema)
        return found

    def describe(self) -> Mapping[str, Any]:
        return self._files.describe()

    def encodings(self) -> dict[str, str]:
        return dict(self._encodings)

    def total_bytes(self) -> int:
        return sum(footer.row_group(group).total_byte_size for footer in self._footers for group in range(footer.num_row_groups))

    def ranges(self, part_bytes: int) -> list[Range]:
        found = []
        for file, footer in zip(self._files.find(), self._footers, strict=True):
            for group in range(footer.num_row_groups):
                info = footer.row_group(group)
                readers = max(1, min(_MOST_READERS, round(info.total_byte_size / part_bytes), info.num_rows))
                bounds = [info.num_rows * number // readers for number in range(readers + 1)]
                found += [
                    Range(
                        place=file.place,
                        key=file.key,
                        start=group,
                        end=group + 1,
                        bytes=info.total_byte_size // readers,
                        records=end - start,
                        extra=(start, end),
                    )
                    for start, end in pairwise(bounds)
                ]
        return found

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        arrow = load_arrow()
        name = self._files.name(piece.place, piece.key)
        first, end = piece.extra
        columns = None if wanted.columns is None else [name for name in wanted.columns if name in self._encodings]
        with self._open(piece.place, piece.key) as parquet:
            footer = parquet.metadata
            above = [0, *accumulate(footer.row_group(group).num_rows for group in range(footer.num_row_groups))][piece.start]
            rows = max(1, min(_MOST_ROWS, _BATCH_BYTES * (end - first) // max(1, piece.bytes)))
            at = 0
            try:
                for batch in parquet.iter_batches(rows, row_groups=[piece.start], columns=columns, use_threads=False):
                    skip = max(0, first - at)
                    taken = batch.slice(skip, max(0, min(len(batch), end - at) - skip))
                    at += len(batch)
                    if len(taken):
                        yield _batch(taken, wanted, name, above + at - len(batch) + skip, piece.bytes / (end - first))
                    if at >= end:
                        return
            except arrow.ArrowException as error:
                raise FormatError(f'{name}, row group {piece.start}: it cannot be read: {error}') from error

    def close(self) -> None:
        self._files.close()

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, '_footers': []}


def _batch(rows: Any, wanted: Wanted, name: str, first: int, row_bytes: float) -> Batch:
    columns = columns_of(rows, wanted)
    return Batch(None, lambda number: f'{name}, row {first + number}', round(len(rows) * row_bytes), columns)
