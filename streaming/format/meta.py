"""The meta file of a text shard: where each sample lies in the data file.

    uint32            number of samples n
    uint32[n + 1]     offset of each sample in the data file, and the end of the last
    bytes             the shard's configuration, as JSON with sorted keys

All integers are little-endian.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streaming.errors import FormatError
from streaming.format.index import INDEX_VERSION

__all__ = ['pack_meta', 'read_meta', 'text_config']


def text_config(
    format: str,
    schema: Mapping[str, Any],
    compression: str | None,
    hashes: Sequence[str],
    size_limit: int | None,
) -> bytes:
    """The configuration that stands in a meta file: the same for all shards of a writer.

    Args:
        format: ``'json'``, ``'csv'``, ``'tsv'`` or ``'xsv'``.
        schema: What the index says of this format's columns and text.
        compression: The codec.
        hashes: The recorded hashes.
        size_limit: Of shards, in bytes.
    """
    config = {
        'version': INDEX_VERSION,
        'format': format,
        'compression': compression,
        'hashes': list(hashes),
        'size_limit': size_limit,
        **schema,
    }
    return json.dumps(config, sort_keys=True).encode()


def pack_meta(sizes: ArrayLike, first: int, config: bytes) -> bytes:
    """Put a meta file together.

    Args:
        sizes: Bytes of each sample, with its newline (samples,).
        first: Offset of the first one: what stands before it in the data file.
        config: The configuration.
    """
    sizes = np.asarray(sizes, np.int64)
    offsets = first + np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return np.concatenate([[len(sizes)], offsets]).astype('<u4').tobytes() + config


def read_meta(meta: memoryview, samples: int, data_bytes: int, source: str) -> NDArray[np.uint32]:
    """The offsets of a meta file, checked against its data file, uint32 (samples + 1,).

    Args:
        meta: The whole meta file.
        samples: How many samples the index says.
        data_bytes: Bytes of the data file.
        source: The meta file, for messages.

    Raises:
        FormatError: they cannot be.
    """
    head = 4 + 4 * (samples + 1)
    if len(meta) < head:
        raise FormatError(f'{source} has {len(meta)} bytes; {samples} samples need {head} for their offsets')
    found = int.from_bytes(meta[:4], 'little')
    if found != samples:
        raise FormatError(f'{source} says there are {found} samples, the index says {samples}')
    offsets = np.frombuffer(meta, '<u4', samples + 1, 4)
    if int(offsets[-1]) != data_bytes or bool((offsets[1:] < offsets[:-1]).any()):
        raise FormatError(
            f'{source}: its offsets go from {offsets[0]} to {offsets[-1]}, and not always upward; '
            f'the data file has {data_bytes} bytes'
        )
    return offsets
