"""Bytes fetched per epoch by a cache of a part of the dataset: by ours, the least recently used, and the offline optimum."""

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.cache.eviction import peak_bytes
from streaming.cache.replay import PlannedTrace, Trace, farthest_by_plan, farthest_by_trace, least_recently_used, replay
from streaming.format.index import ShardTable
from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.world import World

__all__ = ['fetched', 'replayed', 'replayed_as_written', 'write']

BATCH = 32
SAMPLE_BYTES = 250


def write(remote: str, shards: int, samples: int) -> dict[str, Any]:
    """A dataset of so many shards of so many samples."""
    random = np.random.default_rng(0)
    with MDSWriter(out=remote, columns={'data': 'bytes'}, size_limit=samples * (SAMPLE_BYTES + 8)) as writer:
        for _ in range(shards * samples):
            writer.write({'data': random.bytes(SAMPLE_BYTES)})
    return {'value': shards}


def read_order(samples: Sequence[int], block: int, ranks: int, epochs: int) -> tuple[Trace, PlannedTrace]:
    """The shards that ranks read, batch by batch, and what their plans say of it. Sizes are in samples."""
    config = OrderConfig(batch_size=BATCH, shuffle=True, shuffle_block_size=block)
    ends = np.cumsum(samples)
    read, steps, uses, batches = [], [], [], [0]
    for epoch in range(epochs):
        worlds = [World(rank=rank, num_ranks=ranks, ranks_per_node=ranks) for rank in range(ranks)]
        plans = [Plan(config, [StreamSamples.of(samples)], world, epoch=epoch) for world in worlds]
        said = plans[0].shard_uses()
        uses.append(np.stack([said.shards, said.first, said.last]))
        for batch in range(plans[0].num_batches):
            for plan in plans:
                found = np.unique(np.searchsorted(ends, plan.batch(0, batch), side='right'))
                read.append(found)
                steps.append(np.full(len(found), sum(batches) + batch))
        batches.append(plans[0].num_batches)
    trace = Trace(np.concatenate(read), np.asarray(samples, np.int64))
    return trace, PlannedTrace(uses, batches[1:], np.concatenate(steps))


def _replay(policy: str, samples: Sequence[int], part: float, block: int, ranks: int, epochs: int) -> dict[str, Any]:
    trace, plans = read_order(samples, block, ranks, epochs)
    chosen = {
        'ours': lambda: farthest_by_plan(trace, plans),
        'lru': lambda: least_recently_used(trace),
        'optimum': lambda: farthest_by_trace(trace),
    }[policy]()
    later = plans.steps >= plans.batches[0]
    whole = float(trace.sizes.sum())
    missed = replay(trace, int(whole * part), chosen)[later]
    in_use = peak_bytes(plans.epochs[0], trace.sizes) / whole
    return {'value': float(missed.sum()) / whole / (len(plans.batches) - 1), 'in_use': round(in_use, 3)}


def replayed(policy: str, part: float, shards: int, samples: int, block: int, epochs: int) -> dict[str, Any]:
    """Datasets an epoch that a policy fetches where nothing takes time, and the ranks of a node read together."""
    return _replay(policy, [samples] * shards, part, block, ranks=4, epochs=epochs)


def replayed_as_written(policy: str, part: float, remote: str, block: int, epochs: int) -> dict[str, Any]:
    """The same for the order in which `fetched` reads."""
    table = ShardTable.from_json((Path(remote) / 'index.json').read_bytes(), remote)
    return _replay(policy, table.samples.tolist(), part, block, ranks=1, epochs=epochs)


def fetched(part: float, remote: str, local: str, block: int, epochs: int) -> dict[str, Any]:
    """Datasets an epoch that a cache with that limit fetches from a folder, for two workers, as it counts itself."""
    logging.getLogger('streaming').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', 'cache_limit is')
    table = ShardTable.from_json((Path(remote) / 'index.json').read_bytes(), remote)
    size = int(table.raw_bytes.sum())
    dataset = StreamingDataset(
        remote=remote, local=local, batch_size=BATCH, shuffle=True, shuffle_block_size=block, cache_limit=int(part * size)
    )
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=2)
    counts = []
    for _ in range(epochs):
        for _batch in loader:
            pass
        counts.append(dataset.stats()[local]['fetched_bytes'])
    shutil.rmtree(local)
    return {'value': (counts[-1] - counts[0]) / (epochs - 1) / size}
