"""Jobs of several ranks and workers on one cache folder, all forked from this process; a line of JSON for each rank.

    python ranks.py REMOTE LOCAL FOLDER --jobs 2 --ranks 4 --workers 4 --epochs 2 --limit BYTES

Each worker notes which shard it read when, in FOLDER; a rank prints how many samples it got in each epoch and their sum.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streaming import StreamingDataLoader, StreamingDataset, World

BATCH = 4


class Noting(StreamingDataset):
    """Notes the time and the shard of each read of a sample."""

    notes: Path
    last_shard = -1

    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        shard, _ = self._shards.table.locate(index)
        if shard != self.last_shard:
            with (self.notes / f'{os.getpid()}').open('ab') as file:
                file.write(np.array([time.monotonic_ns(), shard], np.int64).tobytes())
            self.last_shard = shard
        return sample


def run_rank(args: argparse.Namespace, job: int, rank: int, step: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    dataset = Noting(
        remote=args.remote,
        local=args.local,
        batch_size=BATCH,
        shuffle=True,
        shuffle_block_size=args.block,
        shuffle_seed=args.seed,
        cache_limit=args.limit or None,
        world=World(rank=rank, num_ranks=args.ranks, ranks_per_node=args.ranks),
    )
    dataset.notes = Path(args.folder)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=args.workers)
    epochs = []
    for _ in range(args.epochs):
        ids = []
        for batch in loader:
            ids += batch['id'].tolist()
            step.wait(60)  # as ranks do that train together
        epochs.append([len(ids), sum(ids)])
    sys.stdout.write(json.dumps({'job': job, 'rank': rank, 'epochs': epochs, 'stats': dataset.stats()[args.local]}) + '\n')
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ('remote', 'local', 'folder'):
        parser.add_argument(name)
    for name, default in (('jobs', 2), ('ranks', 4), ('workers', 4), ('epochs', 2), ('limit', 0), ('block', 1000), ('seed', 1)):
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args()
    children = []
    for job in range(args.jobs):
        step = multiprocessing.get_context('fork').Barrier(args.ranks)
        for rank in range(args.ranks):
            child = os.fork()
            if not child:
                try:
                    run_rank(args, job, rank, step)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
