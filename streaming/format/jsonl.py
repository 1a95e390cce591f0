"""JSON lines: a sample <-> a line."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streaming.errors import ArgumentError, ColumnTypeError, FormatError
from streaming.format.columns import decode_error, shown

__all__ = ['JSON_ENCODINGS', 'JSONLSchema']

_TYPES: dict[str, tuple[type, ...]] = {'int': (int,), 'float': (float, int), 'str': (str,)}

JSON_ENCODINGS = frozenset(_TYPES)


@dataclass(frozen=True, slots=True)
class JSONLSchema:
    """The columns of a shard of lines.

    Args:
        columns: Encoding by name.
        newline: What ends a line.

    Raises:
        ArgumentError: there are no columns, an encoding that lines do not have, or an impossible newline.
    """

    columns: Mapping[str, str]
    newline: str = '\n'

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise ArgumentError(f'columns must be {{name: encoding}}, with at least one column; got {self.columns!r}')
        unknown = sorted({str(encoding) for encoding in self.columns.values()} - JSON_ENCODINGS)
        if unknown:
            raise ArgumentError(f'JSON lines have columns of {", ".join(sorted(JSON_ENCODINGS))}, not of {", ".join(unknown)}')
        if not self.newline or json.dumps(self.newline) == f'"{self.newline}"':
            raise ArgumentError(f'newline must hold a character that JSON escapes, such as \\n; got {self.newline!r}')

    def encoder(self) -> Callable[[Mapping[str, Any]], bytes]:
        """A function from a sample to its line. It raises ColumnTypeError for a value that its column does not take."""
        types = [(name, encoding, _TYPES[encoding]) for name, encoding in self.columns.items()]
        newline = self.newline

        def encode(sample: Mapping[str, Any]) -> bytes:
            row = {}
            for name, encoding, kinds in types:
                if name not in sample:
                    raise ColumnTypeError(f'the sample has no {name}; the columns are {", ".join(sorted(self.columns))}')
                value = sample[name]
                if isinstance(value, np.generic):
                    value = value.item()
                if not isinstance(value, kinds) or isinstance(value, bool):
                    raise ColumnTypeError(f'column {name!r}: encoding {encoding!r} takes {kinds[0].__name__}, got {shown(value)}')
                row[name] = value
            try:
                return (json.dumps(row, sort_keys=True) + newline).encode()
            except ValueError as error:
                raise ColumnTypeError(f'{_find_longest(row)} cannot be written: {error}') from None

        return encode

    def decoder(self, columns: Sequence[str] | None = None) -> Callable[[memoryview], dict[str, Any]]:
        """A function from a line's bytes to the sample. It raises FormatError for bytes that are not such a line.

        Args:
            columns: Give only these. Default: None, all.

        Raises:
            ArgumentError: there is no such column.
        """
        unknown = sorted(set(columns or ()) - self.columns.keys())
        if unknown:
            raise ArgumentError(f'no column {", ".join(unknown)}; there are {", ".join(self.columns)}')
        wanted = [
            (name, self.columns[name], _TYPES[self.columns[name]]) for name in (self.columns if columns is None else columns)
        ]

        def decode(data: memoryview) -> dict[str, Any]:
            try:
                row = json.loads(str(data, 'utf-8'))
            except (ValueError, RecursionError) as error:
                raise FormatError(f'it is no line of JSON: {error}') from error
            if not isinstance(row, dict):
                raise FormatError(f'a line is an object, this is a {type(row).__name__}')
            sample = {}
            for name, encoding, kinds in wanted:
                value = row.get(name)
                if not isinstance(value, kinds) or isinstance(value, bool):
                    raise decode_error(name, encoding, ValueError(f'{value!r:.80}'))
                sample[name] = value
            return sample

        return decode


def _find_longest(row: Mapping[str, Any]) -> str:
    """The column with more digits than Python writes, which is all that JSON refuses of these types."""
    name = max((name for name in row if isinstance(row[name], int)), key=lambda name: abs(row[name]))
    return f'column {name!r}: {shown(row[name])}'
