"""Make the pictures of the documentation, by the library itself: ``python docs/pictures.py``. Needs matplotlib.

They are the same each time, but for the version of matplotlib.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np

from streaming import World
from streaming.order.config import SHUFFLES
from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.order.quality import order_of_node, over_epoch, shards_in_use

# What one node reads in the pictures of shuffles.
SHARDS, SIZE, BLOCK = 200, 500, 20_000
COLORS = dict(zip(SHUFFLES, ('black', 'tab:gray', 'tab:blue', 'tab:cyan', 'tab:orange', 'tab:red'), strict=True))


def orders() -> dict[str, np.ndarray]:
    """One epoch of a node by each shuffle."""
    sizes = np.full(SHARDS, SIZE)
    config = OrderConfig(shuffle=True, shuffle_block_size=BLOCK, num_canonical_nodes=1)
    return {algo: order_of_node(replace(config, shuffle_algo=algo), sizes, epoch=1) for algo in SHUFFLES}


def draw_dealing() -> Any:
    """Whose each sample is, on three worlds; and in which global batch."""
    figure, axes = plt.subplots(4, 1, figsize=(9, 6.4), layout='constrained')
    config = OrderConfig(batch_size=2, num_canonical_nodes=4)
    streams = [StreamSamples.of([24] * 4)]
    for axis, (nodes, ranks, size) in zip(axes, ((4, 1, 2), (2, 2, 2), (1, 8, 1), (4, 1, 2)), strict=True):
        world = World(num_ranks=nodes * ranks, ranks_per_node=ranks)
        rank_of, batch_of = (np.full(96, -1) for _ in range(2))
        for rank in range(world.num_ranks):
            plan = Plan(replace(config, batch_size=size), streams, replace(world, rank=rank), epoch=0)
            for number in range(plan.num_batches):
                rank_of[plan.batch(0, number)] = rank
                batch_of[plan.batch(0, number)] = number
        by_batch = axis is axes[-1]
        shown = (batch_of if by_batch else rank_of).reshape(4, 24)
        axis.imshow(shown, cmap='viridis' if by_batch else 'tab10', aspect='auto', vmin=0, vmax=None if by_batch else 9)
        for (row, column), value in np.ndenumerate(shown):
            axis.text(column, row, str(value), ha='center', va='center', color='white', fontsize=8)
        what = (
            'global batch, on any of them'
            if by_batch
            else f'rank, on nodes={nodes} of ranks={ranks} each, with batches of {size} a rank'
        )
        axis.set_title(f'number: {what}', fontsize=9, loc='left')
        axis.set_ylabel('canonical node', fontsize=8)
        axis.set_yticks(range(4))
        axis.set_xticks([])
    axes[-1].set_xlabel('sample of the canonical node')
    return figure


def draw_shuffles(made: dict[str, np.ndarray]) -> Any:
    """When the samples of each shard are read."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 6), sharex=True, sharey=True, layout='constrained')
    for axis, (algo, order) in zip(axes.flat, made.items(), strict=True):
        when = np.arange(len(order)) * 200 // len(order)
        # Shards by when they are first read: in the order in which they lie, one would see nothing.
        _, first = np.unique(order // SIZE, return_index=True)
        rank = np.argsort(np.argsort(first))
        counts = np.zeros((SHARDS, 200))
        np.add.at(counts, (rank[order // SIZE], when), 1)
        axis.imshow(
            counts, cmap='Greys', aspect='auto', vmax=counts.mean() * (20 if algo != 'naive' else 2), extent=(0, 1, SHARDS, 0)
        )
        axis.set_title(algo, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel('epoch')
    for axis in axes[:, 0]:
        axis.set_ylabel('shard, by first use')
    return figure


def draw_quality(made: dict[str, np.ndarray]) -> Any:
    """How far apart neighbours are, and how many shards that takes."""
    sizes = np.full(SHARDS, SIZE)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout='constrained')
    for algo, order in made.items():
        spread, window = over_epoch(order, sizes)
        style: dict[str, Any] = {'color': COLORS[algo], 'linewidth': 2.5 if algo == 'windowed' else 1.2, 'label': algo}
        x = (np.arange(len(spread)) + 0.5) / len(spread)
        axes[0].plot(x, spread, **style)
        axes[1].plot(x, window, **style)
        in_use = shards_in_use(order, sizes)[::200]
        axes[2].plot(np.arange(len(in_use)) / len(in_use), in_use, **style)
    axes[0].set_title('distance of neighbours, samples', fontsize=10)
    axes[1].set_title('shards read in a twentieth of the epoch', fontsize=10)
    axes[2].set_title('shards between first and last use', fontsize=10)
    for axis in axes:
        axis.set_yscale('log')
        axis.set_xlabel('epoch')
    axes[0].legend(fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'img', help='default: docs/img')
    out = parser.parse_args().out
    out.mkdir(exist_ok=True)
    made = orders()
    for name, figure in (
        ('order-dealing.png', draw_dealing()),
        ('order-shuffles.png', draw_shuffles(made)),
        ('order-quality.png', draw_quality(made)),
    ):
        figure.savefig(out / name, dpi=75, pil_kwargs={'optimize': True})
        plt.close(figure)


if __name__ == '__main__':
    main()
