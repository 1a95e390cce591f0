"""One epoch from an object store into an empty cache, by the package of this process, or by bare parallel GETs."""

import json
import os
import shutil
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import memory

__all__ = ['bare_gets', 'litdata', 'mds']

# Samples a batch.
BATCH = 256
RANGE_BYTES = 8 << 20
# Bare GETs keep as many connections busy as two of our workers do.
CONNECTIONS = 32


def mds(dataset: str, url: str, local: str, shuffle: bool, workers: int, size: int) -> dict[str, Any]:
    """Ours or mosaicml-streaming, whichever this Python calls streaming."""
    _use(url)
    # What a training script has imported before it opens its data.
    import boto3  # noqa: F401
    import torch  # noqa: F401

    from streaming import StreamingDataLoader, StreamingDataset

    def open_loader() -> Any:
        opened = StreamingDataset(
            remote=f's3://data/{dataset}', local=local, batch_size=BATCH, shuffle=shuffle, num_canonical_nodes=1
        )
        return StreamingDataLoader(opened, batch_size=BATCH, num_workers=workers)

    return _epoch(open_loader, url, local, size)


def litdata(dataset: str, url: str, local: str, shuffle: bool, workers: int, size: int) -> dict[str, Any]:
    """litData."""
    _use(url)
    import boto3  # noqa: F401
    import torch  # noqa: F401
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    # It has no argument for a server without TLS.
    downloader._OBSTORE_CLIENT_OPTIONS['allow_http'] = 'true'

    def open_loader() -> Any:
        options = {'endpoint_url': url}
        opened = StreamingDataset(f's3://data/{dataset}', cache_dir=local, shuffle=shuffle, storage_options=options)
        return StreamingDataLoader(opened, batch_size=BATCH, num_workers=workers)

    return _epoch(open_loader, url, local, size)


def _use(url: str) -> None:
    os.environ |= {'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b', 'AWS_REGION': 'us-east-1'}
    os.environ |= {'S3_ENDPOINT_URL': url, 'AWS_ENDPOINT_URL': url}


def _served(url: str) -> dict[str, Any]:
    """What the server sent since it was asked last."""
    with urllib.request.urlopen(f'{url}/-/stats') as answer:
        counted = json.load(answer)
    return {'requests': counted['requests'], 'fetched_mb': round(counted['bytes'] / 1e6, 1)}


def _epoch(open_loader: Any, url: str, local: str, size: int) -> dict[str, Any]:
    """Seconds from before the dataset is made to the first batch, ``first_s``, and to the end of the epoch, ``value``."""
    _served(url)
    memory.take(Path(local).parent, size)
    first_s = 0.0
    samples = total = 0
    begin = time.perf_counter()
    for batch in open_loader():
        first_s = first_s or time.perf_counter() - begin
        samples += len(batch['tokens'])
        total += int(batch['tokens'][:, 0].long().sum())
    value = time.perf_counter() - begin
    shutil.rmtree(local, ignore_errors=True)
    return {'value': value, 'first_s': first_s, 'samples': samples, 'sum': total, **_served(url)}


def bare_gets(dataset: str, url: str, local: str, size: int) -> dict[str, Any]:
    """Every shard by parallel ranges, each written to its place in a file; ``first_s`` when the first range is on disk."""
    import urllib3

    _served(url)
    memory.take(Path(local).parent, size)
    pool = urllib3.HTTPConnectionPool(urlsplit(url).hostname or '', urlsplit(url).port, maxsize=CONNECTIONS)
    Path(local).mkdir(parents=True)
    buffers = threading.local()
    begin = time.perf_counter()
    index = json.loads(pool.request('GET', f'/data/{dataset}/index.json').data)
    files = [shard['zip_data'] or shard['raw_data'] for shard in index['shards']]

    def get(job: tuple[str, int, int]) -> float:
        name, start, stop = job
        if not hasattr(buffers, 'buffer'):
            buffers.buffer = memoryview(bytearray(RANGE_BYTES))
        headers = {'range': f'bytes={start}-{stop - 1}'}
        answer = pool.request('GET', f'/data/{dataset}/{name}', headers=headers, preload_content=False)
        done = 0
        while done < stop - start:
            done += answer.readinto(buffers.buffer[done : stop - start])
        answer.release_conn()
        descriptor = os.open(Path(local) / name, os.O_WRONLY | os.O_CREAT)
        os.pwrite(descriptor, buffers.buffer[:done], start)
        os.close(descriptor)
        return time.perf_counter() - begin

    jobs = [
        (file['basename'], start, min(start + RANGE_BYTES, file['bytes']))
        for file in files
        for start in range(0, file['bytes'], RANGE_BYTES)
    ]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        done = list(threads.map(get, jobs))
    value = time.perf_counter() - begin
    shutil.rmtree(local)
    return {'value': value, 'first_s': min(done), **_served(url)}
