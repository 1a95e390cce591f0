"""CSV and TSV: a line of names, then a record a line, or more where a quoted value has line breaks. Values are texts.

A line break within quotes cannot be told from the end of a record by looking at what stands around it. So whoever plans reads a
file that is cut once, and counts its quotes.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from streaming.errors import FormatError
from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files, InputFile
from streaming.writers.convert.sources.lines import Chunk, content_sizes, line_number, read_lines, readers_of
from streaming.writers.convert.sources.packed import open_packed, unpacked

__all__ = ['CSVSource']

_BLOCK_BYTES = 4 << 20
_BATCH_BYTES = 1 << 20
_MOST_FIELD = 1 << 30
_BOM = b'\xef\xbb\xbf'
_INT = re.compile(r'[+-]?(?:0|[1-9]\d{0,17})')
_FLOAT = re.compile(r'[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?')


class CSVSource(Source):
    """Files of comma-separated values, and of tab-separated ones by their names.

    Args:
        files: Where they lie.
        suffixes: What their names end in.

    Raises:
        NotFoundError: there is no such file.
        FormatError: a file has no line of names, or other names than the first.
    """

    name = 'csv'
    is_text = True

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        self._files = files
        found = files.select(suffixes)
        self.url = files.url
        self._heads = [self._head(file) for file in found]
        self._columns = self._heads[0][0]
        for file, (columns, _) in zip(found, self._heads, strict=True):
            if columns != self._columns:
                raise FormatError(
                    f'{files.name(file.place, file.key)} has the columns {", ".join(columns)}, '
                    f'{files.name(found[0].place, found[0].key)} has {", ".join(self._columns)}'
                )

    def _head(self, file: InputFile) -> tuple[list[str], int]:
        """The names of the columns, and where the records begin."""
        name = self._files.name(file.place, file.key)
        with unpacked(name), self._files.open(file.place, file.key) as opened, open_packed(opened, file.key) as content:
            line = content.readline()
            while line.count(b'"') % 2 and (more := content.readline()):
                line += more
        try:
            columns = next(csv.reader([line.removeprefix(_BOM).decode()], delimiter=_delimiter(file.key), strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise FormatError(f'{name}, line 1: it holds no names of columns: {error}') from error
        if not columns or len(set(columns)) != len(columns) or not all(columns):
            raise FormatError(f'{name}, line 1: it must hold the names of the columns, each once; got {", ".join(columns)!r}')
        return columns, len(line)

    def describe(self) -> Mapping[str, Any]:
        return self._files.describe()

    def total_bytes(self) -> int:
        return sum(content_sizes(self._files))

    def suggest(self, column: str, value: Any) -> str | None:
        if not isinstance(value, str):
            return None
        # A number with zeros before it is a code of some kind, and would lose them.
        return 'int' if _INT.fullmatch(value) else 'float64' if _FLOAT.fullmatch(value) else 'str'

    def ranges(self, part_bytes: int) -> list[Range]:
        found: list[Range] = []
        sizes = content_sizes(self._files)
        for file, size, (_, first) in zip(self._files.find(), sizes, self._heads, strict=True):
            readers = readers_of(file, size, part_bytes, len(sizes))
            bounds = [first, *self._cuts(file, [size * number // readers for number in range(1, readers)], first)]
            ends: list[int | None] = [*bounds[1:], None]
            found += [
                Range(place=file.place, key=file.key, start=start, end=end, bytes=max(0, (size if end is None else end) - start))
                for start, end in zip(bounds, ends, strict=True)
            ]
        return found

    def _cuts(self, file: InputFile, wanted: Sequence[int], first: int) -> list[int]:
        """Where the first records begin after some bytes of a file."""
        if not wanted:
            return []
        name = self._files.name(file.place, file.key)
        with unpacked(name), self._files.open(file.place, file.key) as opened, open_packed(opened, file.key) as content:
            content.read(first)
            return list(dict.fromkeys(_record_starts(content, first, wanted)))

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        csv.field_size_limit(_MOST_FIELD)  # the module's own is 128 KiB, which texts are longer than
        lines = _Lines(read_lines(self._files, piece))
        rows = csv.reader(lines, delimiter=_delimiter(piece.key), strict=True)
        batch: list[Any] = []
        starts: list[int] = []
        while True:
            start = lines.count
            try:
                row = next(rows)
                record = self._record(row, lines)
            except StopIteration:
                break
            except csv.Error as error:
                record = BadRecord(f'it is no line of values: {error}', lines.last)
            if record is not None:
                batch.append(record)
                starts.append(start)
            if lines.taken > _BATCH_BYTES:
                yield Batch(batch, self._locate(piece, lines.first, starts), lines.take())
                batch, starts = [], []
        if batch:
            yield Batch(batch, self._locate(piece, lines.first, starts), lines.take())

    def _record(self, row: list[str], lines: '_Lines') -> Any:
        """The record of a row; None of an empty line."""
        if not row:
            return None
        if len(row) != len(self._columns):
            return BadRecord(f'it has {len(row)} values for {len(self._columns)} columns', lines.last)
        return dict(zip(self._columns, row, strict=True))

    def _locate(self, piece: Range, first: Chunk | None, starts: Sequence[int]) -> Any:
        def locate(number: int) -> str:
            assert first is not None
            line = line_number(self._files, piece, first, starts[number])
            return f'{self._files.name(piece.place, piece.key)}, line {line}'

        return locate

    def close(self) -> None:
        self._files.close()


def _delimiter(key: str) -> str:
    return '\t' if '.tsv' in key.lower() or key.lower().endswith('.tab') else ','


def _record_starts(content: BinaryIO, at: int, wanted: Sequence[int]) -> Iterator[int]:
    """Where the first record begins at or after some bytes, in order. Records begin at ``at``, where the content stands."""
    quotes = 0
    for target in wanted:
        while at < target:
            block = content.read(min(_BLOCK_BYTES, target - at))
            if not block:
                return
            at += len(block)
            quotes += block.count(b'"')
        while True:
            line = content.readline()
            if not line:
                return
            at += len(line)
            quotes += line.count(b'"')
            if quotes % 2 == 0:
                break
        yield at


class _Lines:
    """Lines of chunks as text, counted.

    Attributes:
        first: The first chunk, None before there was one.
        count: Lines so far.
        last: The last one.
        taken: Bytes since `take`.
    """

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._lines = self._split(chunks)
        self.first: Chunk | None = None
        self.count = self.taken = 0
        self.last = ''

    def _split(self, chunks: Iterator[Chunk]) -> Iterator[bytes]:
        for chunk in chunks:
            self.first = self.first or chunk
            yield from chunk.text.splitlines(keepends=True) if b'\r' not in chunk.text else _at_newlines(chunk.text)

    def __iter__(self) -> '_Lines':
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.count += 1
        self.taken += len(line)
        # What is no UTF-8 stays what it is until the column refuses it.
        self.last = line.decode('utf-8', 'surrogateescape')
        return self.last

    def take(self) -> int:
        """Bytes since the last call."""
        taken, self.taken = self.taken, 0
        return taken


def _at_newlines(text: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        end = text.find(b'\n', start) + 1 or len(text)
        yield text[start:end]
        start = end
