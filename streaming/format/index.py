"""index.json <-> a table of shards.

Whatever an index says is checked here, before anything acts on it: names that lead out of the dataset, sizes and counts that
cannot be, files that two shards share.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from streaming.errors import FormatError

__all__ = ['FORMATS', 'INDEX_VERSION', 'FileInfo', 'Int64Array', 'ShardInfo', 'ShardTable', 'dump_index']

Int64Array = NDArray[np.int64]

INDEX_VERSION = 2

FORMATS = ('mds', 'json', 'csv', 'tsv', 'xsv')

# Keys of a shard's files: data, and for text formats the offsets beside them.
_FILES = {'mds': ('data',), **dict.fromkeys(FORMATS[1:], ('data', 'meta'))}

# What a shard's entry says beside its files and its number of samples, by format.
_SCHEMA_KEYS = {
    'mds': ('column_encodings', 'column_names', 'column_sizes'),
    'json': ('columns', 'newline'),
    'csv': ('column_encodings', 'column_names', 'newline'),
    'tsv': ('column_encodings', 'column_names', 'newline'),
    'xsv': ('column_encodings', 'column_names', 'newline', 'separator'),
}

_MOST_BYTES = 1 << 62


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

    @classmethod
    def from_json(cls, entry: Any, source: str) -> 'ShardInfo':
        """Check one entry of an index.

        Args:
            entry: The entry, as parsed.
            source: Where it stands, for messages.

        Raises:
            FormatError: it is not what the format says.
        """
        return _Checker(source).shard(entry)

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
        for key in _SCHEMA_KEYS[self.format]:
            value = getattr(self, key)
            entry[key] = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
        for kind in _FILES[self.format]:
            for state in ('raw', 'zip'):
                file = getattr(self, f'{state}_{kind}')
                entry[f'{state}_{kind}'] = None if file is None else file.to_json()
        return entry


def dump_index(shards: Sequence[ShardInfo]) -> bytes:
    """The text of an ``index.json``, byte for byte as mosaicml-streaming writes it."""
    index = {'version': INDEX_VERSION, 'shards': [shard.to_json() for shard in shards]}
    return json.dumps(index, sort_keys=True).encode()


class _Checker:
    """Holds what an index says against the format. Every complaint names the index and the shard."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._where = ''

    def refuse(self, what: str) -> NoReturn:
        raise FormatError(f'{self._source}{self._where}: {what}')

    def shards(self, data: bytes) -> list[ShardInfo]:
        index = self._parse(data)
        if not isinstance(index, dict):
            self.refuse(f'an index is an object, this is a {type(index).__name__}')
        if index.get('version') != INDEX_VERSION:
            self.refuse(f'version {index.get("version")!r} of the format; this library reads version {INDEX_VERSION}')
        entries = index.get('shards')
        if not isinstance(entries, list):
            self.refuse('it has no list of shards')
        shards = []
        for number, entry in enumerate(entries):
            self._where = f', shard {number}'
            shards.append(self.shard(entry))
        self._where = ''
        self._check_names(shards)
        return shards

    def _parse(self, data: bytes) -> Any:
        def refuse_constant(name: str) -> NoReturn:
            self.refuse(f'{name} is no JSON')

        try:
            return json.loads(data.decode('utf-8'), parse_constant=refuse_constant)
        except FormatError:
            raise
        except (ValueError, RecursionError) as error:
            raise FormatError(f'{self._source} is not JSON, or only a part of it: {error}') from error

    def _check_names(self, shards: Sequence[ShardInfo]) -> None:
        seen: set[str] = set()
        for number, shard in enumerate(shards):
            for name in {file.basename for file in (*shard.raw_files, *shard.stored)}:
                if name in seen:
                    self.refuse(f'shard {number} has the file {name!r} of another shard')
                seen.add(name)

    def shard(self, entry: Any) -> ShardInfo:
        if not isinstance(entry, dict):
            self.refuse(f'a shard is an object, this is a {type(entry).__name__}')
        if entry.get('version') != INDEX_VERSION:
            self.refuse(f'version {entry.get("version")!r} of the format; this library reads version {INDEX_VERSION}')
        kind = entry.get('format')
        if kind not in FORMATS:
            self.refuse(f'format {kind!r}; there are {", ".join(FORMATS)}')
        compression = entry.get('compression')
        if compression is not None and not isinstance(compression, str):
            self.refuse(f'compression is {compression!r}, not a name')
        files: dict[str, Any] = {}
        for file in _FILES[kind]:
            files[f'raw_{file}'] = self._file(entry, f'raw_{file}')
            files[f'zip_{file}'] = None if compression is None else self._file(entry, f'zip_{file}')
        size_limit = entry.get('size_limit')
        shard = ShardInfo(
            format=kind,
            samples=self._count(entry.get('samples'), 'samples'),
            compression=compression,
            hashes=tuple(self._strings(entry.get('hashes', []), 'hashes')),
            size_limit=None if size_limit is None else self._count(size_limit, 'size_limit'),
            **self._schema(entry, kind),
            **files,
        )
        # Each sample has an offset, so a count that is too large for the file is a lie.
        offsets = shard.raw_files[-1]
        if 4 * (shard.samples + 2) > offsets.bytes:
            self.refuse(f'{shard.samples} samples cannot be in {offsets.basename!r} of {offsets.bytes} bytes')
        return shard

    def _schema(self, entry: dict[str, Any], kind: str) -> dict[str, Any]:
        schema: dict[str, Any] = {}
        keys = _SCHEMA_KEYS[kind]
        if 'column_names' in keys:
            names = self._strings(entry.get('column_names'), 'column_names')
            encodings = self._strings(entry.get('column_encodings'), 'column_encodings')
            if len(names) != len(encodings) or len(set(names)) != len(names):
                self.refuse('column_names and column_encodings do not match, or a name stands twice')
            schema.update(column_names=tuple(names), column_encodings=tuple(encodings))
        if 'column_sizes' in keys:
            sizes = entry.get('column_sizes')
            if not isinstance(sizes, list) or len(sizes) != len(schema['column_names']):
                self.refuse('column_sizes is not a list as long as column_names')
            schema['column_sizes'] = tuple(None if size is None else self._count(size, 'column_sizes') for size in sizes)
        if 'columns' in keys:
            columns = entry.get('columns')
            if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
                self.refuse('columns is not an object of encodings')
            schema['columns'] = columns
        for key in ('newline', 'separator'):
            if key in keys:
                value = entry.get(key)
                if not isinstance(value, str) or not value:
                    self.refuse(f'{key} is {value!r}')
                schema[key] = value
        if kind in ('csv', 'tsv'):
            schema['separator'] = ',' if kind == 'csv' else '\t'
        return schema

    def _file(self, entry: dict[str, Any], key: str) -> FileInfo:
        value = entry.get(key)
        if not isinstance(value, dict):
            self.refuse(f'{key} is {"missing" if value is None else "not an object"}')
        hashes = value.get('hashes', {})
        if not isinstance(hashes, dict) or not all(isinstance(digest, str) for digest in hashes.values()):
            self.refuse(f'hashes of {key} are not an object of digests')
        return FileInfo(self._basename(value.get('basename'), key), self._count(value.get('bytes'), f'bytes of {key}'), hashes)

    def _basename(self, name: Any, key: str) -> str:
        inside = isinstance(name, str) and name and not any(part in ('', '.', '..') for part in name.split('/'))
        if not inside or any(letter in name for letter in '\\\0') or len(name) > 1024:
            self.refuse(f'{key} is named {name!r:.200}, which is not a file inside the dataset')
        if name == 'index.json' or name.startswith('.streaming/'):
            self.refuse(f'{key} is named {name!r}, which is not a shard')
        return str(name)

    def _count(self, value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_BYTES:
            self.refuse(f'{what} is {value!r:.100}, not a count')
        return int(value)

    def _strings(self, value: Any, what: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(f'{what} is not a list of names')
        return value


class ShardTable(Sequence[ShardInfo]):
    """The shards of a dataset, in order, and where each sample is among them.

    Args:
        shards: The shards.

    Attributes:
        samples: Samples of each shard, int64 (shards,).
        raw_bytes: Bytes of each shard's uncompressed files, int64 (shards,).
        stored_bytes: Bytes of each shard's files in the store, int64 (shards,).
        starts: First sample of each shard, and the end of the last, int64 (shards + 1,).
    """

    def __init__(self, shards: Sequence[ShardInfo]) -> None:
        self._shards = list(shards)
        count = len(self._shards)
        self.samples = np.fromiter((shard.samples for shard in self._shards), np.int64, count)
        self.raw_bytes = np.fromiter((sum(f.bytes for f in shard.raw_files) for shard in self._shards), np.int64, count)
        self.stored_bytes = np.fromiter((sum(f.bytes for f in shard.stored) for shard in self._shards), np.int64, count)
        self.starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.samples)])
        self._starts: list[int] = self.starts.tolist()

    @classmethod
    def from_json(cls, data: bytes, source: str) -> 'ShardTable':
        """Read an ``index.json``.

        Args:
            data: Its bytes.
            source: Its URL or path, for messages.

        Raises:
            FormatError: it is not an index, or says what cannot be.
        """
        return cls(_Checker(source).shards(data))

    @classmethod
    def concat(cls, tables: Sequence['ShardTable']) -> 'ShardTable':
        """The shards of several tables, one after the other."""
        return tables[0] if len(tables) == 1 else cls([shard for table in tables for shard in table])

    def to_json(self) -> bytes:
        """The text of the ``index.json``."""
        return dump_index(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: Any) -> Any:
        return self._shards[number]

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return self._starts[-1]

    def locate(self, sample_id: int) -> tuple[int, int]:
        """The shard of a sample, and its number in there.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= sample_id < self._starts[-1]:
            raise IndexError(f'sample {sample_id} of {self._starts[-1]}')
        shard = bisect_right(self._starts, sample_id) - 1
        return shard, sample_id - self._starts[shard]

    def find(self, sample_ids: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Shards of samples (N,), and their numbers in there (N,)."""
        shards = np.searchsorted(self.starts, sample_ids, side='right') - 1
        return shards, sample_ids - self.starts[shards]
