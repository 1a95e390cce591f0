"""Where the time of a batch goes: CPU microseconds a batch, stage by stage, from one process without workers.

    python benchmarks/stages.py FOLDER [--batch-size 64] [--shuffle]

FOLDER has an MDS dataset, which is read once before it is measured. Prints a line of JSON for each stage; each includes those
before it, except ``order``, ``samples`` and ``columns``, which stand alone.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from streaming import StreamingDataLoader, StreamingDataset, World
from streaming.batches import collate

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--shuffle', action='store_true')
    arguments = parser.parse_args()
    dataset = StreamingDataset(
        local=arguments.folder,
        batch_size=arguments.batch_size,
        shuffle=arguments.shuffle,
        world=World(rank=0, num_ranks=1, ranks_per_node=1),
    )
    loader = StreamingDataLoader(dataset, batch_size=arguments.batch_size)
    count = sum(1 for _ in loader)
    shards, begun = dataset._shards, dataset.progress.current()

    def order() -> list[Any]:
        plan = dataset._plan(begun, from_start=True)
        return [plan.batch(0, index) for index in range(count)]

    ids = order()

    def columns() -> Iterator[tuple[Any, Any]]:
        return zip(ids, shards.batches(np.concatenate(ids), arguments.batch_size), strict=True)

    stages: dict[str, Callable[[], Iterable[Any]]] = {
        'order': order,
        'samples': lambda: (list(shards.read_many(some)) for some in ids),
        'columns': columns,
        'columns and tensors': lambda: (collate(found or list(shards.read_many(some))) for some, found in columns()),
        'loader': lambda: loader,
    }
    rounds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(ROUNDS):
        for name, work in stages.items():
            begin = process_time()
            for _ in work():
                pass
            rounds[name].append((process_time() - begin) / count * 1e6)
    for name, times in rounds.items():
        line = {'name': 'stages', 'stage': name, 'batch_size': arguments.batch_size, 'shuffle': arguments.shuffle}
        print(json.dumps({**line, 'cpu_us_a_batch': round(median(times), 1), 'rounds': [round(one, 1) for one in times]}))


if __name__ == '__main__':
    main()
