"""What a source of records is to a conversion: it can say what it holds, be cut into ranges, and be read by range.

A source is one file beside this one. It pickles small: what the ranges are is decided once, by `Source.ranges`, and each range
then goes alone to whoever reads it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ['BadRecord', 'Batch', 'Range', 'Source', 'Wanted', 'cut']

# Where columns are to be found out about: ranges of about this size, as many as this. Whoever looks stops before.
_LOOK_AT_BYTES = 32 << 20
_LOOK_AT_RANGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A piece of one input: some row groups of a file, some bytes of lines, a file.

    Args:
        key: Of the file, in its place; empty where a source has no files.
        place: Number of the place where the file lies, of `Files.places`. Default: 0.
        start: Where it begins, in units of the source. Default: 0.
        end: Where it ends, exclusive. Default: None, with the file.
        bytes: How much of the input this is, for progress and to cut parts of even size.
        records: How many records it has, where that is known.
        split: The sub-folder of the output that its records belong to. Default: none.
        extra: What else the source must know of it.
    """

    key: str = ''
    place: int = 0
    start: int = 0
    end: int | None = None
    bytes: int = 0
    records: int | None = None
    split: str = ''
    extra: Any = None


@dataclass(frozen=True, slots=True)
class BadRecord:
    """Stands in a batch for a record that could not be read.

    Args:
        error: Why.
        text: What stands there, for the reject file.
    """

    error: str
    text: str = ''


class Batch:
    """Records that were read together: as records, or as columns of values.

    Args:
        records: Each a mapping, or a `BadRecord`. Default: None, what the columns make.
        locate: From a record's number in the batch to where it stands, as in ``train.jsonl, line 17``. May be slow.
        input_bytes: How much of the range's input this was.
        columns: Values by column: a list, an array (records,) of numbers, or one (records, ...) of arrays.
            Default: None, there are only records.
    """

    __slots__ = ('_records', 'columns', 'input_bytes', 'locate')

    def __init__(
        self,
        records: Sequence[Mapping[str, Any] | BadRecord] | None,
        locate: Callable[[int], str],
        input_bytes: int,
        columns: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    ) -> None:
        self._records = records
        self.locate, self.input_bytes, self.columns = locate, input_bytes, columns

    @property
    def records(self) -> Sequence[Mapping[str, Any] | BadRecord]:
        """The records; made of the columns when they are first asked for."""
        if self._records is None:
            columns = self.columns or {}
            values = [
                column.tolist() if isinstance(column, np.ndarray) and column.ndim == 1 else column for column in columns.values()
            ]
            self._records = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
        return self._records

    @property
    def count(self) -> int:
        """How many there are."""
        return len(next(iter(self.columns.values()))) if self.columns else len(self.records)

    def first(self, count: int) -> 'Batch':
        """The first of them."""
        columns = None if self.columns is None else {name: values[:count] for name, values in self.columns.items()}
        return Batch(None if columns else self.records[:count], self.locate, self.input_bytes, columns)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a conversion will do with records, so that a source does not decode what is only encoded again.

    Args:
        encodings: The columns that are written and their encodings; empty while they are being found out.
        columns: The columns that are looked at; None: any may be.
        as_bytes: Whether a value may be given as the bytes of its encoding: no function is going to look at it.
    """

    encodings: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[str] | None = None
    as_bytes: bool = False


class Source(ABC):
    """Records that can be read in ranges. It pickles, without its connections.

    Attributes:
        name: Under which it is registered.
        url: Of what is read, for messages: without secrets.
        is_text: Whether its values are texts that stand for numbers and so on, as in CSV.
        gives_encoded: Whether values come as bytes of their encodings, where those are the ones of `encodings`.
        is_ragged: Whether a record may lack what others have.
        splits: Sub-folders of the output that it gives its records; empty: it gives none.
        in_process: Whether it can only be read in the process that has it.
    """

    name: str
    url: str
    is_text = False
    gives_encoded = False
    is_ragged = False
    splits: Sequence[str] = ()
    in_process = False

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """What tells this input from any other, as JSON: names, sizes, versions."""

    @abstractmethod
    def ranges(self, part_bytes: int) -> list[Range]:
        """All of the input, cut into ranges in its order: the same on every machine.

        Args:
            part_bytes: What a range should have at the most, where it can be cut.
        """

    @abstractmethod
    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        """The records of a range, in order.

        Raises:
            FormatError: the file as a whole is not what it should be.
            StoreError: it cannot be read.
        """

    def encodings(self) -> dict[str, str] | None:
        """The encodings that the input's own schema suggests. Default: None, it has none, and records have to be looked at."""
        return None

    def first(self) -> Iterator[Batch]:
        """The first records, to find out about columns."""
        for piece in self.ranges(_LOOK_AT_BYTES)[:_LOOK_AT_RANGES]:
            yield from self.read(piece, Wanted())

    def suggest(self, column: str, value: Any) -> str | None:
        """The encoding of a value, where the source knows better than its type does. Default: None, it does not."""
        return None

    def count(self, piece: Range) -> int:
        """How many records a range has, good ones and bad ones."""
        return sum(batch.count for batch in self.read(piece, Wanted())) if piece.records is None else piece.records

    def total_bytes(self) -> int:
        """How large all of the input is, or about that."""
        return 0

    def close(self) -> None:
        """Give back connections."""


def cut(size: int, count: int) -> Iterator[tuple[int, int]]:
    """Start and end of so many pieces of even size."""
    for number in range(count):
        yield size * number // count, size * (number + 1) // count
