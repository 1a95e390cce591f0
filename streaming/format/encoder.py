"""Functions that encode one sample, written for its columns: the inverse of `streaming.readers.compiled`, made the same way.

A value that is what its column mostly takes goes the short way. Any other sends the whole sample to a general encoder, which
knows what else may be taken, and says what is wrong with the rest.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from streaming.format.arrays import Array
from streaming.format.columns import Encoding, Raw, Str

__all__ = ['compile_encoder']

Encode = Callable[[Mapping[str, Any]], bytes]

_failures = (LookupError, TypeError, ValueError, OverflowError, BufferError, struct.error)


def compile_encoder(names: Sequence[str], encodings: Sequence[Encoding], general: Encode) -> Encode:
    """A function from a sample to its bytes.

    Args:
        names: Of the columns.
        encodings: Of the columns.
        general: Encodes any sample, or raises what is wrong with it.
    """
    bind, formats = _compile(tuple(encodings))
    helpers = [_like_the_last(encoding) if isinstance(encoding, Array) else encoding.encode for encoding in encodings]
    packs = [struct.Struct(one).pack for one in formats]
    encode: Encode = bind(tuple(names), helpers, packs, general)
    return encode


def _like_the_last(encoding: Array) -> Callable[[Any], tuple[bytes, Any, int]]:
    """A function from an array to its head, what has the bytes of its values, and how many bytes both are.

    Arrays mostly have the dtype and shape of the one before, and then its head.
    """
    last_dtype, last_shape, last_head, last_size = np.dtype(object), (-1,), b'', -1

    def encode(value: Any) -> tuple[bytes, Any, int]:
        nonlocal last_dtype, last_shape, last_head, last_size
        if type(value) is np.ndarray and value.dtype is last_dtype and value.shape == last_shape:
            return last_head, value, last_size
        data = value if type(value) is bytes else encoding.encode(value)
        if type(value) is np.ndarray and encoding.keeps(value.dtype) and value.size:
            last_dtype, last_shape, last_size = value.dtype, value.shape, len(data)
            last_head = data[: len(data) - value.nbytes]
        return data, b'', len(data)

    return encode


@lru_cache(maxsize=1024)
def _compile(encodings: tuple[Encoding, ...]) -> tuple[Callable[..., Encode], list[str]]:
    source, formats = _write_source(encodings)
    namespace: dict[str, Any] = {'join': b''.join, 'failures': _failures}
    exec(compile(source, '<encoder of a schema>', 'exec'), namespace)
    return namespace['bind'], formats


def _write_source(encodings: Sequence[Encoding]) -> tuple[str, list[str]]:
    """The source of ``bind``, and the formats of what is packed by struct: the sizes first."""
    variable = [number for number, encoding in enumerate(encodings) if encoding.size is None]
    formats, packed = [f'<{len(variable)}I'], [[f'size{number}' for number in variable]]
    steps, parts = [], ['head']
    for number, encoding in enumerate(encodings):
        value = f'value{number}'
        if encoding.code is not None:
            if parts[-1] not in ('head', 'numbers'):
                formats.append('<')
                packed.append([])
                parts.append('numbers')
            formats[-1] += encoding.code
            packed[-1].append(f'sample[name{number}]')
            continue
        steps += [f'{value} = sample[name{number}]', *_write_step(number, encoding)]
        parts += [f'head{number}', value] if isinstance(encoding, Array) else [value]
    packs = iter([f'pack{number}({", ".join(values)})' for number, values in enumerate(packed)])
    joined = [next(packs) if part in ('head', 'numbers') else part for part in parts]
    result = joined[0] if len(joined) == 1 else f'join(({", ".join(joined)}))'
    count = len(encodings)
    lines = [
        'def bind(names, helpers, packs, general):',
        f'    ({"".join(f"name{number}, " for number in range(count))}) = names',
        f'    ({"".join(f"h{number}, " for number in range(count))}) = helpers',
        f'    ({"".join(f"pack{number}, " for number in range(len(formats)))}) = packs',
        '    def encode(sample):',
        '        try:',
        *(f'            {step}' for step in steps),
        f'            return {result}',
        '        except failures:',
        '            return general(sample)',
        '    return encode',
    ]
    return '\n'.join(lines), formats


def _write_step(number: int, encoding: Encoding) -> list[str]:
    """What makes the bytes of a value, or finds that it is of an unusual type."""
    value, size = f'value{number}', f'size{number}'
    if isinstance(encoding, Array):
        found = [f'head{number}, {value}, {size} = h{number}({value})']
    elif type(encoding) is Raw:
        found = [f'if type({value}) is not bytes: return general(sample)', f'{size} = len({value})']
    elif type(encoding) is Str:
        found = [f'if type({value}) is not str: return general(sample)', f'{value} = {value}.encode()', f'{size} = len({value})']
    else:
        found = [f'if type({value}) is not bytes: {value} = h{number}({value})', f'{size} = len({value})']
    return found if encoding.size is None else [*found, f'if {size} != {encoding.size}: return general(sample)']
