"""How good a shuffle is, and what it costs in shards: measured on the order in which one node reads.

Two things pull apart. Samples that lie beside each other in a shard should be read far from each other; and few shards should be
in use at a time, coming into use evenly, because those must be fetched and kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streaming.order.config import OrderConfig, StreamSamples
from streaming.order.partition import Int64Array
from streaming.order.plan import Plan
from streaming.world import World

__all__ = ['ShuffleQuality', 'measure', 'order_of_node', 'over_epoch', 'shards_in_use']

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShuffleQuality:
    """What `measure` found. Distances are in samples of the node.

    Args:
        spread: Mean distance, in the order of reading, between samples that are neighbours in their shard.
        spread_at_end: The same for those in the last tenth of the epoch.
        window: Mean number of shards that are read in a window of the epoch.
        window_at_end: The same for windows in the last tenth.
        in_use: Mean number of shards between their first use and their last.
        most_in_use: The largest such number.
        burst: How many shards come into use more than a steady rate would have by then, at the worst.
    """

    spread: float
    spread_at_end: float
    window: float
    window_at_end: float
    in_use: float
    most_in_use: int
    burst: float


def order_of_node(config: OrderConfig, samples_per_shard: Int64Array, epoch: int = 0) -> Int64Array:
    """The samples of a stream in the order in which a single node would read them, int64 (samples,).

    Args:
        config: The settings; ``batch_size`` and ``tail`` do not matter.
        samples_per_shard: Samples of each shard, int64 (shards,).
        epoch: The epoch, 0-based. Default: 0.
    """
    config = OrderConfig(
        batch_size=4096,
        tail='mask',
        shuffle=config.shuffle,
        shuffle_algo=config.shuffle_algo,
        shuffle_seed=config.shuffle_seed,
        shuffle_block_size=config.shuffle_block_size,
        num_canonical_nodes=config.num_canonical_nodes,
    )
    plan = Plan(config, [StreamSamples(samples_per_shard)], World(), epoch=epoch)
    return np.concatenate([np.empty(0, np.int64), *(plan.batch(0, index) for index in range(plan.num_batches))])


def measure(order: Int64Array, samples_per_shard: Int64Array, *, windows: int = 40) -> ShuffleQuality:
    """Measure an order.

    Args:
        order: The samples as they are read, each at most once, int64 (samples,).
        samples_per_shard: Samples of each shard, int64 (shards,).
        windows: In how many windows to cut the epoch. Default: 40.
    """
    shards, count = _shards(order, samples_per_shard), len(order)
    distance, middle = _neighbours(order, samples_per_shard)
    is_late = middle > min(0.9 * count, float(middle.max(initial=0)) - 1)
    length = max(1, count // windows)
    read = [len(np.unique(shards[begin : begin + length])) for begin in range(0, count - length + 1, length)]
    in_use = shards_in_use(order, samples_per_shard)
    return ShuffleQuality(
        spread=float(distance.mean()),
        spread_at_end=float(distance[is_late].mean()),
        window=float(np.mean(read)),
        window_at_end=float(np.mean(read[-max(1, len(read) // 10) :])),
        in_use=float(in_use.mean()),
        most_in_use=int(in_use.max()),
        burst=_burst(shards),
    )


def over_epoch(order: Int64Array, samples_per_shard: Int64Array, *, parts: int = 20) -> tuple[FloatArray, FloatArray]:
    """How good an order is from the beginning of the epoch to its end.

    Args:
        order: The samples as they are read, each at most once, int64 (samples,).
        samples_per_shard: Samples of each shard, int64 (shards,).
        parts: In how many parts to cut the epoch. Default: 20.

    Returns:
        Of each part the mean distance between samples that are neighbours in their shard (NaN where there are none), and the
        number of shards that are read in it; float64 (parts,) each.
    """
    distance, middle = _neighbours(order, samples_per_shard)
    part = np.minimum((middle * parts // max(1, len(order))).astype(np.int64), parts - 1)
    sums, counts = (np.bincount(part, weights, parts) for weights in (distance, None))
    spread = np.divide(sums, counts, out=np.full(parts, np.nan), where=counts > 0)
    cuts = np.array_split(_shards(order, samples_per_shard), parts)
    return spread, np.array([len(np.unique(cut)) for cut in cuts], np.float64)


def _shards(order: Int64Array, samples_per_shard: Int64Array) -> Int64Array:
    """The shard of each sample of an order."""
    return np.repeat(np.arange(len(samples_per_shard)), samples_per_shard)[order]


def _neighbours(order: Int64Array, samples_per_shard: Int64Array) -> tuple[Int64Array, FloatArray]:
    """Of all samples that lie beside each other in a shard: how far apart they are read, and the middle between them."""
    shard_of = np.repeat(np.arange(len(samples_per_shard)), samples_per_shard)
    places = np.full(len(shard_of), -1)
    places[order] = np.arange(len(order))
    beside = (shard_of[1:] == shard_of[:-1]) & (places[1:] >= 0) & (places[:-1] >= 0)
    return np.abs(np.diff(places))[beside], ((places[1:] + places[:-1]) / 2)[beside]


def shards_in_use(order: Int64Array, samples_per_shard: Int64Array) -> Int64Array:
    """How many shards are between their first and their last use at each sample of an order, int64 (samples,)."""
    shards = _shards(order, samples_per_shard)
    _, first = np.unique(shards, return_index=True)
    _, from_end = np.unique(shards[::-1], return_index=True)
    change = np.bincount(first, minlength=len(order) + 1) - np.bincount(len(order) - from_end, minlength=len(order) + 1)
    in_use: Int64Array = np.cumsum(change)[:-1]
    return in_use


def _burst(shards: Int64Array) -> float:
    """The most by which first uses run ahead of an even rate, leaving out the first and the last tenth of the epoch."""
    _, first = np.unique(shards, return_index=True)
    first = np.sort(first)
    first = first[(first > len(shards) // 10) & (first < len(shards) * 9 // 10)]
    if len(first) < 3 or first[-1] == first[0]:
        return 0.0
    rate = (len(first) - 1) / (first[-1] - first[0])
    ahead = np.arange(len(first)) - (first - first[0]) * rate
    return float((ahead - np.minimum.accumulate(ahead)).max())
