"""A value -> the encoding that suggests itself for its column."""

import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from streaming.errors import ArgumentError, ColumnTypeError
from streaming.format.columns import get_encoding

__all__ = ['infer_columns', 'infer_encoding']

_BY_TYPE: dict[type, str] = {
    bool: 'bool',
    float: 'float64',
    str: 'str',
    bytes: 'bytes',
    bytearray: 'bytes',
    memoryview: 'bytes',
    Decimal: 'str_decimal',
}
_JSON = (dict, list, tuple, type(None))


def infer_columns(sample: Mapping[str, Any]) -> dict[str, str]:
    """The encodings of the columns of a sample.

    Raises:
        ColumnTypeError: no encoding suggests itself for a value, or this is no sample.
    """
    if not isinstance(sample, Mapping) or not sample:
        raise ColumnTypeError(f'columns can be inferred from a mapping with at least one column, got {sample!r:.80}')
    columns = {}
    for name, value in sample.items():
        try:
            columns[name] = infer_encoding(value)
        except ColumnTypeError as error:
            raise ColumnTypeError(f'column {name!r}: {error}') from None
    return columns


def infer_encoding(value: Any) -> str:
    """The encoding for values like this one.

    Shapes of arrays are taken to vary and their dtype not to. Lists and dictionaries are JSON, lists of images are images.

    Raises:
        ColumnTypeError: no encoding suggests itself.
    """
    encoding = _suggest(value)
    try:
        get_encoding(encoding or '')
    except ArgumentError:
        raise ColumnTypeError(f'no encoding suggests itself for a {type(value).__name__}; give columns={{...}}') from None
    return str(encoding)


def _suggest(value: Any) -> str | None:
    found = _BY_TYPE.get(type(value))
    if found is not None:
        return found
    if isinstance(value, int):
        return 'int' if -(1 << 63) <= value < 1 << 63 else 'str_int'
    if isinstance(value, np.ndarray):
        return f'ndarray:{value.dtype.name}'
    if isinstance(value, np.generic):
        return str(value.dtype.name)
    if _is_image(value):
        return _image_encoding(value)
    if isinstance(value, (list, tuple)) and value and _is_image(value[0]):
        return f'list[{_image_encoding(value[0])}]'
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], bytes):
        return 'list[bytes]'
    return 'json' if isinstance(value, _JSON) else None


def _is_image(value: Any) -> bool:
    # Whoever has an image has loaded the package.
    pillow = sys.modules.get('PIL.Image')
    return pillow is not None and isinstance(value, pillow.Image)


def _image_encoding(value: Any) -> str:
    return {'JPEG': 'jpeg', 'PNG': 'png'}.get(value.format, 'pil')
