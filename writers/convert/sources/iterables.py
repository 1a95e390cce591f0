"""Records that Python makes: a sequence, any iterable, a function that gives one, or a function for each of many inputs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, pairwise
from typing import Any

from streaming.errors import ArgumentError
from streaming.writers.convert.named import load_named, name_of
from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted

__all__ = ['CallSource', 'IterableSource', 'SequenceSource']

_BATCH = 256
# Records that are looked at before the run.
_HEAD = 1000
_USUAL_BYTES = 8
# Parts that inputs of a function are cut into at the most, and records of a sequence.
_MOST_PARTS = 1024


def _batches(records: Iterable[Any], first: int, name: str) -> Iterator[Batch]:
    """Records as batches of even length, numbered from ``first``."""
    left = iter(records)
    while batch := [_record(record) for record in islice(left, _BATCH)]:
        yield Batch(batch, lambda number, first=first: f'{name}, record {first + number}', 0)  # type: ignore[misc]
        first += len(batch)


def _record(record: Any) -> Mapping[str, Any] | BadRecord:
    if isinstance(record, Mapping):
        return record
    return BadRecord(f'a record is a mapping from columns to values, this is a {type(record).__name__}', repr(record)[:1000])


class IterableSource(Source):
    """An iterable, or a function that gives one: a single part, read in the process that has it.

    After an interruption it is read from its start again.

    Args:
        records: Any iterable, a function without arguments, or its name as ``'module:function'``.

    Raises:
        ArgumentError: the function gives nothing that can be iterated.
    """

    name = 'iterable'
    is_ragged = True
    in_process = True

    def __init__(self, records: Iterable[Any] | Callable[[], Iterable[Any]] | str) -> None:
        self.url = f'<{name_of(records)}>'
        found = load_named(records, 'the source')
        made = found() if callable(found) and not isinstance(found, Iterable) else found
        if not isinstance(made, Iterable):
            raise ArgumentError(f'{self.url} gives a {type(made).__name__}, which cannot be iterated')
        left = iter(made)
        # What can be iterated once only must not lose the records that were looked at.
        self._head = list(islice(left, _HEAD))
        self._left = left

    def describe(self) -> Mapping[str, Any]:
        return {'iterable': self.url}

    def ranges(self, part_bytes: int) -> list[Range]:
        return [Range(key=self.url)] if self._head else []

    def first(self) -> Iterator[Batch]:
        return _batches(self._head, 0, self.url)

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        return _batches(chain(self._head, self._left), 0, self.url)

    def count(self, piece: Range) -> int:
        # To count them would use them up; a part with a limit stops where it should without that.
        return 1 << 62


class SequenceSource(Source):
    """A sequence: what has a length and gives records by number. It goes to the workers whole.

    Args:
        records: A list, a map-style dataset, and so on.
    """

    name = 'sequence'
    is_ragged = True

    def __init__(self, records: Sequence[Any]) -> None:
        self._records = records
        self.url = f'<{name_of(type(records))} of {len(records)} records>'

    def describe(self) -> Mapping[str, Any]:
        return {'sequence': self.url}

    def total_bytes(self) -> int:
        looked_at = [self._records[number] for number in range(min(_HEAD, len(self._records)))]
        size = sum(_size_of(value) for record in looked_at if isinstance(record, Mapping) for value in record.values())
        return size * len(self._records) // max(1, len(looked_at))

    def ranges(self, part_bytes: int) -> list[Range]:
        count = len(self._records)
        if not count:
            return []
        size = self.total_bytes()
        pieces = max(1, min(_MOST_PARTS, count, round(size / max(1, part_bytes))))
        bounds = [count * number // pieces for number in range(pieces + 1)]
        return [
            Range(key=self.url, start=start, end=end, records=end - start, bytes=size // pieces)
            for start, end in pairwise(bounds)
        ]

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        numbers = range(piece.start, len(self._records) if piece.end is None else piece.end)
        return _batches((self._records[number] for number in numbers), piece.start, self.url)


class CallSource(Source):
    """A function that is called with each of many inputs and gives the records of it: on all cores.

    Args:
        function: Gives an iterable of records for an input; or its name as ``'module:function'``.
        inputs: What it is called with: names of files, numbers, anything that pickles.
    """

    name = 'calls'
    is_ragged = True

    def __init__(self, function: Callable[[Any], Iterable[Any]] | str, inputs: Sequence[Any]) -> None:
        self._function = function
        self._inputs = list(inputs)
        self.url = f'<{name_of(function)} of {len(self._inputs)} inputs>'

    def describe(self) -> Mapping[str, Any]:
        return {'calls': self.url, 'inputs': [repr(item)[:200] for item in self._inputs[:_HEAD]]}

    def ranges(self, part_bytes: int) -> list[Range]:
        count = len(self._inputs)
        pieces = min(_MOST_PARTS, count)
        # Nobody knows how much an input gives; so each range says that it is a part.
        return [
            Range(
                key=self.url,
                bytes=part_bytes,
                extra=tuple(self._inputs[count * number // pieces : count * (number + 1) // pieces]),
            )
            for number in range(pieces)
        ]

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        function = load_named(self._function, 'the source')
        for item in piece.extra:
            yield from _batches(function(item), 0, f'{name_of(self._function)}({item!r:.200})')

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, '_inputs': []}


def _size_of(value: Any) -> int:
    size = getattr(value, 'nbytes', None)
    if isinstance(size, int):
        return size
    return len(value) if hasattr(value, '__len__') else _USUAL_BYTES
