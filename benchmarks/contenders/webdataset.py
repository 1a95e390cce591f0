"""webdataset: tar files. It has no random access."""

import glob
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import webdataset
from torch.utils.data import default_collate

from contenders.collate import BATCH, measure_batches
from harness import memory
from harness.clock import items_per_second
from harness.workloads import WORKLOADS, samples

__all__ = ['batches', 'iterate', 'loader', 'start', 'write']

# The extension of each column, which says how it is decoded.
_EXTENSIONS = {
    'x': 'cls',
    'y': 'cls',
    'label': 'cls',
    'id': 'cls',
    'text': 'txt',
    'data': 'bin',
    'tokens': 'npy',
    'vector': 'npy',
    'meta': 'json',
}


def write(folder: str, workload: str, count: int, size_limit: int = 1 << 26) -> dict[str, Any]:
    """Samples written a second, from making the writer to its end. It compresses with gzip alone and knows no hashes."""
    given = list(samples(workload, count))
    keys = {name: f'{name}.{_EXTENSIONS[name]}' for name in given[0]}
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    memory.take(Path(folder).parent, 2 * count * WORKLOADS[workload].sample_bytes)
    begin = perf_counter()
    with webdataset.ShardWriter(f'{folder}/%06d.tar', maxsize=size_limit, verbose=0) as writer:
        for number, sample in enumerate(given):
            writer.write({'__key__': f'{number:010}', **{keys[name]: value for name, value in sample.items()}})
    return {'value': count / (perf_counter() - begin), 'version': webdataset.__version__}


def _dataset(folder: str, shuffle: bool = False) -> Any:
    urls = sorted(glob.glob(f'{glob.escape(folder)}/*.tar'))
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls) if shuffle else False, nodesplitter=webdataset.split_by_node)
    if shuffle:
        dataset = dataset.shuffle(1000)
    return dataset.decode().map(_columns)


def _columns(sample: dict[str, Any]) -> dict[str, Any]:
    return {key.partition('.')[0]: value for key, value in sample.items() if not key.startswith('__')}


def iterate(folder: str, seconds: float) -> dict[str, Any]:
    """Samples of an epoch a second, in order, without a loader."""
    dataset = _dataset(folder)
    return {'value': items_per_second(lambda: dataset, seconds), 'version': webdataset.__version__}


def _loader(folder: str, workers: int, shuffle: bool, **options: Any) -> Any:
    collate: Callable[[list[Any]], Any] = default_collate
    dataset = _dataset(folder, shuffle).batched(BATCH, collation_fn=collate)
    return webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, **options)


def batches(folder: str, workers: int, seconds: float, shuffle: bool = False) -> dict[str, Any]:
    """Samples a second in default-collated batches of 64, from the first batch on."""
    loader = _loader(folder, workers, shuffle)
    return measure_batches(lambda: loader, seconds, workers, {'version': webdataset.__version__})


def loader(folder: str, cache: str, workers: int) -> Any:
    """A loader of shuffled batches, with workers that stay. A local folder is read in place."""
    return _loader(folder, workers, shuffle=True, persistent_workers=True)


def start(folder: str, shuffle: bool) -> dict[str, Any]:
    """Seconds from the constructor to the first batch."""
    begin = perf_counter()
    next(iter(_loader(folder, 0, shuffle)))
    return {'value': perf_counter() - begin, 'version': webdataset.__version__}
