"""Many samples of one MDS shard, each made when it is taken: where their values lie is found for all of them at once.

What `compiled` does for every sample, to read the sizes, add them up and look for the whole numbers, is a dozen steps of NumPy
for a thousand samples. What is left for each is to cut out its values, in a function whose source is written for the columns.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streaming.format.columns import Bool, Encoding, Scalar
from streaming.readers.compiled import Read, helpers_of, is_regular, write_value
from streaming.readers.gather import Mapped, spans

__all__ = ['RowReader']

# Fewer samples are read faster one by one.
FEW = 200

# Of which column a function is given what: its values, or where they begin or end.
_Field = tuple[int, Literal['value', 'begin', 'end']]
_Bind = Callable[..., Callable[[Iterable[tuple[Any, ...]]], Iterator[dict[str, Any]]]]


class RowReader:
    """Reads samples of a shard.

    Args:
        names: Of the columns.
        encodings: Of the columns.
        wanted: Which columns to decode.
        mapped: The shard.
        explain: Reads a sample, or raises what is wrong with it. Asked where something is wrong.
    """

    def __init__(
        self, names: Sequence[str], encodings: Sequence[Encoding], wanted: Sequence[bool], mapped: Mapped, explain: Read
    ) -> None:
        self._encodings = encodings
        self._mapped = mapped
        bind, self._fields = _compile(tuple(encodings), tuple(wanted))
        helpers = helpers_of(encodings, wanted, mapped.windows)
        self._make = bind(tuple(names), helpers, mapped.windows.data, mapped.windows.view, explain)

    def read_each(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]] | None:
        """Decode some samples (N,), each when it is taken; None where one of them is not as it should be."""
        mapped = self._mapped
        starts, ends = mapped.bounds[numbers].astype(np.int64).T
        try:
            found = spans(mapped.schema, starts, ends, lambda windows_of: windows_of(mapped.windows)[starts])
            if found is None:
                return None
            fields = [self._field(field, found) for field in self._fields]
        except IndexError:
            return None
        return self._make(zip(numbers.tolist(), *fields, strict=True))

    def _field(self, field: _Field, found: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Sequence[Any] | NDArray[Any]:
        number, what = field
        begin, end = found[number]
        values: NDArray[Any] = end if what == 'end' else begin
        encoding = self._encodings[number]
        if what == 'value' and isinstance(encoding, Scalar):
            values = self._mapped.windows.numbers(encoding.dtype)[begin]
            if encoding.kind is not int:
                return values
        found_values: list[Any] = values.tolist()
        return found_values


@lru_cache(maxsize=1024)
def _compile(encodings: tuple[Encoding, ...], wanted: tuple[bool, ...]) -> tuple[_Bind, list[_Field]]:
    fields, items = [], []
    for number, (encoding, needed) in enumerate(zip(encodings, wanted, strict=True)):
        if needed:
            whats = _whats(encoding)
            fields += [(number, what) for what in whats]
            begin, end = f'begin{number}', f'end{number}'
            value = f'value{number}' if whats == ['value'] else write_value(number, encoding, begin, end, f'{end} - {begin}')
            items.append(f'name{number}: {value}')
    count = len(encodings)
    lines = [
        'def bind(names, helpers, data, view, explain):',
        f'    ({"".join(f"name{number}, " for number in range(count))}) = names',
        f'    ({"".join(f"h{number}, " for number in range(count))}) = helpers',
        '    def make(rows):',
        f'        for number, {"".join(f"{what}{column}, " for column, what in fields)}in rows:',
        '            try:',
        f'                sample = {{{", ".join(items)}}}',
        '            except failures:',
        '                sample = explain(number)',
        '            yield sample',
        '    return make',
    ]
    namespace: dict[str, Any] = {'failures': (ValueError, OverflowError, LookupError, struct.error)}
    exec(compile('\n'.join(lines), '<reader of rows>', 'exec'), namespace)
    return namespace['bind'], fields


def _whats(encoding: Encoding) -> list[Literal['value', 'begin', 'end']]:
    """What has to be known of a column's values."""
    if type(encoding) is Scalar:
        return ['value']
    return ['begin'] if type(encoding) is Bool or is_regular(encoding) else ['begin', 'end']
