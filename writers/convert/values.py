"""A value as its source has it -> one that the encoding of its column takes."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from io import BytesIO
from typing import Any

import numpy as np

from streaming.errors import ColumnTypeError, MissingExtraError
from streaming.format.columns import get_encoding

__all__ = ['JPEG', 'PNG', 'Fitter', 'text_parser']

JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_TRUE, _FALSE = ('true', '1', 'yes'), ('false', '0', 'no')


class Fitter:
    """Makes records fit the encodings of their columns.

    Args:
        columns: Their encodings.
        is_text: Whether numbers and so on come as texts.
        is_ragged: Whether a record may lack what others have; in a column of JSON that is null.

    Attributes:
        fits: What makes a value fit, by column; those whose values are as they should be already are not there.
        may_lack: The columns that a record may lack.
    """

    def __init__(self, columns: Mapping[str, str], *, is_text: bool, is_ragged: bool) -> None:
        self._columns = columns
        self.fits = {name: made for name, encoding in columns.items() if (made := _fitter_of(encoding, is_text)) is not None}
        self.may_lack = [name for name, encoding in columns.items() if encoding == 'json'] if is_ragged else []

    def __call__(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record with values that fit.

        Raises:
            ColumnTypeError: one cannot be made to fit; names the column.
        """
        if not self.fits and not self.may_lack:
            return record
        fitted = dict(record)
        for name in self.may_lack:
            fitted.setdefault(name, None)
        for name, fit in self.fits.items():
            if name in fitted:
                try:
                    fitted[name] = fit(fitted[name])
                except (ValueError, TypeError, OverflowError, InvalidOperation) as error:
                    raise ColumnTypeError(
                        f'column {name!r}: {fitted[name]!r:.80} cannot be made {self._columns[name]}: {error}'
                    ) from error
        return fitted


def _fitter_of(encoding: str, is_text: bool) -> Callable[[Any], Any] | None:
    if encoding.startswith('ndarray'):
        _, _, rest = encoding.partition(':')
        dtype, _, shape = rest.partition(':')
        sizes = tuple(int(size) for size in shape.split(',')) if shape else None
        return lambda value: _array(value, dtype or None, sizes)
    if encoding in ('jpeg', 'png', 'pil'):
        return lambda value: _image(value, encoding)
    if is_text:
        return text_parser(encoding)
    if encoding == 'str_decimal':
        return lambda value: Decimal(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else value
    return None


def text_parser(encoding: str) -> Callable[[str], Any] | None:
    """A function from a text to the value of an encoding that it stands for; None where that is the text itself."""
    if encoding == 'json':
        return json.loads
    if encoding == 'bool':
        return _bool
    if encoding in ('str_decimal', 'str_int', 'str_float'):
        return {'str_decimal': Decimal, 'str_int': int, 'str_float': float}[encoding]
    code = get_encoding(encoding).code
    if code is not None:
        return int if code in 'bBhHiIqQ' else float
    return float if encoding == 'bfloat16' else None


def _bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError('it is neither true nor false')


def _array(value: Any, dtype: str | None, shape: tuple[int, ...] | None) -> Any:
    """An array of a list, or of JSON; one of another dtype only where no whole number changes."""
    if isinstance(value, np.ndarray) and shape is None and value.dtype.name == dtype:
        return value
    if isinstance(value, bytes):
        return value  # encoded already
    if isinstance(value, str):
        value = json.loads(value)
    array = np.asarray(value)
    if dtype is not None and array.dtype.name != dtype:
        if array.dtype.kind not in 'biuf':
            raise ValueError('it is no array of numbers')
        cast = array.astype(dtype)
        if np.dtype(dtype).kind in 'iu' and not np.array_equal(cast, array):
            raise ValueError(f'a value is not of {dtype}')
        array = cast
    return array.reshape(shape) if shape is not None and array.shape != shape else array


def _image(value: Any, encoding: str) -> Any:
    """An image of the bytes of a file, unless those are what the encoding holds."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return value
    data = bytes(value)
    if (encoding == 'jpeg' and data.startswith(JPEG)) or (encoding == 'png' and data.startswith(PNG)):
        return data
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("images need Pillow: pip install 'streaming-dataset[images]'") from error
    try:
        image = Image.open(BytesIO(data))
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'it is no image: {error}') from error
    return image.convert('RGB') if encoding == 'jpeg' and image.mode not in ('L', 'RGB', 'CMYK') else image
