"""Separated values: a sample <-> a line, as in csv and tsv but without quoting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streaming.errors import ArgumentError, ColumnTypeError, FormatError
from streaming.format.columns import check_names, decode_error, shown

__all__ = ['XSV_ENCODINGS', 'XSVSchema']

_TYPES: dict[str, tuple[type, ...]] = {'int': (int,), 'float': (float, int), 'str': (str,)}
_PARSERS: dict[str, Callable[[str], Any]] = {'int': int, 'float': float, 'str': str}

XSV_ENCODINGS = frozenset(_TYPES)


@dataclass(frozen=True, slots=True)
class XSVSchema:
    """The columns of a shard of lines, sorted by name.

    Args:
        names: Of the columns.
        encodings: Of each.
        newline: What ends a line.
        separator: What stands between values.

    Raises:
        ArgumentError: there are no columns, an encoding that text does not have, or a name that holds a separator or newline.
    """

    names: tuple[str, ...]
    encodings: tuple[str, ...]
    newline: str = '\n'
    separator: str = ','

    def __post_init__(self) -> None:
        unknown = sorted(set(self.encodings) - XSV_ENCODINGS)
        if unknown:
            raise ArgumentError(f'text has columns of {", ".join(sorted(XSV_ENCODINGS))}, not of {", ".join(unknown)}')
        if not self.newline or not self.separator or self.newline in self.separator or self.separator in self.newline:
            raise ArgumentError(
                f'newline {self.newline!r} and separator {self.separator!r} must be there and tell lines from values'
            )
        for name in self.names:
            if self.separator in name or self.newline in name:
                raise ArgumentError(f'the column name {name!r} holds the separator or the newline')

    @classmethod
    def from_columns(cls, columns: Mapping[str, str], newline: str, separator: str) -> 'XSVSchema':
        """The schema of columns given as ``{name: encoding}``.

        Raises:
            ArgumentError: they cannot be.
        """
        if not isinstance(columns, Mapping) or not columns:
            raise ArgumentError(f'columns must be {{name: encoding}}, with at least one column; got {columns!r}')
        check_names(columns)
        names = tuple(sorted(columns))
        return cls(names, tuple(columns[name] for name in names), newline, separator)

    @property
    def header(self) -> bytes:
        """The first line of a data file."""
        return (self.separator.join(self.names) + self.newline).encode()

    def encoder(self) -> Callable[[Mapping[str, Any]], bytes]:
        """A function from a sample to its line.

        It raises ColumnTypeError for a value that its column does not take, or that holds the separator or the newline.
        """
        types = [(name, encoding, _TYPES[encoding]) for name, encoding in zip(self.names, self.encodings, strict=True)]
        newline, separator = self.newline, self.separator

        def encode(sample: Mapping[str, Any]) -> bytes:
            values = []
            for name, encoding, kinds in types:
                if name not in sample:
                    raise ColumnTypeError(f'the sample has no {name}; the columns are {", ".join(self.names)}')
                value = sample[name]
                if isinstance(value, np.generic):
                    value = value.item()
                if not isinstance(value, kinds) or isinstance(value, bool):
                    raise ColumnTypeError(f'column {name!r}: encoding {encoding!r} takes {kinds[0].__name__}, got {shown(value)}')
                try:
                    text = str(value)
                    text.encode()
                except ValueError as error:  # lone surrogates, or more digits than Python writes
                    raise ColumnTypeError(f'column {name!r}: {shown(value)} cannot be written: {error}') from None
                if newline in text or separator in text:
                    raise ColumnTypeError(
                        f'column {name!r}: {text!r:.80} holds the separator or the newline, which this format cannot quote; '
                        'use another separator, JSONWriter or MDSWriter'
                    )
                values.append(text)
            return (separator.join(values) + newline).encode()

        return encode

    def decoder(self, columns: Sequence[str] | None = None) -> Callable[[memoryview], dict[str, Any]]:
        """A function from a line's bytes to the sample. It raises FormatError for bytes that are not such a line.

        Args:
            columns: Decode only these. Default: None, all.

        Raises:
            ArgumentError: there is no such column.
        """
        unknown = sorted(set(columns or ()) - set(self.names))
        if unknown:
            raise ArgumentError(f'no column {", ".join(unknown)}; there are {", ".join(self.names)}')
        wanted = set(self.names if columns is None else columns)
        plan = [
            (number, name, encoding, _PARSERS[encoding])
            for number, (name, encoding) in enumerate(zip(self.names, self.encodings, strict=True))
            if name in wanted
        ]
        count, newline, separator = len(self.names), self.newline, self.separator

        def decode(data: memoryview) -> dict[str, Any]:
            try:
                line = str(data, 'utf-8')
            except UnicodeDecodeError as error:
                raise FormatError(f'it is no UTF-8: {error}') from error
            if not line.endswith(newline):
                raise FormatError(f'it does not end with the newline {newline!r}')
            values = line[: -len(newline)].split(separator)
            if len(values) != count:
                raise FormatError(f'it has {len(values)} values, there are {count} columns')
            sample = {}
            for number, name, encoding, parse in plan:
                try:
                    sample[name] = parse(values[number])
                except ValueError as error:
                    raise decode_error(name, encoding, error) from error
            return sample

        return decode
