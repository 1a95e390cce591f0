"""Our orders: plans of any scale."""

from time import perf_counter
from typing import Any

import numpy as np

from harness import memory
from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.world import World

__all__ = ['first_batch']

# Batches walked along the epoch.
_WALKED = 4096


def first_batch(
    samples: int, shards: int, nodes: int, ranks: int, workers: int, batch_size: int, algo: str, method: str
) -> dict[str, Any]:
    """Seconds until a worker knows its first batch; also a batch elsewhere, and the memory beyond the table of shards."""
    table = np.full(shards, samples // shards)
    # Batching by streams gets two: a quarter of the shards and the rest.
    cut = 0 if method == 'random' else shards // 4
    streams = [StreamSamples.of(part) for part in (table[:cut], table[cut:]) if len(part)]
    world = World(num_ranks=nodes * ranks, ranks_per_node=ranks, num_workers=workers)
    config = OrderConfig(batch_size=batch_size, shuffle=True, shuffle_algo=algo, batching_method=method)
    before, begin = memory.reset_peak(), perf_counter()
    plan = Plan(config, streams, world, epoch=0)
    plan.batch(0, 0)
    first = perf_counter()
    batches = plan.batches_of(0)
    plan.batch(0, batches // 2)
    elsewhere = perf_counter()
    walked = range(batches // 2, min(batches // 2 + _WALKED, batches))
    for index in walked:
        plan.batch(0, index)
    done = perf_counter()
    return {
        'value': first - begin,
        'other_batch_s': elsewhere - first,
        'samples_per_s': len(walked) * batch_size / (done - elsewhere),
        'memory_mb': round(memory.peak_mb() - before, 1),
        'table_mb': round(table.nbytes / 2**20, 1),
    }
