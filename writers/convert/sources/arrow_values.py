"""Columns of Arrow -> encodings, and their values -> what those encodings take."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from streaming.errors import MissingExtraError
from streaming.writers.convert.sources.base import Wanted
from streaming.writers.convert.values import JPEG, PNG

__all__ = ['encoding_of', 'load_arrow', 'records_of', 'schema_encodings']


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


def records_of(batch: Any, wanted: Wanted) -> list[dict[str, Any]]:
    """The rows of a RecordBatch as samples."""
    names = batch.schema.names
    columns = [_values(batch.column(number), wanted.encodings.get(name), wanted) for number, name in enumerate(names)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(array: Any, encoding: str | None, wanted: Wanted) -> Sequence[Any]:
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
        return array.field('bytes').to_pylist()  # type: ignore[no-any-return]
    if array.null_count:
        return _objects(array)
    if _is_string(kind):
        texts = _slices(array, kind)
        return texts if wanted.as_bytes and encoding == 'str' else [str(text, 'utf-8') for text in texts]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _slices(array, kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return array.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
    if encoding is not None and encoding.startswith('ndarray') and not array.flatten().null_count:
        return _arrays(array, kind)
    return _objects(array)


def _objects(array: Any) -> list[Any]:
    """The values as plain objects; maps as dictionaries, at any depth."""
    return array.to_pylist(maps_as_pydicts='strict')  # type: ignore[no-any-return]


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


def _arrays(array: Any, kind: Any) -> list[Any]:
    """A list column as one NumPy array a row."""
    if load_arrow().types.is_fixed_size_list(kind):
        return list(array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), kind.list_size))
    values = array.flatten().to_numpy(zero_copy_only=False)
    bounds = array.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise((bounds - bounds[0]).tolist())] if len(array) else []
