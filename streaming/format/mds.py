"""The MDS shard: a sample <-> its bytes, samples <-> a file.

    uint32            number of samples n
    uint32[n + 1]     offset of each sample from the start of the file, and the end of the last
    bytes             the shard's configuration, as JSON
    bytes             the samples: sizes of the variable columns (uint32 each), then all columns

All integers are little-endian.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError, ColumnTypeError, FormatError
from streaming.format.columns import check_names, decode_error, get_encoding
from streaming.format.encoder import compile_encoder
from streaming.format.index import INDEX_VERSION, ShardInfo

__all__ = ['MOST_BYTES', 'MDSSchema', 'head_bytes', 'read_offsets', 'shard_config', 'shard_head']

# Offsets are 32 bits wide.
MOST_BYTES = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class MDSSchema:
    """The columns of a shard, sorted by name.

    Args:
        names: Of the columns.
        encodings: Of each.
        sizes: Bytes of each column's values, None where they vary.
    """

    names: tuple[str, ...]
    encodings: tuple[str, ...]
    sizes: tuple[int | None, ...]

    @classmethod
    def from_columns(cls, columns: Mapping[str, str]) -> 'MDSSchema':
        """The schema of columns given as ``{name: encoding}``.

        Raises:
            ArgumentError: there are none, or an encoding does not exist.
        """
        if not isinstance(columns, Mapping) or not columns:
            raise ArgumentError(f'columns must be {{name: encoding}}, with at least one column; got {columns!r}')
        check_names(columns)
        names = tuple(sorted(columns))
        encodings = tuple(columns[name] for name in names)
        return cls(names, encodings, tuple(get_encoding(encoding).size for encoding in encodings))

    @classmethod
    def of_shard(cls, shard: ShardInfo, source: str) -> 'MDSSchema':
        """The schema of a shard in an index.

        Raises:
            FormatError: an encoding does not exist, or its size is not what the index says.
        """
        for name, encoding, size in zip(shard.column_names, shard.column_encodings, shard.column_sizes, strict=True):
            try:
                known = get_encoding(encoding).size
            except ArgumentError as error:
                raise FormatError(f'{source}: column {name!r}: {error}') from error
            if known != size:
                raise FormatError(f'{source}: column {name!r} ({encoding}) has size {known}, the index says {size}')
        return cls(shard.column_names, shard.column_encodings, shard.column_sizes)

    def encoder(self) -> Callable[[Mapping[str, Any]], bytes]:
        """A function from a sample to its bytes.

        It raises ColumnTypeError, naming the column, for a value that the encoding does not take, and for a missing column. What
        a sample has beside its columns is left out, as in mosaicml-streaming.
        """
        return compile_encoder(self.names, [get_encoding(encoding) for encoding in self.encodings], self.general_encoder())

    def general_encoder(self) -> Callable[[Mapping[str, Any]], bytes]:
        """As `encoder`, column by column: it knows all that a column takes, and says what is wrong with the rest."""
        columns = [
            (name, get_encoding(encoding).encode, size)
            for name, encoding, size in zip(self.names, self.encodings, self.sizes, strict=True)
        ]
        variable = sum(size is None for size in self.sizes)
        pack_sizes = struct.Struct(f'<{variable}I').pack
        known = frozenset(self.names)

        def encode(sample: Mapping[str, Any]) -> bytes:
            parts = [b'']
            sizes = []
            name = ''
            try:
                for name, encode_value, size in columns:
                    value = sample[name]
                    # A value that is bytes already is taken as encoded.
                    data = value if type(value) is bytes else encode_value(value)
                    if size is None:
                        sizes.append(len(data))
                    elif len(data) != size:
                        raise ColumnTypeError(f'its encoding writes {size} bytes, got {len(data)} bytes taken as encoded')
                    parts.append(data)
            except ColumnTypeError as error:
                raise ColumnTypeError(f'column {name!r}: {error}') from None
            except (KeyError, TypeError):
                _check_names(sample, known)
                raise
            try:
                parts[0] = pack_sizes(*sizes)
                return b''.join(parts)
            except struct.error:
                raise ArgumentError(
                    f'a column of the sample has {max(sizes)} bytes; MDS sizes are 32 bits wide: split the sample'
                ) from None

        return encode

    def decoder(self, columns: Sequence[str] | None = None) -> Callable[[memoryview], dict[str, Any]]:
        """A function from a sample's bytes to the sample.

        It raises FormatError for bytes that are not such a sample.

        Args:
            columns: Decode only these. Default: None, all.

        Raises:
            ArgumentError: the shard has no such column.
        """
        unknown = sorted(set(columns or ()) - set(self.names))
        if unknown:
            raise ArgumentError(f'no column {", ".join(unknown)}; there are {", ".join(self.names)}')
        wanted = set(self.names if columns is None else columns)
        plan = [
            (name, encoding, get_encoding(encoding).decode if name in wanted else None, size)
            for name, encoding, size in zip(self.names, self.encodings, self.sizes, strict=True)
        ]
        head = struct.Struct(f'<{sum(size is None for size in self.sizes)}I')
        unpack_sizes, head_size = head.unpack_from, head.size
        fixed = head_size + sum(size or 0 for size in self.sizes)

        def decode(data: memoryview) -> dict[str, Any]:
            sizes = unpack_sizes(data) if len(data) >= head_size else ()
            if fixed + sum(sizes) != len(data):
                raise FormatError(f'its columns have {fixed + sum(sizes)} bytes, its offsets say {len(data)}')
            sample = {}
            start, number = head_size, 0
            for name, encoding, decode_value, size in plan:
                if size is None:
                    size = sizes[number]
                    number += 1
                end = start + size
                if decode_value is not None:
                    try:
                        sample[name] = decode_value(data[start:end])
                    except (ValueError, OverflowError) as error:
                        raise decode_error(name, encoding, error) from error
                start = end
            return sample

        return decode

    @property
    def unsafe_columns(self) -> list[str]:
        """Columns whose reading can run code."""
        return [name for name, encoding in zip(self.names, self.encodings, strict=True) if not get_encoding(encoding).is_safe]


def _check_names(sample: Any, known: frozenset[str]) -> None:
    if not isinstance(sample, Mapping):
        raise ColumnTypeError(f'a sample is a mapping with {", ".join(sorted(known))}, got {type(sample).__name__}')
    missing = sorted(known - sample.keys())
    if missing:
        raise ColumnTypeError(
            f'the sample has no {", ".join(missing)}; the columns are {", ".join(sorted(known))}, '
            f'the sample has {", ".join(sorted(map(str, sample))) or "nothing"}'
        ) from None


def shard_config(schema: MDSSchema, compression: str | None, hashes: Sequence[str], size_limit: int | None) -> bytes:
    """The configuration that stands in a shard: the same for all shards of a writer."""
    config = {
        'version': INDEX_VERSION,
        'format': 'mds',
        'compression': compression,
        'hashes': list(hashes),
        'size_limit': size_limit,
        'column_names': list(schema.names),
        'column_encodings': list(schema.encodings),
        'column_sizes': list(schema.sizes),
    }
    return json.dumps(config, sort_keys=True).encode()


def head_bytes(samples: int, config: bytes) -> int:
    """Bytes of a shard before its first sample."""
    return 4 + 4 * (samples + 1) + len(config)


def shard_head(sizes: NDArray[np.unsignedinteger[Any]], config: bytes) -> bytes:
    """What stands before the samples of a shard.

    Args:
        sizes: Bytes of each sample, (samples,).
        config: What `shard_config` gave.

    Raises:
        ArgumentError: the shard would be larger than offsets can say.
    """
    first = head_bytes(len(sizes), config)
    ends = np.cumsum(sizes, dtype=np.uint64) + np.uint64(first)
    end = int(ends[-1]) if len(ends) else first
    if end > MOST_BYTES:
        raise ArgumentError(f'a shard of {end} bytes: MDS shards are under 4 GiB; split the sample or lower size_limit')
    head = np.empty(len(sizes) + 2, '<u4')
    head[:2] = len(sizes), first
    head[2:] = ends
    return head.tobytes() + config


def read_offsets(data: memoryview, samples: int, source: str, size: int | None = None) -> NDArray[np.uint32]:
    """The offsets of a shard, checked against its bytes, uint32 (samples + 1,).

    Args:
        data: The whole shard, or its beginning.
        samples: How many samples the index says.
        source: The file, for messages.
        size: Bytes of the whole shard. Default: None, as many as ``data`` has.

    Raises:
        FormatError: they cannot be.
    """
    size = len(data) if size is None else size
    head = 4 + 4 * (samples + 1)
    if len(data) < head:
        raise FormatError(f'{source} has {len(data)} bytes; {samples} samples need {head} for their offsets alone')
    found = int.from_bytes(data[:4], 'little')
    if found != samples:
        raise FormatError(f'{source} says it has {found} samples, the index says {samples}')
    offsets = np.frombuffer(data, '<u4', samples + 1, 4)
    if int(offsets[0]) < head or int(offsets[-1]) != size or bool((offsets[1:] < offsets[:-1]).any()):
        raise FormatError(
            f'{source}: its offsets go from {offsets[0]} to {offsets[-1]}, and not always upward; the file has {size} bytes'
        )
    return offsets
