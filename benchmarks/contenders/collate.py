"""Timing any loader of default-collated batches."""

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from harness import memory
from harness.clock import items_per_second

__all__ = ['BATCH', 'measure_batches']

# Samples a batch, everywhere.
BATCH = 64


def measure_batches(epoch: Callable[[], Iterable[Any]], seconds: float, workers: int, noted: dict[str, Any]) -> dict[str, Any]:
    """Samples a second from the second batch of each epoch on, with what is ``noted`` and the most memory of a worker."""
    peaks = [0.0]

    def watched() -> Iterator[Any]:
        for number, batch in enumerate(epoch()):
            # Workers end with their epoch, so that they are looked at while it runs.
            if workers and number & 63 == 0:
                peaks.extend(memory.peak_mb(pid) for pid in memory.children())
            yield batch

    value = BATCH * items_per_second(watched, seconds, step=1)
    gc.collect()
    return {'value': value, **noted, **({'peak_rss_worker_mb': max(peaks)} if workers else {})}
