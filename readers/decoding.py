"""A sample's bytes -> the sample, whatever the shard's format and wherever the bytes come from."""

from collections.abc import Callable, Sequence
from typing import Any

from streaming.errors import ArgumentError, FormatError
from streaming.format.index import ShardInfo
from streaming.format.jsonl import JSONLSchema
from streaming.format.mds import MDSSchema
from streaming.format.xsv import XSVSchema

__all__ = ['sample_decoder', 'text_schema']


def sample_decoder(
    shard: ShardInfo, source: str, *, columns: Sequence[str] | None = None, allow_unsafe_types: bool = False
) -> Callable[[memoryview], dict[str, Any]]:
    """A function from a sample's bytes to the sample. It raises FormatError for bytes that are not such a sample.

    Args:
        shard: The shard that the sample is of.
        source: Its file, for messages.
        columns: Decode only these. Default: None, all.
        allow_unsafe_types: Whether ``pkl`` columns, which can run any code, may be read. Default: False.

    Raises:
        FormatError: the shard's columns are not what the format says.
        ArgumentError: there is no such column, or reading it is not allowed.
    """
    if shard.format != 'mds':
        return text_schema(shard, source).decoder(columns)
    schema = MDSSchema.of_shard(shard, source)
    unsafe = [name for name in schema.unsafe_columns if columns is None or name in columns]
    if unsafe and not allow_unsafe_types:
        raise ArgumentError(
            f'{source}: reading column {", ".join(unsafe)} can run any code that its writer put there; '
            'pass allow_unsafe_types=True if you trust the dataset, or leave it out of columns='
        )
    return schema.decoder(columns)


def text_schema(shard: ShardInfo, source: str) -> JSONLSchema | XSVSchema:
    """The schema of a shard of format json, csv, tsv or xsv.

    Raises:
        FormatError: it cannot be.
    """
    try:
        if shard.format == 'json':
            return JSONLSchema(shard.columns, shard.newline or '\n')
        return XSVSchema(shard.column_names, shard.column_encodings, shard.newline or '\n', shard.separator or ',')
    except ArgumentError as error:
        raise FormatError(f'{source}: {error}') from error
