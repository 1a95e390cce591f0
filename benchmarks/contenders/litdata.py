"""litData: its BinaryWriter, StreamingDataset and StreamingDataLoader.

Its samples hold views of the mapped file where others have copied the bytes: reading a blob touches none of it.
"""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import litdata
import numpy as np
from litdata.streaming.writer import BinaryWriter
from torch.utils.data import default_collate

from contenders.collate import BATCH, measure_batches
from harness import memory
from harness.clock import calls_per_second, items_per_second
from harness.workloads import WORKLOADS, samples

__all__ = ['batches', 'iterate', 'loader', 'random_access', 'start', 'write']

logging.getLogger('litdata').setLevel(logging.ERROR)


def write(
    folder: str, workload: str, count: int, compression: str | None = None, hashes: Iterable[str] = (), size_limit: int = 1 << 26
) -> dict[str, Any]:
    """Samples written a second by one process, from making the writer to its end. It knows no hashes."""
    given = list(samples(workload, count))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    memory.take(Path(folder).parent, 2 * count * WORKLOADS[workload].sample_bytes)
    begin = perf_counter()
    writer = BinaryWriter(folder, chunk_bytes=size_limit, compression=compression)
    for number, sample in enumerate(given):
        writer[number] = sample
    writer.done()
    writer.merge()
    return {'value': count / (perf_counter() - begin), 'version': litdata.__version__}


def random_access(folder: str, seconds: float) -> dict[str, Any]:
    """Samples read by index a second, all over the dataset. By default it would decode hundreds around each."""
    dataset = litdata.StreamingDataset(folder, batch_decode=False)
    indices = np.random.default_rng(0).integers(0, len(dataset), 1_000_000).tolist()
    return {'value': calls_per_second(dataset.__getitem__, indices, seconds), 'version': litdata.__version__}


def iterate(folder: str, seconds: float) -> dict[str, Any]:
    """Samples of an epoch a second, in order, without a loader."""
    dataset = litdata.StreamingDataset(folder)
    return {'value': items_per_second(lambda: dataset, seconds), 'version': litdata.__version__}


def _collate(samples: list[dict[str, Any]]) -> Any:
    """What default_collate gives elsewhere: it would take the views that stand for bytes here for lists of numbers."""
    if isinstance(samples[0].get('data'), memoryview):
        samples = [{**sample, 'data': bytes(sample['data'])} for sample in samples]
    return default_collate(samples)


def batches(folder: str, workers: int, seconds: float, shuffle: bool = False) -> dict[str, Any]:
    """Samples a second in default-collated batches of 64, from the first batch on."""
    loader = litdata.StreamingDataLoader(
        litdata.StreamingDataset(folder, shuffle=shuffle), batch_size=BATCH, num_workers=workers, collate_fn=_collate
    )
    return measure_batches(lambda: loader, seconds, workers, {'version': litdata.__version__})


def loader(folder: str, cache: str, workers: int) -> Any:
    """A loader of shuffled batches, with workers that stay. A local folder is read in place."""
    dataset = litdata.StreamingDataset(folder, cache_dir=cache, shuffle=True)
    return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=True)


def start(folder: str, shuffle: bool) -> dict[str, Any]:
    """Seconds from the constructor to the first batch."""
    begin = perf_counter()
    loader = litdata.StreamingDataLoader(litdata.StreamingDataset(folder, shuffle=shuffle), batch_size=BATCH)
    next(iter(loader))
    return {'value': perf_counter() - begin, 'version': litdata.__version__}
