"""Bytes fetched per epoch by a cache of a part of the dataset: ours, least recently used, and the offline optimum.

    python benchmarks/evict.py [--shards 256] [--samples 500] [--block 16000] [--epochs 4] [--parts 0.25 0.5 0.75]

Twice: replayed, where nothing takes time, on the shuffled order that four ranks of a node read together; and fetched, by two
workers from a folder into a cache with that ``cache_limit``, counted by the cache itself. The others are replayed on the same
order. All is counted from the second epoch on, in datasets an epoch: 1 is what it takes without a cache.

Prints a line of JSON for each measurement, with the ratios to the other two.
"""

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.cache.eviction import peak_bytes
from streaming.cache.replay import PlannedTrace, Trace, farthest_by_plan, farthest_by_trace, least_recently_used, replay
from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.world import World

BATCH = 32
SAMPLE_BYTES = 250


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


def replay_all(trace: Trace, plans: PlannedTrace, part: float) -> dict[str, float]:
    """Datasets an epoch that each policy fetches."""
    policies = {
        'ours': farthest_by_plan(trace, plans),
        'lru': least_recently_used(trace),
        'optimum': farthest_by_trace(trace),
    }
    later = plans.steps >= plans.batches[0]
    whole = float(trace.sizes.sum()) * (len(plans.batches) - 1)
    limit = int(trace.sizes.sum() * part)
    return {name: float(replay(trace, limit, policy)[later].sum()) / whole for name, policy in policies.items()}


def fetch(remote: Path, local: str, block: int, epochs: int, limit: int) -> float:
    """Bytes an epoch that the cache fetches, from the second epoch on."""
    dataset = StreamingDataset(
        remote=str(remote), local=local, batch_size=BATCH, shuffle=True, shuffle_block_size=block, cache_limit=limit
    )
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=2)
    fetched = []
    for _ in range(epochs):
        for _batch in loader:
            pass
        fetched.append(dataset.stats()[local]['fetched_bytes'])
    return (fetched[-1] - fetched[0]) / (epochs - 1)


def report(how: str, part: float, in_use: float, found: dict[str, float]) -> None:
    line: dict[str, Any] = {'bench': 'evict', 'how': how, 'cache': part, 'in_use': round(in_use, 3)}
    line.update({name: round(value, 4) for name, value in found.items()})
    line['ours/lru'] = round(found['ours'] / found['lru'], 3)
    line['ours/optimum'] = round(found['ours'] / found['optimum'], 3)
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shards', type=int, default=256)
    parser.add_argument('--samples', type=int, default=500, help='of a shard')
    parser.add_argument('--block', type=int, default=16_000, help='shuffle_block_size')
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--parts', type=float, nargs='+', default=[0.25, 0.5, 0.75])
    args = parser.parse_args()
    logging.getLogger('streaming').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', 'cache_limit is')

    trace, plans = read_order([args.samples] * args.shards, args.block, 4, args.epochs)
    in_use = peak_bytes(plans.epochs[0], trace.sizes) / float(trace.sizes.sum())
    for part in args.parts:
        report('replayed', part, in_use, replay_all(trace, plans, part))

    with tempfile.TemporaryDirectory(prefix='evict-') as folder:
        remote = Path(folder, 'remote')
        rng = np.random.default_rng(0)
        with MDSWriter(out=str(remote), columns={'data': 'bytes'}, size_limit=args.samples * (SAMPLE_BYTES + 8)) as writer:
            for _ in range(args.shards * args.samples):
                writer.write({'data': rng.bytes(SAMPLE_BYTES)})
        dataset = StreamingDataset(local=str(remote), batch_size=BATCH)
        table = dataset._shards.table
        trace, plans = read_order(table.samples.tolist(), args.block, 1, args.epochs)
        in_use = peak_bytes(plans.epochs[0], trace.sizes) / float(trace.sizes.sum())
        size = int(table.raw_bytes.sum())
        for part in args.parts:
            found = replay_all(trace, plans, part)
            with tempfile.TemporaryDirectory(dir=folder) as local:
                found['ours'] = fetch(remote, local, args.block, args.epochs, int(part * size)) / size
            report('fetched', part, in_use, found)


if __name__ == '__main__':
    main()
