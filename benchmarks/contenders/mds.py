"""Ours and mosaicml-streaming: the same lines under either package, as both are imported and called alike."""

from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import streaming
from contenders.collate import BATCH, measure_batches
from harness import memory
from harness.clock import calls_per_second, items_per_second
from harness.workloads import WORKLOADS, samples
from streaming import LocalDataset, MDSWriter, StreamingDataLoader, StreamingDataset

__all__ = ['batches', 'iterate', 'iterate_local', 'loader', 'random_access', 'start', 'write']


def write(
    folder: str, workload: str, count: int, compression: str | None = None, hashes: Iterable[str] = (), size_limit: int = 1 << 26
) -> dict[str, Any]:
    """Samples written a second, from making the writer to its end."""
    given = list(samples(workload, count))
    memory.take(Path(folder).parent, 2 * count * WORKLOADS[workload].sample_bytes)
    begin = perf_counter()
    with MDSWriter(
        out=folder,
        columns=WORKLOADS[workload].columns,
        compression=compression,
        hashes=list(hashes),
        size_limit=size_limit,
        exist_ok=True,
    ) as writer:
        for sample in given:
            writer.write(sample)
    return {'value': count / (perf_counter() - begin), 'version': streaming.__version__}


def random_access(folder: str, seconds: float) -> dict[str, Any]:
    """Samples read by index a second, all over the dataset."""
    dataset = LocalDataset(folder)
    indices = np.random.default_rng(0).integers(0, len(dataset), 1_000_000).tolist()
    return {'value': calls_per_second(dataset.__getitem__, indices, seconds), 'version': streaming.__version__}


def iterate(folder: str, seconds: float) -> dict[str, Any]:
    """Samples of an epoch a second, in order, without a loader."""
    dataset = StreamingDataset(local=folder, batch_size=BATCH)
    value = items_per_second(lambda: dataset, seconds)
    _end(dataset)
    return {'value': value, 'version': streaming.__version__}


def _end(dataset: StreamingDataset) -> None:
    """End the threads of mosaicml-streaming that an epoch left halfway still runs: they would slow down whoever is next."""
    iterator = getattr(dataset, '_iterator', None)
    if iterator is not None:
        iterator.exit()


def iterate_local(folder: str, seconds: float) -> dict[str, Any]:
    """The same of a LocalDataset."""
    dataset = LocalDataset(folder)
    return {'value': items_per_second(lambda: dataset, seconds), 'version': streaming.__version__}


def batches(folder: str, workers: int, seconds: float, shuffle: bool = False) -> dict[str, Any]:
    """Samples a second in default-collated batches of 64, from the first batch on."""
    dataset = StreamingDataset(local=folder, batch_size=BATCH, shuffle=shuffle)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)
    measured = measure_batches(lambda: loader, seconds, workers, {'version': streaming.__version__})
    _end(dataset)
    return measured


def loader(folder: str, cache: str, workers: int) -> Any:
    """A loader of shuffled batches through a cache, with workers that stay."""
    dataset = StreamingDataset(remote=folder, local=cache, batch_size=BATCH, shuffle=True)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=True)


def start(folder: str, shuffle: bool) -> dict[str, Any]:
    """Seconds from the constructor to the first batch."""
    begin = perf_counter()
    dataset = StreamingDataset(local=folder, batch_size=BATCH, shuffle=shuffle)
    loader = StreamingDataLoader(dataset, batch_size=BATCH)
    first = next(iter(loader))
    elapsed = perf_counter() - begin
    _end(dataset)
    size = len(next(iter(first.values())))
    if size != BATCH:
        raise ValueError(f'the first batch has {size} samples')
    return {'value': elapsed, 'version': streaming.__version__}
