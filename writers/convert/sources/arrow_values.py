"""Columns of Arrow -> encodings, and their values -> what those encodings take."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from streaming.errors import MissingExtraError
from streaming.format.columns import get_encoding
from streaming.writers.convert.sources.base import Batch, Wanted
from streaming.writers.convert.values import JPEG, PNG

__all__ = ['columns_of', 'encoding_of', 'load_arrow', 'records_of', 'schema_encodings']


def load_arrow() -> ModuleType:
    """The package that reads Arrow and Parquet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Arrow and Parquet files need pyarrow: pip install 'streaming-dataset[convert]'") from error
    module: ModuleType = pyarrow
    return module


def encoding_of(kind: Any) -> str:
    """The encoding for an Arrow type; what has none of its own is JSON."""
    pa = load_arrow()
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return encoding_of(kind.storage_type)
    if types.is_dictionary(kind):
        return encoding_of(kind.value_type)
    if types.is_int64(kind):
        return 'int'
    if types.is_boolean(kind):
        return 'bool'
    if types.is_integer(kind) or types.is_floating(kind):
        return _numpy_name(kind)
    if _is_string(kind) or types.is_temporal(kind):
        return 'str'
    if _is_binary(kind):
        return 'bytes'
    if types.is_decimal(kind):
        return 'str_decimal'
    if _is_list(kind) and (types.is_integer(kind.value_type) or types.is_floating(kind.value_type)):
        return f'ndarray:{_numpy_name(kind.value_type)}'
    if types.is_fixed_size_list(kind) and (types.is_integer(kind.value_type) or types.is_floating(kind.value_type)):
        return f'ndarray:{_numpy_name(kind.value_type)}:{kind.list_size}'
    return 'json'


def schema_encodings(schema: Any, peek: Callable[[str], Any]) -> dict[str, str]:
    """The encodings of a schema's columns. Files in the images of ``datasets`` are of the kind that the first one is of.

    Args:
        schema: An Arrow schema.
        peek: Gives a value of a column.
    """
    encodings = {field.name: encoding_of(field.type) for field in schema}
    for field in schema:
        if _is_file(field.type):
            first = peek(field.name)
            data = (first or {}).get('bytes') or b''
            encodings[field.name] = 'jpeg' if data.startswith(JPEG) else 'png' if data.startswith(PNG) else 'bytes'
    return encodings


def _is_file(kind: Any) -> bool:
    """Whether values are what the features Image and Audio of ``datasets`` are: a file's bytes, or where it was."""
    types = load_arrow().types
    return (
        bool(types.is_struct(kind))
        and {field.name for field in kind} == {'bytes', 'path'}
        and _is_binary(kind.field('bytes').type)
    )


def _numpy_name(kind: Any) -> str:
    return str(np.dtype(kind.to_pandas_dtype()).name)


def _is_string(kind: Any) -> bool:
    types = load_arrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_binary(kind: Any) -> bool:
    types = load_arrow().types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_list(kind: Any) -> bool:
    types = load_arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind))


def columns_of(batch: Any, wanted: Wanted) -> dict[str, Any]:
    """The columns of a RecordBatch, as a batch of records has them."""
    return {
        name: _values(batch.column(number), wanted.encodings.get(name), wanted) for number, name in enumerate(batch.schema.names)
    }


def records_of(batch: Any, wanted: Wanted) -> Sequence[Any]:
    """The rows of a RecordBatch as samples."""
    return Batch(None, str, 0, columns_of(batch, wanted)).records


def _values(array: Any, encoding: str | None, wanted: Wanted) -> Any:
    """The values of a column, one a row: for an encoding that takes an array, arrays; None where there is none."""
    pa = load_arrow()
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _values(array.storage, encoding, wanted)
    if pa.types.is_dictionary(kind):
        return _values(array.dictionary_decode(), encoding, wanted)
    if pa.types.is_temporal(kind):
        return [value if value is None else str(getattr(value, 'isoformat', value.__str__)()) for value in array.to_pylist()]
    if _is_file(kind) and encoding != 'json':
        return array.field('bytes').to_pylist()
    if array.null_count:
        return _objects(array)
    if _is_string(kind):
        texts = _slices(array, kind)
        return texts if wanted.as_bytes and encoding == 'str' else [str(text, 'utf-8') for text in texts]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _slices(array, kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return array.to_numpy(zero_copy_only=False)
    if encoding is not None and encoding.startswith('ndarray') and not array.flatten().null_count:
        return _arrays(array, kind, encoding if wanted.as_bytes else '')
    return _objects(array)


def _objects(array: Any) -> Any:
    """The values as plain objects; maps as dictionaries, at any depth."""
    return array.to_pylist(maps_as_pydicts='strict')


def _slices(array: Any, kind: Any) -> list[bytes]:
    """The bytes of each value, cut out of the column's buffer."""
    wide = str(kind).startswith('large')
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64 if wide else np.int32, len(array) + 1, array.offset * (8 if wide else 4))
    if data is None or not len(bounds):
        return [b''] * len(array)
    first = int(bounds[0])
    text = data.slice(first, int(bounds[-1]) - first).to_pybytes()
    return [text[start:end] for start, end in pairwise((bounds - first).tolist())]


def _arrays(array: Any, kind: Any, encoding: str) -> Any:
    """A list column as an array (rows, ...), as one array a row, or as what the encoding makes of each.

    Args:
        array: The column.
        kind: Its type.
        encoding: Empty: rows are to stay arrays.
    """
    values = array.flatten().to_numpy(zero_copy_only=False)
    if load_arrow().types.is_fixed_size_list(kind):
        return values.reshape(len(array), kind.list_size)
    if not len(array):
        return []
    bounds = array.offsets.to_numpy()
    bounds = bounds - bounds[0]
    if encoding != f'ndarray:{values.dtype.name}':
        return [values[start:end] for start, end in pairwise(bounds.tolist())]
    # What stands before the values says how many there are.
    heads = {length: _head(encoding, values.dtype, length) for length in np.unique(np.diff(bounds)).tolist()}
    data = values.astype(values.dtype.newbyteorder('<'), copy=False).tobytes()
    steps = pairwise((bounds * values.dtype.itemsize).tolist())
    return [heads[(end - start) // values.dtype.itemsize] + data[start:end] for start, end in steps]


def _head(encoding: str, dtype: Any, length: int) -> bytes:
    """What an encoding writes before the values of an array."""
    encoded = get_encoding(encoding).encode(np.zeros(length, dtype))
    return encoded[: len(encoded) - length * dtype.itemsize]
