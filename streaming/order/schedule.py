"""Which stream serves which batch: batches of each stream -> (stream, how many of its batches came before) of any batch."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from streaming.order.config import OrderConfig
from streaming.order.keyed import derive_key, draw
from streaming.order.lookup import Arrays
from streaming.order.partition import Int64Array

__all__ = ['DrawnSchedule', 'Schedule', 'Schedules', 'SpreadSchedule', 'shuffled_turns']

# What a key is for; see windowed.py for the others.
_JITTER = 21

# Batches scheduled at once.
_BLOCK = 1024


class Schedule(Protocol):
    """The order in which streams take turns."""

    def turns(self, batches: Int64Array) -> tuple[Int64Array, Int64Array]:
        """The stream of each batch (N,), and which of the stream's batches it is (N,); both int64 (N,)."""
        ...

    def when(self, stream: int, numbers: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Between which batches, both included, a stream's own ``numbers`` (N,) come; int64 (N,) each."""
        ...


def shuffled_turns(counts: Sequence[int], rng: np.random.Generator) -> Int64Array:
    """The streams' numbers, each as often as it has batches, shuffled as mosaicml-streaming does.

    Args:
        counts: Batches of each stream.
        rng: Drawn from.

    Returns:
        For each batch, its place if all streams' batches lay end to end, int64 (batches,).
    """
    streams = np.repeat(np.arange(len(counts)), counts)
    rng.shuffle(streams)
    turns = np.empty_like(streams)
    # The places of the streams' turns, stream after stream, ascending.
    turns[np.argsort(streams, kind='stable')] = np.arange(len(streams))
    return turns


class DrawnSchedule:
    """Turns that were drawn whole.

    Args:
        counts: Batches of each stream.
        turns: What `shuffled_turns` gave.
    """

    def __init__(self, counts: Sequence[int], turns: Int64Array) -> None:
        self._ends = np.cumsum(np.array(counts, np.int64))
        self._turns = turns

    def turns(self, batches: Int64Array) -> tuple[Int64Array, Int64Array]:
        places = self._turns[batches]
        streams = np.searchsorted(self._ends, places, side='right')
        before = np.append(0, self._ends)
        return streams, places - before[streams]

    def when(self, stream: int, numbers: Int64Array) -> tuple[Int64Array, Int64Array]:
        batches = np.argsort(self._turns)[np.append(0, self._ends)[stream] + numbers]
        return batches, batches


class SpreadSchedule:
    """Turns by formula: each stream's batches lie evenly over the epoch, each at a random moment of its share of the time.

    Args:
        counts: Batches of each stream.
        key_parts: What the random moments depend on.
    """

    def __init__(self, counts: Sequence[int], *key_parts: int) -> None:
        self._counts = [(stream, count) for stream, count in enumerate(counts) if count]
        self._total = sum(counts)
        self._keys = [derive_key(_JITTER, *key_parts, stream) for stream in range(len(counts))]
        self._last: tuple[int, Int64Array, Int64Array] | None = None

    def turns(self, batches: Int64Array) -> tuple[Int64Array, Int64Array]:
        streams, numbers = np.empty_like(batches), np.empty_like(batches)
        blocks = batches // _BLOCK
        for block in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == block)
            _, block_streams, block_numbers = self._scheduled(block)
            streams[here] = block_streams[batches[here] - block * _BLOCK]
            numbers[here] = block_numbers[batches[here] - block * _BLOCK]
        return streams, numbers

    def when(self, stream: int, numbers: Int64Array) -> tuple[Int64Array, Int64Array]:
        count, slack = dict(self._counts)[stream], len(self._counts) + 2
        low = numbers * self._total // count - slack
        return np.maximum(0, low), np.minimum(self._total - 1, low + self._total // count + 2 * slack + 1)

    def _scheduled(self, block: int) -> tuple[int, Int64Array, Int64Array]:
        """Streams and numbers of a block's batches. Threads may race: each finds what it needs."""
        last = self._last
        if last is None or last[0] != block:
            last = self._last = (block, *self._schedule(block * _BLOCK, min((block + 1) * _BLOCK, self._total)))
        return last

    def _schedule(self, first: int, end: int) -> tuple[Int64Array, Int64Array]:
        # A stream with n of N batches has one at a moment within each N/n. Before a moment t there are then t batches, give or
        # take one a stream: so those numbered first to end lie within the moments first - slack and end + slack.
        slack = len(self._counts) + 2
        streams, numbers, moments, before = [], [], [], 0
        for stream, count in self._counts:
            low = max(0, (first - slack) * count // self._total)
            high = min(count, -(-(end + slack) * count // self._total))
            number = np.arange(low, high)
            jitter = (draw(self._keys[stream], number) >> np.uint64(11)).astype(np.float64) / (1 << 53)
            streams.append(np.full(len(number), stream))
            numbers.append(number)
            moments.append((number + jitter) / count * self._total)
            before += low
        all_streams, all_numbers = np.concatenate(streams), np.concatenate(numbers)
        order = np.lexsort((all_streams, np.concatenate(moments)))[first - before : end - before]
        return all_streams[order], all_numbers[order]


class Schedules:
    """A schedule for each node, made when it is first asked for.

    Args:
        counts: Batches of each stream at each node.
        nodes: How many nodes.
        config: The settings, resolved.
        epoch: The epoch, 0-based.
        arrays: Where drawn turns come from.
    """

    def __init__(self, counts: Sequence[int], nodes: int, config: OrderConfig, epoch: int, arrays: Arrays) -> None:
        self._counts = counts
        self._nodes = nodes
        self._arrays = arrays
        self._is_compatible = config.is_compatible
        self._seed = config.shuffle_seed
        # Without shuffling, or with fixed sampling, all epochs have the same turns.
        self._epoch = epoch if config.shuffle and config.sampling_method == 'balanced' else 0
        self._made: dict[int, Schedule] = {}

    def __getitem__(self, node: int) -> Schedule:
        """The schedule of a node. Threads may race: each finds what it needs."""
        found = self._made.get(node)
        if found is None:
            if self._is_compatible:
                found = DrawnSchedule(self._counts, self._turns[node])
            else:
                found = SpreadSchedule(self._counts, self._seed, self._epoch, node)
            self._made[node] = found
        return found

    @cached_property
    def _turns(self) -> Int64Array:
        """The turns of all nodes, drawn from one generator, int64 (nodes, batches)."""
        numbers = (*self._counts, self._nodes, self._seed, self._epoch)
        return self._arrays(f'turns-{hashlib.sha256(repr(numbers).encode()).hexdigest()[:32]}', self._draw)

    def _draw(self) -> Int64Array:
        rng = np.random.default_rng(self._seed + self._epoch)
        return np.stack([shuffled_turns(self._counts, rng) for _ in range(self._nodes)])
