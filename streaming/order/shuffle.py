"""The shuffles of mosaicml-streaming: sizes of shuffle units -> a permutation of their samples, as a whole array.

They are here so that a run begun there goes on here, sample for sample; `windowed` needs no such array. Each draws from NumPy's
default generator in an order that is part of what it is, so the loops below may not be rearranged.
"""

import warnings
from collections.abc import Callable

import numpy as np

from streaming.errors import ArgumentError
from streaming.order.partition import Int64Array

__all__ = ['check_shuffle', 'get_shuffle']


def get_shuffle(
    algo: str, unit_sizes: Int64Array, num_canonical_nodes: int, seed: int, epoch: int, block_size: int
) -> Int64Array:
    """Shuffle an epoch.

    Args:
        algo: ``'naive'``, ``'py1s'``, ``'py2s'``, ``'py1br'`` or ``'py1e'``.
        unit_sizes: Samples of each unit (a shard, as often as it is read), int64 (units,).
        num_canonical_nodes: Between how many nodes the units are dealt.
        seed: The shuffle's seed, at least 0.
        epoch: The epoch, 0-based.
        block_size: Samples that mix (py1br, py1e).

    Returns:
        Which sample stands at each slot, counting through the units, int64 (samples,).

    Raises:
        ArgumentError: no such shuffle, or values that its arithmetic does not take.
    """
    check_shuffle(algo, seed, epoch, block_size)
    return _SHUFFLES[algo](unit_sizes, num_canonical_nodes, seed, epoch, block_size)


def check_shuffle(algo: str, seed: int, epoch: int, block_size: int) -> None:
    """Check that a shuffle can be done.

    Raises:
        ArgumentError: no such shuffle, or values that its arithmetic does not take.
    """
    if algo not in _SHUFFLES:
        raise ArgumentError(f'shuffle_algo must be one of {", ".join(_SHUFFLES)}, got {algo!r}')
    if seed < 0 or epoch < 0:
        raise ArgumentError(f'{algo} needs a shuffle_seed and an epoch of at least 0, got {seed} and {epoch}')
    least = {'py1br': 2, 'py1e': 1}.get(algo, 0)
    if block_size < least:
        raise ArgumentError(
            f'{algo} needs a shuffle_block_size of at least {least}, got {block_size} (batching by streams gives each stream '
            'its share of it)'
        )


def _naive(unit_sizes: Int64Array, nodes: int, seed: int, epoch: int, block_size: int) -> Int64Array:
    shuffled: Int64Array = np.random.default_rng(seed + epoch).permutation(int(unit_sizes.sum()))
    return shuffled


def _py1s(unit_sizes: Int64Array, nodes: int, seed: int, epoch: int, block_size: int) -> Int64Array:
    rng = np.random.default_rng(seed + epoch)
    parts = _deal_spans(unit_sizes, nodes, seed)
    for part in parts:
        rng.shuffle(part)
    return np.concatenate([_shuffled_spans(part, rng) for part in parts])


def _py2s(unit_sizes: Int64Array, nodes: int, seed: int, epoch: int, block_size: int) -> Int64Array:
    ends = np.cumsum(unit_sizes)
    units = [np.arange(end - size, end) for end, size in zip(ends.tolist(), unit_sizes.tolist(), strict=True)]
    rng = np.random.default_rng(seed)
    rng.shuffle(units)  # a list of arrays is shuffled as a list
    for unit in units:
        rng.shuffle(unit)
    in_order = np.concatenate(units) if units else np.empty(0, np.int64)
    # The units lie end to end now, so that they are cut like spans; what is shuffled below are views of them.
    sizes = np.array([len(unit) for unit in units], np.int64)
    parts = _cut(np.stack([np.cumsum(sizes) - sizes, np.cumsum(sizes)], axis=1), nodes)
    rng = np.random.default_rng(seed + epoch)
    result = []
    for part in parts:
        rng.shuffle(part)
        for begin, end in part.tolist():
            rng.shuffle(in_order[begin:end])
            result.append(in_order[begin:end])
    return np.concatenate(result) if result else in_order


