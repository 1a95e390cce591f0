"""The orders of mosaicml-streaming: its own functions, spared the folders and shared memory of a dataset."""

import logging
from time import perf_counter
from typing import Any

import numpy as np

from harness import memory
from streaming.base.batching import generate_work
from streaming.base.dataset import StreamingDataset
from streaming.base.partition import get_partitions
from streaming.base.sampling import get_sampling
from streaming.base.shuffle import get_shuffle
from streaming.base.stream import Stream
from streaming.base.world import World

__all__ = ['first_batch', 'make']

# No shared memory has this prefix, so that there is nothing to resume.
_NO_PREFIX = 987_654


class Planned(StreamingDataset):
    """A dataset with all that its order depends on, set as the package's constructor sets it, and nothing else.

    Args:
        streams: Of each stream its ``samples`` (of each shard) and its ``weight`` by name.
        epoch_size: Samples an epoch, or None.
        world: Who asks.
        settings: The other arguments of the dataset that its order depends on, by name.
    """

    def __init__(self, streams: list[dict[str, Any]], epoch_size: int | None, world: World, settings: dict[str, Any]) -> None:
        self.num_canonical_nodes = self.shuffle_block_size = self.initial_physical_nodes = None
        self.partition_algo, self.batching_method = 'relaxed', 'random'
        self.sampling_method, self.sampling_granularity = 'balanced', 1
        self.shuffle, self.shuffle_algo, self.shuffle_seed = False, 'py1e', 9176
        for name, value in settings.items():
            setattr(self, name, value)
        self.epoch_seed_change = self.shuffle and self.sampling_method == 'balanced'
        self.streams = [Stream(local=f'/nowhere/{number}', **stream['weight']) for number, stream in enumerate(streams)]
        Stream.validate_weights(self.streams)
        self.num_streams = len(streams)
        samples = [np.array(stream['samples'], np.int64) for stream in streams]
        self.shards_per_stream = np.array([len(one) for one in samples], np.int64)
        self.shard_offset_per_stream = self.shards_per_stream.cumsum() - self.shards_per_stream
        self.samples_per_stream = np.array([one.sum() for one in samples], np.int64)
        self.sample_offset_per_stream = self.samples_per_stream.cumsum() - self.samples_per_stream
        self.samples_per_shard = np.concatenate(samples)
        self.sample_offset_per_shard = self.samples_per_shard.cumsum() - self.samples_per_shard
        self.num_samples = int(self.samples_per_shard.sum())
        self.epoch_size = Stream.apply_weights(self.streams, self.samples_per_stream, epoch_size, self.shuffle_seed)
        self._shm_prefix_int = _NO_PREFIX
        self._resume(world, 0)  # derives what was not given


def epoch(request: dict[str, Any]) -> np.ndarray:
    shape = request['world']
    world = World(shape['num_nodes'], shape['ranks_per_node'], shape['workers_per_rank'], 0)
    dataset = Planned(request['streams'], request['epoch_size'], world, request['settings'])
    return generate_work(dataset.batching_method, dataset, world, request['epoch'], request['sample_in_epoch'])


def shuffle(request: dict[str, Any]) -> np.ndarray:
    return get_shuffle(shard_sizes=np.array(request.pop('shard_sizes'), np.int64), **request)


def sampling(request: dict[str, Any]) -> np.ndarray:
    return get_sampling(np.array(request.pop('samples_per_shard'), np.int64), **request)


def partition(request: dict[str, Any]) -> np.ndarray:
    return get_partitions(**request)


_KINDS = {'epoch': epoch, 'shuffle': shuffle, 'sampling': sampling, 'partition': partition}


def make(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    """The array of a kind, as a flat list and its ``shape``, or what was raised as ``refused``."""
    logging.disable(logging.WARNING)
    try:
        array = _KINDS[kind](request)
        return {'value': array.ravel().tolist(), 'shape': array.shape}
    except Exception as error:  # whatever it is, the other side is to know
        return {'value': None, 'refused': f'{type(error).__name__}: {error}'}


def first_batch(
    samples: int, shards: int, nodes: int, ranks: int, workers: int, batch_size: int, algo: str, method: str
) -> dict[str, Any]:
    """Seconds until the first batch is known: the first rank of a node makes the epoch for all of it."""
    parts = [np.full(shards, samples // shards)]
    streams = [{'samples': part, 'weight': {}} for part in parts]
    settings = {'batch_size': batch_size, 'shuffle': True, 'shuffle_algo': algo, 'batching_method': method}
    world = World(nodes, ranks, workers, 0)
    before, begin = memory.reset_peak(), perf_counter()
    dataset = Planned(streams, None, world, settings)
    generate_work(method, dataset, world, 0, 0)
    elapsed = perf_counter() - begin
    return {'value': elapsed, 'memory_mb': memory.peak_mb() - before}
