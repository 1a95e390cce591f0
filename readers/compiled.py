"""Functions that read one sample, written for its schema.

A general decoder goes through the columns of every sample, which costs more than decoding them. Here that is done once: a schema
becomes the source of a function. The source is made of numbers and of what stands in this file; the names of columns and whatever
else an index says reach it as values. What is odd about a sample is left to a general decoder, which says what it is.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from streaming.format.arrays import Array
from streaming.format.columns import Bool, Encoding, Raw, Scalar, Str
from streaming.readers.windows import LONG_TEXT, Windows

__all__ = ['Read', 'compile_reader', 'helpers_of', 'is_regular', 'write_value']

Read = Callable[[int], dict[str, Any]]
# From the numbers of samples, where each begins and where it ends to the samples, each read when it is taken.
ReadEach = Callable[[Sequence[int], Sequence[int], Sequence[int]], Iterator[dict[str, Any]]]

_Bind = Callable[..., tuple[Read, ReadEach]]


def compile_reader(
    names: Sequence[str],
    encodings: Sequence[Encoding],
    wanted: Sequence[bool],
    windows: Windows,
    offsets: Sequence[int],
    explain: Read,
) -> tuple[Read, ReadEach]:
    """A function from the number of a sample, which must be one of the shard's, to the sample; and one for many samples.

    Args:
        names: Of the columns.
        encodings: Of the columns.
        wanted: Which columns to decode.
        windows: The shard.
        offsets: Where in it each sample begins, and the end of the last.
        explain: Reads a sample, or raises what is wrong with it. Asked where this function finds something wrong.
    """
    bind, head = _compile(tuple(encodings), tuple(wanted))
    helpers = helpers_of(encodings, wanted, windows)
    return bind(tuple(names), helpers, head.unpack_from, windows.data, windows.view, offsets, explain)


def helpers_of(encodings: Sequence[Encoding], wanted: Sequence[bool], windows: Windows) -> list[Any]:
    """What the source calls ``h0``, ``h1`` and so on."""
    return [_helper(encoding, windows) if needed else None for encoding, needed in zip(encodings, wanted, strict=True)]


def _helper(encoding: Encoding, windows: Windows) -> Any:
    if type(encoding) is Scalar:
        numbers = windows.numbers(encoding.dtype)
        return numbers.item if encoding.kind is int else numbers
    if isinstance(encoding, Array) and type(encoding) is Array:
        if is_regular(encoding) and encoding.dtype is not None and encoding.shape is not None:
            return windows.arrays(encoding.dtype, encoding.shape)
        return windows.array_reader(encoding)
    return encoding.decode


def is_regular(encoding: Encoding) -> bool:
    """Whether its values are arrays that are all alike, and more than one number or none."""
    return isinstance(encoding, Array) and type(encoding) is Array and bool(encoding.size and encoding.shape)


@lru_cache(maxsize=1024)
def _compile(encodings: tuple[Encoding, ...], wanted: tuple[bool, ...]) -> tuple[_Bind, struct.Struct]:
    head, source = _write_source(encodings, wanted)
    namespace: dict[str, Any] = {'failures': (ValueError, OverflowError, LookupError, struct.error)}
    exec(compile(source, '<reader of a schema>', 'exec'), namespace)
    return namespace['bind'], struct.Struct(head)


def _write_source(encodings: Sequence[Encoding], wanted: Sequence[bool]) -> tuple[str, str]:
    """The format of what one call of struct reads of a sample, and the source of ``bind``."""
    head, targets = _plan_head(encodings, wanted)
    base, at = 'start', 4 * sum(encoding.size is None for encoding in encodings)
    end = f'{base} + {at}'
    steps, items = [], []
    for number, encoding in enumerate(encodings):
        begin = end
        if encoding.size is None:
            base, at = f'end{number}', 0
            steps.append(f'{base} = {begin} + size{number}')
        else:
            at += encoding.size
        end = f'{base} + {at}' if at else base
        if wanted[number]:
            value = (
                f'value{number}' if f'value{number}' in targets else write_value(number, encoding, begin, end, f'size{number}')
            )
            items.append(f'name{number}: {value}')
    count = len(encodings)
    body = [
        *([f'{", ".join(targets)}, = head(view, start)'] if targets else []),
        *steps,
        f'sample = {{{", ".join(items)}}} if {end} == end else None',
    ]
    lines = [
        'def bind(names, helpers, head, data, view, offsets, explain):',
        f'    ({"".join(f"name{number}, " for number in range(count))}) = names',
        f'    ({"".join(f"h{number}, " for number in range(count))}) = helpers',
        '    def read(number):',
        '        start, end = offsets[number], offsets[number + 1]',
        '        try:',
        *(f'            {line}' for line in body),
        '        except failures:',
        '            sample = None',
        '        return explain(number) if sample is None else sample',
        '    def read_each(numbers, starts, ends):',
        '        for number, start, end in zip(numbers, starts, ends):',
        '            try:',
        *(f'                {line}' for line in body),
        '            except failures:',
        '                sample = None',
        '            yield explain(number) if sample is None else sample',
        '    return read, read_each',
    ]
    return head, '\n'.join(lines)


def _plan_head(encodings: Sequence[Encoding], wanted: Sequence[bool]) -> tuple[str, list[str]]:
    """What one call of struct reads: all sizes, and the whole numbers among the columns before the first of variable size."""
    variable = [number for number, encoding in enumerate(encodings) if encoding.size is None]
    head, targets = f'<{len(variable)}I', [f'size{number}' for number in variable]
    skipped = 0
    for number, encoding in enumerate(encodings[: variable[0]] if variable else encodings):
        if type(encoding) is Scalar and encoding.kind is int and wanted[number]:
            head += f'{skipped}xq'
            targets.append(f'value{number}')
            skipped = 0
        else:
            skipped += encoding.size or 0
    return head, targets


def write_value(number: int, encoding: Encoding, start: str, end: str, size: str) -> str:
    """The expression for a value of column ``number``, between two places, with ``size`` bytes."""
    kind = type(encoding)
    if isinstance(encoding, Scalar) and kind is Scalar:
        return f'h{number}({start})' if encoding.kind is int else f'h{number}[{start}]'
    if kind is Bool:
        return f'(False, True)[data[{start}]]'
    if kind is Raw:
        return f'data[{start}:{end}]'
    if kind is Str:
        return f"(data[{start}:{end}].decode() if {size} < {LONG_TEXT} else str(view[{start}:{end}], 'utf-8'))"
    if isinstance(encoding, Array) and kind is Array:
        return f'h{number}[{start}].copy()' if is_regular(encoding) else f'h{number}({start}, {end})'
    return f'h{number}(view[{start}:{end}])'
