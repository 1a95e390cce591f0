"""Epoch after epoch in the ranks and workers of one package, with the memory of each after each epoch."""

import importlib
import multiprocessing
import os
import socket
from collections.abc import Iterator
from typing import Any

from harness import memory

__all__ = ['soak']


def soak(module: str, folder: str, cache: str, epochs: int, ranks: int, workers: int) -> dict[str, Any]:
    """Let ``ranks`` processes with ``workers`` each iterate all epochs, as torchrun would start them.

    Args:
        module: Of the contender: its ``loader(folder, cache, workers)`` makes a loader with persistent workers.

    Returns:
        ``value``: the most MiB by which the private memory of a process grew from the second epoch to the last, 0 if none grew;
        ``epochs_mb``: for each process its private memory after each epoch; peaks of ranks and workers.
    """
    context = multiprocessing.get_context('spawn')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=_rank, args=(answers, module, folder, cache, epochs, rank, ranks, workers, port))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f'ranks ended with {[process.exitcode for process in processes]}')
    noted = [answers.get() for _ in processes]
    curves = [curve for rank in noted for curve in rank['epochs_mb']]
    return {
        'value': round(max(0.0, *(curve[-1] - curve[1] for curve in curves)), 1),
        'epochs_mb': curves,
        'samples': sum(rank['samples'] for rank in noted),
        'peak_rss_mb': max(rank['peak_rss_mb'] for rank in noted),
        'peak_rss_worker_mb': max(rank['peak_rss_worker_mb'] for rank in noted),
    }


def _rank(
    answers: Any, module: str, folder: str, cache: str, epochs: int, rank: int, ranks: int, workers: int, port: int
) -> None:
    os.environ |= {
        'RANK': str(rank),
        'LOCAL_RANK': str(rank),
        'WORLD_SIZE': str(ranks),
        'LOCAL_WORLD_SIZE': str(ranks),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(port),
    }
    import torch.distributed

    torch.distributed.init_process_group('gloo')
    loader = importlib.import_module(module).loader(folder, cache, workers)
    samples, curves = 0, []
    for row, count in _epochs(loader, epochs):
        samples += count
        curves.append(row)
    pids = _workers()
    answers.put(
        {
            'epochs_mb': [list(curve) for curve in zip(*curves, strict=True)],
            'samples': samples,
            'peak_rss_mb': memory.peak_mb(),
            'peak_rss_worker_mb': max((memory.peak_mb(pid) for pid in pids), default=0.0),
        }
    )
    torch.distributed.destroy_process_group()


def _epochs(loader: Any, epochs: int) -> Iterator[tuple[list[float], int]]:
    """For each epoch the private memory of this process and its workers after it, and its samples."""
    for _ in range(epochs):
        count = 0
        for batch in loader:
            count += len(next(iter(batch.values())))
        yield [memory.private_mb(), *(memory.private_mb(pid) for pid in _workers())], count


def _workers() -> list[int]:
    """The loader's processes; those that only track resources never grow to this."""
    return sorted(pid for pid in memory.children() if memory.private_mb(pid) > 32)
