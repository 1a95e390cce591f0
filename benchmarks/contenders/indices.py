"""Loading an index: ours, mosaicml-streaming's, and json alone. Each in a process that has nothing else."""

import json
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from harness import memory

__all__ = ['load_json', 'load_mosaicml', 'load_ours', 'write']


def write(path: str, shards: int) -> dict[str, Any]:
    """Write an index of so many compressed shards with hashes; say its bytes."""
    entries = [
        {
            'column_encodings': ['int', 'str'],
            'column_names': ['label', 'text'],
            'column_sizes': [8, None],
            'compression': 'zstd',
            'format': 'mds',
            'hashes': ['xxh64'],
            'raw_data': {'basename': f'shard.{n:05d}.mds', 'bytes': (1 << 26) - n % 100, 'hashes': {'xxh64': f'{n:016x}'}},
            'samples': 10_000 + n % 7,
            'size_limit': 1 << 26,
            'version': 2,
            'zip_data': {'basename': f'shard.{n:05d}.mds.zstd', 'bytes': 30_000_000 + n, 'hashes': {'xxh64': f'{n:016x}'}},
        }
        for n in range(shards)
    ]
    return {'value': Path(path).write_text(json.dumps({'shards': entries, 'version': 2}, sort_keys=True))}


def _timed(path: str, load: Any) -> dict[str, Any]:
    data = Path(path).read_bytes()
    before, begin, busy = memory.reset_peak(), perf_counter(), process_time()
    loaded = load(data)
    elapsed, cpu = perf_counter() - begin, process_time() - busy
    return {
        'value': elapsed,
        'cpu_s': cpu,
        'memory_mb': round(memory.peak_mb() - before, 1),
        'kept_mb': round(memory.rss_mb() - before, 1),
        'shards': len(loaded),
    }


def load_ours(path: str) -> dict[str, Any]:
    """Seconds until the table of shards is there, checked."""
    from streaming.format.index import ShardTable

    return _timed(path, lambda data: ShardTable.from_json(data, path))


def load_json(path: str) -> dict[str, Any]:
    """Seconds of Python's json alone."""
    return _timed(path, lambda data: json.loads(data)['shards'])


def load_mosaicml(path: str) -> dict[str, Any]:
    """Seconds until mosaicml-streaming has an object for each shard."""
    from streaming.base.format import reader_from_json

    return _timed(path, lambda data: [reader_from_json('/nowhere', None, entry) for entry in json.loads(data)['shards']])
