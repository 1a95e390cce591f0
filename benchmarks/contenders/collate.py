"""Timing any loader of default-collated batches."""

import gc
from collections.abc import Iterable
from typing import Any

from harness import memory
from harness.clock import items_per_second

__all__ = ['BATCH', 'measure_batches']

# Samples a batch, everywhere.
BATCH = 64


def measure_batches(loader: Iterable[Any], seconds: float, workers: int, noted: dict[str, Any]) -> dict[str, Any]:
    """Samples a second from the second batch on, with what is ``noted`` and the most memory of a worker."""
    iterator = iter(loader)
    value = BATCH * items_per_second(iterator, seconds, step=1)
    if workers:
        noted = {**noted, 'peak_rss_worker_mb': max((memory.peak_mb(pid) for pid in memory.children()), default=0.0)}
    del iterator
    gc.collect()
    return {'value': value, **noted}
