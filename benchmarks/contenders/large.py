"""Objects of many gigabytes and listings of many keys, against a bucket that is made up as it is asked for."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from streaming.store import open_store
from streaming.testing.endless import EndlessBucket

_RANGE = 8 << 20


def upload(folder: str, gb: float) -> dict[str, Any]:
    """Put a sparse file."""
    size = int(gb * 1e9)
    path = Path(folder) / 'sparse'
    with path.open('wb') as file:
        file.truncate(size)
    with EndlessBucket() as bucket:
        store = open_store(bucket.url, bucket.options)
        begin = time.perf_counter()
        store.put('large', path)
        elapsed = time.perf_counter() - begin
        if bucket.put_bytes != size:
            raise ValueError(f'{bucket.put_bytes} bytes came, {size} were put')
        store.close()
    path.unlink()
    return {'value': round(elapsed, 1), 'MB/s': round(size / 1e6 / elapsed)}


def download(gb: float, threads: int = 4) -> dict[str, Any]:
    """Read an object to its end, by ranges in parallel, and drop them."""
    size = int(gb * 1e9)
    with EndlessBucket(object_bytes=size) as bucket:
        store = open_store(bucket.url, bucket.options)

        def read(start: int) -> int:
            room = memoryview(bytearray(min(_RANGE, size - start)))
            store.read_into('large', start, room)
            return len(room)

        begin = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            done = sum(pool.map(read, range(0, size, _RANGE)))
        elapsed = time.perf_counter() - begin
        if done != size:
            raise ValueError(f'{done} of {size} bytes came')
        store.close()
    return {'value': round(elapsed, 1), 'MB/s': round(size / 1e6 / elapsed)}


def listing(keys: int) -> dict[str, Any]:
    """Walk through a listing."""
    with EndlessBucket(keys=keys) as bucket:
        store = open_store(bucket.url, bucket.options)
        begin = time.perf_counter()
        found = sum(1 for _ in store.list())
        elapsed = time.perf_counter() - begin
        if found != keys:
            raise ValueError(f'{found} of {keys} keys came')
        store.close()
    return {'value': round(elapsed, 1), 'keys/s': round(keys / elapsed)}
