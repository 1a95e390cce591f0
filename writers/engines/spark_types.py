"""Types of Spark's columns -> encodings, and whether an encoding can take them."""

from collections.abc import Mapping
from typing import Any

from streaming.errors import ArgumentError
from streaming.format.columns import get_encoding
from streaming.writers.engines.load import load_extra

__all__ = ['check_dataframe_columns', 'encodings_of_types', 'infer_dataframe_columns', 'is_json_compatible', 'spark_to_mds']

# By the name of the type's class. Spark's integers have signs: uint8 and uint16, which mosaicml-streaming infers for the first
# two, cannot hold all of their values. Who asks for those gets them.
_ENCODINGS = {
    'ByteType': 'int8',
    'ShortType': 'int16',
    'IntegerType': 'int32',
    'LongType': 'int64',
    'FloatType': 'float32',
    'DoubleType': 'float64',
    'DecimalType': 'str_decimal',
    'StringType': 'str',
    'VarcharType': 'str',
    'CharType': 'str',
    'BinaryType': 'bytes',
    'BooleanType': 'bool',
    'DateType': 'str',
    'TimestampType': 'str',
    'TimestampNTZType': 'str',
}
_WITH_LENGTH = ('VarcharType', 'CharType')
_NUMBERS = {'ByteType', 'ShortType', 'IntegerType', 'LongType', 'FloatType', 'DoubleType'}
_JSON_LEAVES = {*_NUMBERS, 'StringType', 'VarcharType', 'CharType', 'BooleanType', 'NullType'}
_NUMBERS_AS_TEXT = {'str_int', 'str_float', 'str_decimal'}


def is_json_compatible(data_type: Any) -> bool:
    """Whether JSON can hold all values of a Spark type: numbers, texts, booleans, nulls, and arrays, maps and structs of such."""
    name = type(data_type).__name__
    if name == 'StructType':
        return all(is_json_compatible(field.dataType) for field in data_type.fields)
    if name == 'ArrayType':
        return is_json_compatible(data_type.elementType)
    if name == 'MapType':
        return type(data_type.keyType).__name__ == 'StringType' and is_json_compatible(data_type.valueType)
    return name in _JSON_LEAVES


def spark_to_mds(data_type: Any) -> str | None:
    """The encoding for a Spark type; None where there is none."""
    name = type(data_type).__name__
    if name == 'ArrayType' and type(data_type.elementType).__name__ in _NUMBERS:
        return f'ndarray:{_ENCODINGS[type(data_type.elementType).__name__]}'
    if name in _ENCODINGS:
        return _ENCODINGS[name]
    return 'json' if name in ('ArrayType', 'MapType', 'StructType') and is_json_compatible(data_type) else None


def encodings_of_types() -> dict[Any, str | None]:
    """The encoding for each of Spark's simple types and for arrays of its numbers; None where there is none.

    Raises:
        MissingExtraError: Spark is not installed.
    """
    types = load_extra('pyspark.sql.types', 'spark')
    names = [name for name in (*_ENCODINGS, 'DayTimeIntervalType') if name not in _WITH_LENGTH]
    simple = [getattr(types, name)() for name in names]
    arrays = [types.ArrayType(kind) for name, kind in zip(names, simple, strict=True) if name in _NUMBERS]
    return {kind: spark_to_mds(kind) for kind in (*simple, *arrays)}


def infer_dataframe_columns(dataframe: Any) -> dict[str, str]:
    """The encodings for the columns of a DataFrame.

    Raises:
        ArgumentError: no encoding suggests itself for a column.
    """
    load_extra('pyspark.sql', 'spark')
    found = {field.name: spark_to_mds(field.dataType) for field in dataframe.schema.fields}
    unknown = {field.name: field.dataType.simpleString() for field in dataframe.schema.fields if found[field.name] is None}
    if unknown:
        raise ArgumentError(f'no encoding suggests itself for {unknown}: select other columns, or cast them')
    return {name: encoding for name, encoding in found.items() if encoding is not None}


def check_dataframe_columns(dataframe: Any, columns: Mapping[str, str]) -> None:
    """See that encodings can take the columns of a DataFrame.

    Raises:
        ArgumentError: one cannot, or there is no such column.
    """
    types = {field.name: field.dataType for field in dataframe.schema.fields}
    for name, encoding in columns.items():
        if name not in types:
            raise ArgumentError(f'the DataFrame has no column {name!r}; there are {", ".join(types)}')
        get_encoding(encoding)
        if not _takes(encoding, types[name]):
            raise ArgumentError(
                f'column {name!r} is {types[name].simpleString()} in the DataFrame, which cannot be written as {encoding!r}; '
                f'{spark_to_mds(types[name])!r} can hold it'
            )


def _takes(encoding: str, data_type: Any) -> bool:
    """Whether an encoding may take values of a Spark type. Whether it takes each one shows when they are written."""
    natural, name = spark_to_mds(data_type), type(data_type).__name__
    # Bytes are taken as encoded already: by any encoding.
    if name == 'BinaryType' or encoding == natural:
        return True
    if encoding == 'json':
        return is_json_compatible(data_type)
    if encoding.partition(':')[0] == 'ndarray':
        return natural is not None and natural.startswith('ndarray')
    if name in _NUMBERS or name == 'DecimalType':
        return encoding in _NUMBERS_AS_TEXT or encoding == 'bfloat16' or get_encoding(encoding).code is not None
    return False
