"""The physical limits: the least that Python and NumPy must do with the bytes of an MDS dataset, written out for each workload.

None of it checks anything, knows of a schema or could read another dataset; each line is there because no reader can do without.
"""

import json
import mmap
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import xxhash
import zstandard

from contenders.collate import BATCH, measure_batches
from harness import memory
from harness.clock import calls_per_second, items_per_second
from harness.workloads import TOKENS, VECTOR

__all__ = ['batches', 'codec', 'iterate', 'random_access']

Shard = tuple[mmap.mmap, list[int]]
Decode = Callable[[mmap.mmap, int, int], dict[str, Any]]

_two = struct.Struct('<qq').unpack_from
_size_label = struct.Struct('<Iq').unpack_from
_number = struct.Struct('<q').unpack_from
_two_sizes_id = struct.Struct('<IIq').unpack_from
_decode_json = msgspec.json.decode
_array, _copy = np.frombuffer, np.array


def _ints(data: mmap.mmap, begin: int, end: int) -> dict[str, Any]:
    x, y = _two(data, begin)
    return {'x': x, 'y': y}


def _text(data: mmap.mmap, begin: int, end: int) -> dict[str, Any]:
    _, label = _size_label(data, begin)
    return {'label': label, 'text': data[begin + 12 : end].decode()}


def _blobs(data: mmap.mmap, begin: int, end: int) -> dict[str, Any]:
    return {'data': data[begin + 4 : end - 8], 'label': _number(data, end - 8)[0]}


def _tokens(data: mmap.mmap, begin: int, end: int) -> dict[str, Any]:
    return {'tokens': _copy(_array(data, np.uint16, TOKENS, begin))}


def _mixed(data: mmap.mmap, begin: int, end: int) -> dict[str, Any]:
    meta, _, number = _two_sizes_id(data, begin)
    text, vector = begin + 16 + meta, end - 4 * VECTOR
    return {
        'id': number,
        'meta': _decode_json(data[begin + 16 : text]),
        'text': data[text:vector].decode(),
        'vector': _copy(_array(data, np.float32, VECTOR, vector)),
    }


_DECODE: dict[str, Decode] = {'ints': _ints, 'text': _text, 'blobs': _blobs, 'tokens': _tokens, 'mixed': _mixed}


def _shards(folder: str) -> list[Shard]:
    shards = []
    for entry in json.loads((Path(folder) / 'index.json').read_bytes())['shards']:
        with (Path(folder) / entry['raw_data']['basename']).open('rb') as file:
            data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        shards.append((data, np.frombuffer(data, '<u4', entry['samples'] + 1, 4).tolist()))
    return shards


def random_access(folder: str, workload: str, seconds: float) -> dict[str, Any]:
    """Samples read by index a second: which shard, two offsets, decode."""
    shards, decode = _shards(folder), _DECODE[workload]
    starts = np.cumsum([0, *(len(offsets) - 1 for _, offsets in shards)]).tolist()
    total = starts.pop()

    def read(sample: int) -> dict[str, Any]:
        shard = bisect_right(starts, sample) - 1
        data, offsets = shards[shard]
        number = sample - starts[shard]
        return decode(data, offsets[number], offsets[number + 1])

    return {'value': calls_per_second(read, np.random.default_rng(0).integers(0, total, 1_000_000).tolist(), seconds)}


def _walk(folder: str, workload: str) -> Iterator[dict[str, Any]]:
    decode = _DECODE[workload]
    for data, offsets in _shards(folder):
        begin = offsets[0]
        for end in offsets[1:]:
            yield decode(data, begin, end)
            begin = end


def iterate(folder: str, workload: str, seconds: float) -> dict[str, Any]:
    """Samples a second, in order: two offsets, decode."""
    return {'value': items_per_second(lambda: _walk(folder, workload), seconds)}


def batches(folder: str, workload: str, seconds: float, shuffle: bool = False) -> dict[str, Any]:
    """Samples a second in batches of tensors: a gather a batch where samples have one size, else a pass over them."""
    if workload == 'tokens':
        dtype = np.dtype([('tokens', '<u2', (TOKENS,))])
    elif workload == 'ints':
        dtype = np.dtype([('x', '<i8'), ('y', '<i8')])
    else:
        return measure_batches(lambda: _collated(folder, workload), seconds, 0, {})
    return measure_batches(lambda: _gathered(folder, dtype, shuffle), seconds, 0, {})


def _gathered(folder: str, dtype: np.dtype[Any], shuffle: bool) -> Iterator[dict[str, Any]]:
    import torch

    shards = [np.frombuffer(data, dtype, len(offsets) - 1, offsets[0]) for data, offsets in _shards(folder)]
    starts = np.cumsum([0, *map(len, shards)])
    order = np.arange(starts[-1])
    if shuffle:
        np.random.default_rng(0).shuffle(order)
    for at in range(0, len(order) - BATCH + 1, BATCH):
        ids = order[at : at + BATCH]
        where = np.searchsorted(starts, ids, side='right') - 1
        out = np.empty(BATCH, dtype)
        for shard in np.unique(where).tolist():
            rows = where == shard
            out[rows] = shards[shard][ids[rows] - starts[shard]]
        yield {name: torch.from_numpy(np.ascontiguousarray(out[name])) for name in dtype.names or ()}


def _collated(folder: str, workload: str) -> Iterator[dict[str, Any]]:
    import torch

    rows: list[tuple[Any, ...]] = []
    names: tuple[str, ...] = ()
    for sample in _walk(folder, workload):
        names = names or tuple(sample)
        rows.append(tuple(sample.values()))
        if len(rows) == BATCH:
            batch = {}
            for name, values in zip(names, zip(*rows, strict=True), strict=True):
                first = values[0]
                if isinstance(first, int):
                    batch[name] = torch.tensor(values)
                elif isinstance(first, np.ndarray):
                    batch[name] = torch.from_numpy(np.stack(values))
                else:
                    batch[name] = list(values)
            yield batch
            rows.clear()


def codec(folder: str, cores: int, out: str | None = None, level: int = 3) -> dict[str, Any]:
    """Samples a second that zstd and xxh64 alone take of the raw shards in a folder, as many at a time as there are cores.

    What is packed is written to files in ``out``. Default: None, it is dropped.
    """
    entries = json.loads((Path(folder) / 'index.json').read_bytes())['shards']
    shards = [(Path(folder) / entry['raw_data']['basename']).read_bytes() for entry in entries]

    if out is not None:
        Path(out).mkdir(exist_ok=True)

    def pack(number: int) -> int:
        data = shards[number]
        packed = zstandard.ZstdCompressor(level=level).compress(data)
        xxhash.xxh64(data).digest()
        xxhash.xxh64(packed).digest()
        if out is not None:
            (Path(out) / f'{number}.zstd').write_bytes(packed)
        return len(packed)

    memory.take(Path(folder).parent, 2 * sum(map(len, shards)))
    begin = perf_counter()
    with ThreadPoolExecutor(cores) as threads:
        packed = sum(threads.map(pack, range(len(shards))))
    elapsed = perf_counter() - begin
    return {'value': sum(entry['samples'] for entry in entries) / elapsed, 'packed_mb': round(packed / 1e6, 1)}
