"""Objects and listings larger than memory: what is held does not grow with them. benchmarks/large.py does the same with 10 GB."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streaming.cache.fetch import FetchPolicy, ShardFetch
from streaming.format.index import ShardTable
from streaming.store import open_store
from streaming.testing.endless import EndlessBucket

MIB = 1 << 20
PART = 2 * MIB


@contextmanager
def most_bytes(limit: int) -> Iterator[None]:
    """Fail if more than ``limit`` bytes are held at any moment, our server's included."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f'{peak / MIB:.1f} MiB'


@pytest.mark.parametrize('size', [64 * MIB, 192 * MIB])
def test_an_upload(tmp_path: Path, size: int) -> None:
    """A part in the hands of each of four threads and one waiting, and copies of them on their way through the SDK."""
    with (tmp_path / 'large').open('wb') as file:
        file.truncate(size)  # sparse
    with EndlessBucket() as bucket:
        store = open_store(bucket.url, {**bucket.options, 'single_put_bytes': PART, 'part_bytes': PART})
        store.put('first', bytes(2 * PART))  # the SDK is imported, the client made
        before = bucket.put_bytes
        with most_bytes(12 * PART):
            assert store.put('key', tmp_path / 'large').size == size
        assert bucket.put_bytes - before == size
        store.close()


@pytest.mark.parametrize('size', [64 * MIB, 192 * MIB])
def test_a_download(tmp_path: Path, size: int) -> None:
    """A shard on its way to the cache: three ranges at a time and the one that is written."""
    shard = {
        'version': 2, 'format': 'mds', 'samples': 1, 'size_limit': None, 'compression': None, 'hashes': [], 'zip_data': None,
        'column_names': ['x'], 'column_encodings': ['bytes'], 'column_sizes': [None],
        'raw_data': {'basename': 'shard.00000.mds', 'bytes': size, 'hashes': {}},
    }  # fmt: skip
    table = ShardTable.from_json(json.dumps({'version': 2, 'shards': [shard]}).encode(), 'index')
    with EndlessBucket(object_bytes=size) as bucket:
        store = open_store(bucket.url, bucket.options)
        came: list[int] = []
        fetch = ShardFetch(
            store, table[0], tmp_path, tmp_path / 'scratch', FetchPolicy(range_bytes=PART, parallel=3), came.append
        )
        store.head('key')
        with most_bytes(8 * PART):
            fetch.run()
        assert sum(came) == (tmp_path / 'shard.00000.mds').stat().st_size == size
        store.close()


def test_a_listing() -> None:
    """A page at a time: 50,000 keys together would take 15 MiB."""
    with EndlessBucket(object_bytes=5, keys=50_000) as bucket:
        store = open_store(bucket.url, bucket.options)
        listing = store.list()
        assert next(listing).key == bucket.name(0)
        with most_bytes(4 * MIB):
            assert sum(info.size for info in listing) == 49_999 * 5
        assert [info.key for info in store.list(after=bucket.name(49_997))] == [bucket.name(49_998), bucket.name(49_999)]
        store.close()
