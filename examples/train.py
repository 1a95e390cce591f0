"""A tiny byte model, trained by torchrun on a streamed, shuffled dataset; stops in mid-epoch or resumes, as it is told.

    torchrun --nproc-per-node 2 examples/train.py --remote oci://bucket@namespace/prefix --cache /tmp/cache --work /tmp/run

Every rank notes which samples it was given in WORK/NAME-rank-N.json, so that someone can check that the epoch was whole.
"""

import argparse
import json
import os
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from streaming import StreamingDataLoader, StreamingDataset

REACH = 8


class ByteModel(nn.Module):
    """Guesses each byte from the few before it."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.mix = nn.Conv1d(width, 2 * width, REACH)
        self.guess = nn.Linear(2 * width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Cross-entropy of the bytes after the first `REACH`, in nats; tokens: int64 (batch, window)."""
        hidden = torch.relu(self.mix(self.embed(tokens[:, :-1]).transpose(1, 2))).transpose(1, 2)
        return cross_entropy(self.guess(hidden).flatten(0, 1), tokens[:, REACH:].flatten())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a tiny byte model on a streamed dataset.')
    parser.add_argument('--remote', required=True, help='URL of the dataset')
    parser.add_argument('--cache', required=True, type=Path, help='cache folder; each node uses its own sub-folder')
    parser.add_argument('--work', required=True, type=Path, help="folder for the checkpoint and the ranks' notes")
    parser.add_argument('--name', default='run', help='what to call the notes')
    parser.add_argument('--global-batch', type=int, default=64, help='samples a step, over all ranks')
    parser.add_argument('--workers', type=int, default=2, help='DataLoader workers a rank')
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoint in WORK')
    parser.add_argument('--stop-after', type=int, help='save and stop after so many steps')
    return parser.parse_args()


def mean_over_ranks(value: Tensor) -> float:
    value = value.detach().clone()
    torch.distributed.all_reduce(value)
    return float(value) / torch.distributed.get_world_size()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.distributed.init_process_group('gloo')
    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    batch_size = arguments.global_batch // num_ranks

    since = time.monotonic()
    dataset = StreamingDataset(
        remote=arguments.remote,
        local=str(arguments.cache / f'node-{os.environ.get("GROUP_RANK", "0")}'),
        batch_size=batch_size,
        shuffle=True,
    )
    loader = StreamingDataLoader(dataset, batch_size=batch_size, num_workers=arguments.workers)
    model = DistributedDataParallel(ByteModel())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    checkpoint = arguments.work / 'checkpoint.pt'
    if arguments.resume:
        saved: dict[str, Any] = torch.load(checkpoint)
        model.module.load_state_dict(saved['model'])
        optimizer.load_state_dict(saved['optimizer'])
        loader.load_state_dict(saved['loader'])

    seen: list[int] = []
    losses: list[float] = []
    first_batch_s = 0.0
    steps = len(loader) if arguments.stop_after is None else arguments.stop_after
    bar = tqdm(desc=f'{arguments.name}, rank 0 of {num_ranks}', unit='step', disable=rank != 0, file=sys.stdout, mininterval=1)
    for batch in islice(loader, steps):
        first_batch_s = first_batch_s or time.monotonic() - since
        seen.extend(batch['id'].tolist())
        loss = model(batch['tokens'].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(mean_over_ranks(loss))
        bar.set_postfix(loss=f'{losses[-1]:.3f}', refresh=False)
        bar.update()
    bar.close()
    elapsed_s = time.monotonic() - since

    state = loader.state_dict()
    if rank == 0:
        torch.save({'model': model.module.state_dict(), 'optimizer': optimizer.state_dict(), 'loader': state}, checkpoint)
    notes = {
        'rank': rank,
        'node': int(os.environ.get('GROUP_RANK', '0')),
        'seen': seen,
        'losses': losses,
        'first_batch_s': first_batch_s,
        'elapsed_s': elapsed_s,
        'loader': state,
    }
    # All ranks of a node have fetched what they will before anybody reads the node's sums.
    torch.distributed.barrier()
    notes['fetched_bytes'] = sum(counters['fetched_bytes'] for counters in dataset.stats().values())
    (arguments.work / f'{arguments.name}-rank-{rank}.json').write_text(json.dumps(notes))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
