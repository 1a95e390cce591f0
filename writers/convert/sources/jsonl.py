"""Lines of JSON, plain or compressed: an object a line, empty lines are nothing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files
from streaming.writers.convert.sources.lines import Chunk, content_sizes, line_number, line_ranges, read_lines

__all__ = ['JSONLSource']

_decode = msgspec.json.Decoder().decode
_decode_lines = msgspec.json.Decoder().decode_lines


class JSONLSource(Source):
    """Files of lines of JSON.

    Args:
        files: Where they lie.
        suffixes: What their names end in.

    Raises:
        NotFoundError: there is no such file.
    """

    name = 'jsonl'
    is_ragged = True

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        self._files = files
        files.select(suffixes)
        self.url = files.url

    def describe(self) -> Mapping[str, Any]:
        return self._files.describe()

    def total_bytes(self) -> int:
        return sum(content_sizes(self._files))

    def ranges(self, part_bytes: int) -> list[Range]:
        return line_ranges(self._files, part_bytes)

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        for chunk in read_lines(self._files, piece):
            yield Batch(_records(chunk.text), self._locate(piece, chunk), len(chunk.text))

    def _locate(self, piece: Range, chunk: Chunk) -> Any:
        def locate(number: int) -> str:
            filled = [before for before, line in enumerate(chunk.text.split(b'\n')) if line.strip()]
            line = line_number(self._files, piece, chunk, filled[number])
            return f'{self._files.name(piece.place, piece.key)}, line {line}'

        return locate

    def close(self) -> None:
        self._files.close()


def _records(text: bytes) -> list[Any]:
    """The objects of some lines; where one is none, what is wrong with it."""
    try:
        records = _decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        records = []
    if set(map(type, records)) == {dict}:
        return records
    return [_record(line) for line in text.split(b'\n') if line.strip()]


def _record(line: bytes) -> Any:
    try:
        record = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            record = json.loads(line)  # which takes NaN
        except (ValueError, RecursionError) as error:
            return BadRecord(f'it is no JSON: {error}', line.decode(errors='replace'))
    if type(record) is not dict:
        return BadRecord(f'it is a {type(record).__name__}, not an object', line.decode(errors='replace'))
    return record
