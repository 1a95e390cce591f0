"""A dataset that is one already: cut into other shards, compressed otherwise, encoded otherwise, with fewer columns.

What keeps its encoding is copied as bytes; nothing is decoded that nobody looks at.
"""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from streaming.errors import ArgumentError, CorruptError, FormatError
from streaming.format.compression import get_codec
from streaming.format.hashing import cheapest, hash_bytes
from streaming.format.index import FileInfo, ShardInfo, ShardTable
from streaming.format.mds import MDSSchema, read_offsets
from streaming.format.meta import read_meta
from streaming.readers.decoding import text_schema
from streaming.readers.raw import map_raw
from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files
from streaming.writers.destination import INDEX

__all__ = ['MDSSource']

# Samples that are given at a time.
_SAMPLES = 1024
# Readers of one shard: each brings and unpacks the whole.
_MOST_READERS = 8


class MDSSource(Source):
    """Datasets of shards: one, or one in each sub-folder, which are splits then.

    Args:
        files: Where they lie.
        suffixes: Nothing: the index says what its files are.

    Raises:
        FormatError: an index is none.
    """

    name = 'mds'
    gives_encoded = True

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        self._files = files
        found = [file for file in files.find() if posixpath.basename(file.key) == INDEX]
        own = [file for file in found if file.key == INDEX]
        # Below a dataset that was merged, its parts have indices too.
        found = own or [file for file in found if file.key.count('/') == 1]
        if not found:
            raise FormatError(f'{files.url} has no {INDEX}: it is no dataset, or not finished')
        self.url = files.url
        self._tables = [
            (file, ShardTable.from_json(files.read(file.place, file.key), files.name(file.place, file.key))) for file in found
        ]
        self.splits = [] if own else [posixpath.dirname(file.key) for file in found]
        self._encodings = self._columns()

    def _columns(self) -> dict[str, str]:
        for _, table in self._tables:
            if len(table):
                shard = table[0]
                return dict(shard.columns) or dict(zip(shard.column_names, shard.column_encodings, strict=True))
        raise FormatError(f'{self.url} has no samples, so there is nothing to convert')

    def describe(self) -> Mapping[str, Any]:
        return self._files.describe()

    def encodings(self) -> dict[str, str]:
        return dict(self._encodings)

    def total_bytes(self) -> int:
        return sum(int(table.raw_bytes.sum()) for _, table in self._tables)

    def ranges(self, part_bytes: int) -> list[Range]:
        found = []
        for file, table in self._tables:
            folder = posixpath.dirname(file.key)
            for number in range(len(table)):
                shard: ShardInfo = table[number]
                size = sum(stored.bytes for stored in shard.raw_files)
                readers = max(1, min(_MOST_READERS, round(size / max(1, part_bytes)), shard.samples))
                for start, end in pairwise(shard.samples * part // readers for part in range(readers + 1)):
                    found.append(
                        Range(
                            place=file.place,
                            key=folder,
                            start=start,
                            end=end,
                            bytes=size // readers,
                            records=end - start,
                            split=folder if self.splits else '',
                            extra=shard,
                        )
                    )
        return found

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        shard: ShardInfo = piece.extra
        name = self._files.name(piece.place, posixpath.join(piece.key, shard.raw_data.basename))
        decode, offsets, data = self._open(piece, name, wanted)
        end = shard.samples if piece.end is None else piece.end
        for start in range(piece.start, end, _SAMPLES):
            stop = min(end, start + _SAMPLES)
            bounds = offsets[start : stop + 1]
            records = [_decoded(decode, data[first:last]) for first, last in pairwise(bounds)]
            yield Batch(records, lambda number, start=start: f'{name}, sample {start + number}', bounds[-1] - bounds[0])  # type: ignore[misc]

    def _open(
        self, piece: Range, name: str, wanted: Wanted
    ) -> tuple[Callable[[memoryview], Mapping[str, Any]], list[int], memoryview]:
        """What decodes a sample, where they are, and the bytes of the shard."""
        shard: ShardInfo = piece.extra
        files = [self._bytes(piece, raw, stored, shard) for raw, stored in zip(shard.raw_files, shard.stored, strict=True)]
        if shard.format != 'mds':
            decoder = text_schema(shard, name).decoder(wanted.columns)
            return decoder, read_meta(files[1], shard.samples, len(files[0]), name).tolist(), files[0]
        schema = MDSSchema.of_shard(shard, name)
        columns = [column for column in schema.names if wanted.columns is None or column in wanted.columns]
        kept = {column for column in columns if wanted.as_bytes and wanted.encodings.get(column) == self._encodings.get(column)}
        unsafe = sorted(set(schema.unsafe_columns) & set(columns) - kept)
        if unsafe:
            raise ArgumentError(
                f'{name}: reading column {", ".join(unsafe)} can run any code that its writer put there, so it is only copied as '
                'it is, without a function that looks at it: leave it out by select=, or leave out what needs it'
            )
        encodings = tuple(
            'bytes' if column in kept else encoding for column, encoding in zip(schema.names, schema.encodings, strict=True)
        )
        decode = MDSSchema(schema.names, encodings, schema.sizes).decoder(columns)
        return decode, read_offsets(files[0], shard.samples, name).tolist(), files[0]

    def _bytes(self, piece: Range, raw: FileInfo, stored: FileInfo, shard: ShardInfo) -> memoryview:
        """A file of a shard, uncompressed: mapped where it lies on this machine, else in memory."""
        folder = self._files.path(piece.place, piece.key or '.')
        if folder is not None:
            return map_raw(folder, raw, stored, shard.compression)[0]
        key = posixpath.join(piece.key, stored.basename)
        name = self._files.name(piece.place, key)
        data = self._files.read(piece.place, key)
        if len(data) != stored.bytes:
            raise CorruptError(f'{name} has {len(data)} bytes, the index says {stored.bytes}')
        check = cheapest(stored.hashes)
        if check is not None and hash_bytes(check, data) != stored.hashes[check]:
            raise CorruptError(f'{name}: its {check} is not what the index says')
        if shard.compression is None:
            return memoryview(data)
        try:
            return memoryview(get_codec(shard.compression).decompress(data, raw.bytes))
        except CorruptError as error:
            raise CorruptError(f'{name}: {error}') from error

    def close(self) -> None:
        self._files.close()

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, '_tables': []}


def _decoded(decode: Callable[[memoryview], Mapping[str, Any]], data: memoryview) -> Mapping[str, Any] | BadRecord:
    try:
        return decode(data)
    except FormatError as error:
        return BadRecord(str(error))
