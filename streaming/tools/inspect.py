"""What a dataset is: its columns, shards, bytes and first samples, from its index and a few ranges."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streaming.errors import ArgumentError
from streaming.format.index import ShardInfo, ShardTable
from streaming.format.mds import MDSSchema
from streaming.tools.source import DatasetSource

__all__ = ['Inspection', 'Schema', 'columns_of', 'inspect_dataset']


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What some shards of a dataset have in common.

    Args:
        format: ``'mds'``, ``'json'``, ``'csv'``, ``'tsv'`` or ``'xsv'``.
        compression: The codec, None where shards are stored as they are.
        hashes: The hashes that are recorded of each file.
        columns: The encoding of each column.
        shards: How many shards these are.
        samples: How many samples they have.
    """

    format: str
    compression: str | None
    hashes: tuple[str, ...]
    columns: Mapping[str, str]
    shards: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A dataset, described.

    Args:
        url: Its root, without secrets.
        index_sha256: What tells this version of it from others.
        index_bytes: Size of its index.
        shards: How many there are.
        samples: How many there are.
        raw_bytes: Of all shards' files, not compressed.
        stored_bytes: Of all shards' files as they lie in the store.
        shard_samples: Samples of a shard: the least, the median, the most.
        shard_bytes: Bytes of a shard in the store: the least, the median, the most.
        schemas: What the shards are; one, unless datasets were merged that differ.
        first: The first samples, without the columns in ``unread``.
        unread: Columns that were not read, because that can run code.
    """

    url: str
    index_sha256: str
    index_bytes: int
    shards: int
    samples: int
    raw_bytes: int
    stored_bytes: int
    shard_samples: tuple[int, int, int]
    shard_bytes: tuple[int, int, int]
    schemas: tuple[Schema, ...]
    first: tuple[dict[str, Any], ...]
    unread: tuple[str, ...]


def inspect_dataset(url: str | Path, *, samples: int = 3) -> Inspection:
    """Describe a dataset. Of a shard that is not compressed only the ranges of the first samples are read.

    Args:
        url: A path or a URL of its root.
        samples: How many of the first samples to read, 0 or more. Default: 3.

    Raises:
        ArgumentError: samples is negative.
        NotFoundError: there is no dataset.
        FormatError: its index or its first shard is not what the format says.
    """
    if samples < 0:
        raise ArgumentError(f'samples must not be negative, got {samples}')
    with DatasetSource(url) as source:
        table = source.table
        schemas = _schemas(table)
        first, unread = _first_samples(source, min(samples, table.num_samples))
        return Inspection(
            url=source.url,
            index_sha256=source.index_sha256,
            index_bytes=len(source.index),
            shards=len(table),
            samples=table.num_samples,
            raw_bytes=int(table.raw_bytes.sum()),
            stored_bytes=int(table.stored_bytes.sum()),
            shard_samples=_spread(table.samples),
            shard_bytes=_spread(table.stored_bytes),
            schemas=schemas,
            first=first,
            unread=unread,
        )


def columns_of(shard: ShardInfo) -> dict[str, str]:
    """The encoding of each column of a shard."""
    return dict(shard.columns) or dict(zip(shard.column_names, shard.column_encodings, strict=True))


def _schemas(table: ShardTable) -> tuple[Schema, ...]:
    shards: Counter[tuple[Any, ...]] = Counter()
    samples: Counter[tuple[Any, ...]] = Counter()
    for shard in table:
        key = (shard.format, shard.compression, shard.hashes, tuple(columns_of(shard).items()))
        shards[key] += 1
        samples[key] += shard.samples
    return tuple(
        Schema(format=key[0], compression=key[1], hashes=key[2], columns=dict(key[3]), shards=count, samples=samples[key])
        for key, count in shards.items()
    )


def _first_samples(source: DatasetSource, count: int) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Samples of the first shard only: a compressed one has to be fetched whole."""
    if not count:
        return (), ()
    shard = source.table[source.table.locate(0)[0]]
    unread = tuple(MDSSchema.of_shard(shard, source.url).unsafe_columns) if shard.format == 'mds' else ()
    wanted = [name for name in columns_of(shard) if name not in unread]
    if not wanted:
        return (), unread
    return tuple(source.samples(0, min(count, shard.samples), columns=wanted)), unread


def _spread(values: Any) -> tuple[int, int, int]:
    if not len(values):
        return 0, 0, 0
    return int(values.min()), int(np.median(values)), int(values.max())
