"""What an index says of one shard."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ['FILES', 'FORMATS', 'INDEX_VERSION', 'SCHEMA_KEYS', 'FileInfo', 'ShardInfo']

INDEX_VERSION = 2

FORMATS = ('mds', 'json', 'csv', 'tsv', 'xsv')

# Keys of a shard's files: data, and for text formats the offsets beside them.
FILES = {'mds': ('data',), **dict.fromkeys(FORMATS[1:], ('data', 'meta'))}

# What a shard's entry says beside its files and its number of samples, by format.
SCHEMA_KEYS = {
    'mds': ('column_encodings', 'column_names', 'column_sizes'),
    'json': ('columns', 'newline'),
    'csv': ('column_encodings', 'column_names', 'newline'),
    'tsv': ('column_encodings', 'column_names', 'newline'),
    'xsv': ('column_encodings', 'column_names', 'newline', 'separator'),
}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a shard.

    Args:
        basename: Its key under the dataset's root; may hold sub-folders.
        bytes: Its size.
        hashes: Hex digests by the hash's name.
    """

    basename: str
    bytes: int
    hashes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The entry in an index."""
        return {'basename': self.basename, 'bytes': self.bytes, 'hashes': dict(self.hashes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One shard's entry in the index.

    Args:
        format: ``'mds'``, ``'json'``, ``'csv'``, ``'tsv'`` or ``'xsv'``.
        samples: How many samples it has.
        raw_data: The uncompressed file of samples.
        raw_meta: The uncompressed file of offsets (text formats).
        zip_data: The compressed file of samples, where there is one; then only that is stored.
        zip_meta: The compressed file of offsets.
        compression: The codec, ``name[:level]``, or None.
        hashes: Names of the hashes that are recorded, sorted.
        size_limit: The writer's limit in bytes, or None.
        column_names: Sorted (not json).
        column_encodings: Of each column (not json).
        column_sizes: Bytes of each column, None where they vary (mds).
        columns: Encoding by name (json).
        newline: What ends a line (text formats).
        separator: What stands between values (csv, tsv, xsv).
    """

    format: str
    samples: int
    raw_data: FileInfo
    raw_meta: FileInfo | None = None
    zip_data: FileInfo | None = None
    zip_meta: FileInfo | None = None
    compression: str | None = None
    hashes: tuple[str, ...] = ()
    size_limit: int | None = None
    column_names: tuple[str, ...] = ()
    column_encodings: tuple[str, ...] = ()
    column_sizes: tuple[int | None, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    newline: str | None = None
    separator: str | None = None

    @property
    def raw_files(self) -> tuple[FileInfo, ...]:
        """The uncompressed files: data, then offsets where they are a file of their own."""
        return (self.raw_data,) if self.raw_meta is None else (self.raw_data, self.raw_meta)

    @property
    def stored(self) -> tuple[FileInfo, ...]:
        """The files that lie in the store, parallel to `raw_files`."""
        if self.zip_data is None:
            return self.raw_files
        return (self.zip_data,) if self.zip_meta is None else (self.zip_data, self.zip_meta)

    def to_json(self) -> dict[str, Any]:
        """The entry in an index."""
        entry: dict[str, Any] = {
            'version': INDEX_VERSION,
            'format': self.format,
            'compression': self.compression,
            'hashes': list(self.hashes),
            'samples': self.samples,
            'size_limit': self.size_limit,
        }
        for key in SCHEMA_KEYS[self.format]:
            value = getattr(self, key)
            entry[key] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
        for kind in FILES[self.format]:
            for state in ('raw', 'zip'):
                file = getattr(self, f'{state}_{kind}')
                entry[f'{state}_{kind}'] = None if file is None else file.to_json()
        return entry