def _py1br(unit_sizes: Int64Array, nodes: int, seed: int, epoch: int, block_size: int) -> Int64Array:
    rng = np.random.default_rng(seed + epoch)
    parts = _deal_spans(unit_sizes, nodes, seed)
    for part in parts:
        rng.shuffle(part)
    least, most = int(0.75 * block_size), int(1.25 * block_size)
    staggers = rng.integers(0, least, (nodes,)).tolist()
    result = np.concatenate([_laid_out(part) for part in parts])
    last = 0
    for part, stagger in zip(parts, staggers, strict=True):
        first, last = last, last + int((part[:, 1] - part[:, 0]).sum())
        blocks = []
        end = first
        while end < last:
            size = int(rng.integers(least, most))
            block = max(end - stagger, first), min(end + size - stagger, last)
            blocks.append(block)
            end += block[1] - block[0]
        for begin, stop in blocks:
            rng.shuffle(result[begin:stop])
    return result


def _py1e(unit_sizes: Int64Array, nodes: int, seed: int, epoch: int, block_size: int) -> Int64Array:
    rng = np.random.default_rng(seed + epoch)
    parts = _deal_spans(unit_sizes, nodes, seed)
    for part in parts:
        rng.shuffle(part)
    least, most = int(0.75 * block_size), int(1.25 * block_size)
    if len(unit_sizes) and int(unit_sizes.max()) > least:
        warnings.warn(
            f'shuffle_block_size={block_size} is less than some shards have samples; those hardly mix with others', stacklevel=4
        )
    result = []
    for part in parts:
        ids = _shuffled_spans(part, rng)
        places = np.arange(len(ids), dtype=np.float64)
        offset = 0
        for size in (part[:, 1] - part[:, 0]).tolist():
            half = max(0.0, (int(rng.integers(least, most)) - size) / 2)
            low, high = max(-half, -offset), min(half, len(ids) - offset - size)
            places[offset : offset + size] += rng.uniform(low, high, size)
            offset += size
        result.append(ids[np.argsort(places)])
    return np.concatenate(result)


_SHUFFLES: dict[str, Callable[[Int64Array, int, int, int, int], Int64Array]] = {
    'naive': _naive,
    'py1s': _py1s,
    'py2s': _py2s,
    'py1br': _py1br,
    'py1e': _py1e,
}


def _deal_spans(unit_sizes: Int64Array, nodes: int, seed: int) -> list[Int64Array]:
    """The units as spans of ids (begin, end), in the run's order, cut into a part for each canonical node."""
    ends = np.cumsum(unit_sizes)
    order = np.arange(len(unit_sizes))
    np.random.default_rng(seed).shuffle(order)
    return _cut(np.stack([ends - unit_sizes, ends], axis=1)[order], nodes)


def _cut(spans: Int64Array, nodes: int) -> list[Int64Array]:
    """Cut spans, laid end to end, into parts of as many samples; a span that crosses is split."""
    parts: list[Int64Array] = []
    sizes = spans[:, 1] - spans[:, 0]
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    # A part takes all spans that end by its end, and what it can hold of the next.
    first, taken = 0, 0
    for node in range(nodes):
        part_end = total * (node + 1) // nodes
        last = int(np.searchsorted(ends, part_end, side='right'))
        part = spans[first:last].copy()
        if len(part) and taken:
            part[0, 0] += taken
            taken = 0
        before = int(ends[last - 1]) if last else 0
        missing = part_end - before - (taken if last == first else 0)
        if last < len(spans) and missing > 0:
            begin = int(spans[last, 0]) + (taken if last == first else 0)
            part = np.concatenate([part, [[begin, begin + missing]]])
            taken = part_end - before
        first = last
        parts.append(part.reshape(-1, 2))
    return parts


def _laid_out(spans: Int64Array) -> Int64Array:
    """The ids of spans, end to end."""
    sizes = spans[:, 1] - spans[:, 0]
    steps = np.repeat(spans[:, 0] - np.cumsum(sizes) + sizes, sizes)
    laid: Int64Array = steps + np.arange(len(steps))
    return laid


def _shuffled_spans(spans: Int64Array, rng: np.random.Generator) -> Int64Array:
    """The ids of spans, end to end, each span shuffled."""
    ids = _laid_out(spans)
    end = 0
    for size in (spans[:, 1] - spans[:, 0]).tolist():
        rng.shuffle(ids[end : end + size])
        end += size
    return ids
