"""Up- and down-sampling: streams and their weights -> how many samples of each shard an epoch takes, and which.

Two ways. The compatible one (`resample`) draws as mosaicml-streaming does and makes arrays of the epoch's length. Ours
(`draw_shards`) keeps a number a shard and finds each sample by a keyed permutation of its shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streaming.errors import ArgumentError
from streaming.order.config import OrderConfig, StreamSamples
from streaming.order.keyed import derive_key, draw, permutation, permute
from streaming.order.partition import Int64Array

__all__ = ['Drawn', 'Shares', 'draw_shards', 'get_sampling', 'resample', 'share_out']

# What a key is for; see windowed.py for the others.
_SHORTFALL, _PICKS, _PHASE, _REMAINDER = 11, 12, 13, 14

# Shards whose sizes are summed up at once.
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Shares:
    """What each stream has in an epoch.

    Args:
        choose: Samples of each stream.
        proportions: The same as a part of the whole.
    """

    choose: tuple[int, ...]
    proportions: tuple[float, ...]


def share_out(streams: Sequence[StreamSamples], config: OrderConfig) -> Shares:
    """Turn the streams' weights into numbers of samples.

    Proportions share out ``config.epoch_size``, by default as many samples as all streams have; without any weights the
    epoch_size is shared out by the streams' sizes. What rounding leaves over goes to streams drawn by the seed, one each.

    Raises:
        ArgumentError: relative weights (proportion) beside absolute ones (repeat, choose, none), an ``epoch_size`` with absolute
            ones, proportions that are all 0, or samples to take from a stream that has none.
    """
    totals = np.array([stream.total for stream in streams], np.int64)
    relative = [stream.proportion is not None for stream in streams]
    weighted = any(stream.repeat is not None or stream.choose is not None for stream in streams)
    if any(relative) and not all(relative):
        raise ArgumentError('give all streams a proportion, or none: proportion does not mix with repeat, choose or no weight')
    if weighted and config.epoch_size is not None:
        raise ArgumentError('epoch_size does not go with repeat or choose, which say it already; use proportion')
    if any(relative) or (config.epoch_size is not None and totals.sum()):
        parts = np.array([stream.proportion for stream in streams] if any(relative) else totals, np.float64)
        if not parts.sum() > 0:
            raise ArgumentError('the proportions of the streams are all 0')
        parts /= parts.sum()
        size = int(totals.sum()) if config.epoch_size is None else config.epoch_size
        choose = (size * parts).astype(np.int64)
        choose[_drawn_streams(config, len(streams), size - int(choose.sum()))] += 1
    else:
        choose = np.array([_absolute(stream) for stream in streams], np.int64)
        parts = choose / max(1, int(choose.sum()))
    for number, (stream, chosen) in enumerate(zip(streams, choose.tolist(), strict=True)):
        if chosen and not stream.total:
            raise ArgumentError(f'stream {number} has no samples, but its weight asks for {chosen}')
    return Shares(tuple(choose.tolist()), tuple(parts.tolist()))


def _absolute(stream: StreamSamples) -> int:
    if stream.repeat is not None:
        return int(stream.repeat * stream.total)
    return stream.total if stream.choose is None else stream.choose


def _drawn_streams(config: OrderConfig, streams: int, count: int) -> Int64Array:
    if config.is_compatible:
        chosen: Int64Array = np.random.default_rng(config.shuffle_seed).choice(streams, count, False)
        return chosen
    return permutation(np.arange(count), streams, derive_key(_SHORTFALL, config.shuffle_seed))


# ---- as mosaicml-streaming does it ---------------------------------------------------------------------------------------


def get_sampling(
    samples_per_shard: Int64Array, choose: int, granularity: int, seed: int, epoch: int, use_epoch: bool
) -> Int64Array:
    """Choose how many samples to take of each shard of a stream.

    Args:
        samples_per_shard: Samples of each shard, int64 (shards,).
        choose: How many to take in all.
        granularity: Samples of a shard that are taken together.
        seed: The shuffle's seed.
        epoch: The epoch, 0-based.
        use_epoch: Whether each epoch takes others.

    Returns:
        How many are taken of each, int64 (shards,).
    """
    total = int(samples_per_shard.sum())
    repeats, rest = divmod(choose, total)
    chosen = samples_per_shard * repeats
    if not rest:
        return chosen
    picks = -(-samples_per_shard // granularity)
    shard_of_pick = np.repeat(np.arange(len(picks)), picks)
    sizes = np.full(len(shard_of_pick), granularity)
    last = (np.cumsum(picks) - 1)[picks > 0]
    sizes[last] = (samples_per_shard - (picks - 1) * granularity)[picks > 0]
    order = np.random.default_rng(seed + epoch if use_epoch else seed).permutation(len(sizes))
    sizes = sizes[order]
    taken = np.clip(rest - (np.cumsum(sizes) - sizes), 0, sizes)
    np.add.at(chosen, shard_of_pick[order], taken)
    return chosen


def resample(
    streams: Sequence[StreamSamples], choose: Sequence[int], first_ids: Sequence[int], config: OrderConfig, epoch: int
) -> tuple[Int64Array, Int64Array]:
    """Take samples of some streams.

    Args:
        streams: The streams.
        choose: How many samples to take of each.
        first_ids: The id of each stream's first sample.
        config: The settings.
        epoch: The epoch, 0-based.

    Returns:
        Sizes of the shuffle units, int64 (units,), and the samples in them, end to end, int64 (samples,).
    """
    fixed = config.sampling_method == 'fixed'
    seed = config.shuffle_seed
    rng = np.random.default_rng(seed if fixed else seed + epoch)
    sizes: list[Int64Array] = []
    ids: list[Int64Array] = []
    for stream, count, first_id in zip(streams, choose, first_ids, strict=True):
        if not count:
            continue
        chosen = get_sampling(stream.samples, count, config.sampling_granularity, seed, epoch, config.shuffle and not fixed)
        if np.array_equal(chosen, stream.samples):
            sizes.append(stream.samples[stream.samples > 0])
            ids.append(np.arange(first_id, first_id + stream.total))
            continue
        begin = first_id
        for size, taken in zip(stream.samples.tolist(), chosen.tolist(), strict=True):
            if taken:
                repeats, rest = divmod(taken, size)
                sizes.append(np.array([size] * repeats + [rest] * (rest > 0), np.int64))
                ids.extend([np.arange(begin, begin + size)] * repeats)
                if rest:
                    ids.append(np.sort(begin + rng.choice(size, rest, False)))
            begin += size
    none = np.empty(0, np.int64)
    return np.concatenate([none, *sizes]), np.concatenate([none, *ids])


# ---- by formula ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What an epoch takes of shards, a number a shard.

    Args:
        sizes: Samples of each shard, int64 (shards,).
        taken: How many samples the epoch has of each, int64 (shards,): its samples over and over, then some of them.
        first_id: The id of the first shard's first sample.
        key: Of the permutations that say which samples an incomplete round has.
        num_units: How many units there are: rounds through a shard, the incomplete ones too.
    """

    sizes: Int64Array
    taken: Int64Array
    first_id: int
    key: int
    num_units: int

    @property
    def is_whole(self) -> bool:
        """Whether each sample is taken once."""
        return self.taken is self.sizes

    def first_ids(self, shards: Int64Array) -> Int64Array:
        """The id of the first sample of each of some shards (N,). Takes time, but no memory, by the number of all shards."""
        if not len(shards):
            return shards
        chunk, within = np.divmod(shards, _CHUNK)
        ends = np.cumsum(np.add.reduceat(self.sizes, np.arange(0, len(self.sizes), _CHUNK)))
        result = np.empty_like(shards)
        order = np.argsort(chunk, kind='stable')
        chunks, firsts = np.unique(chunk[order], return_index=True)
        for number, here in zip(chunks.tolist(), np.split(order, firsts[1:]), strict=True):
            sizes = self.sizes[number * _CHUNK : (number + 1) * _CHUNK]
            before = int(ends[number - 1]) if number else 0
            result[here] = before + (np.cumsum(sizes) - sizes)[within[here]]
        return self.first_id + result

    def in_shard(self, shards: Int64Array, numbers: Int64Array) -> Int64Array:
        """Which sample of its shard each one is, int64 (N,).

        Args:
            shards: The shards (N,).
            numbers: Of the samples taken of each, which (N,): below ``taken``.
        """
        if self.is_whole:
            return numbers
        sizes = self.sizes[shards]
        rounds, within = np.divmod(numbers, sizes)
        partial = np.flatnonzero((rounds + 1) * sizes > self.taken[shards])
        if partial.size:
            within[partial] = permute(within[partial], sizes[partial], draw(self.key, shards[partial])).astype(np.int64)
        return within


def draw_shards(streams: Sequence[StreamSamples], choose: Sequence[int], first_id: int, config: OrderConfig, epoch: int) -> Drawn:
    """Take samples of some streams that follow one another.

    Args:
        streams: The streams.
        choose: How many samples to take of each.
        first_id: The id of the first sample.
        config: The settings.
        epoch: The epoch, 0-based.
    """
    seed, fixed = config.shuffle_seed, config.sampling_method == 'fixed'
    key = derive_key(_REMAINDER, seed) if fixed else derive_key(_REMAINDER, seed, epoch)
    sizes = streams[0].samples if len(streams) == 1 else np.concatenate([stream.samples for stream in streams])
    if all(count == stream.total for stream, count in zip(streams, choose, strict=True)):
        return Drawn(sizes, sizes, first_id, key, len(sizes))
    taken, units = [], 0
    for number, (stream, count) in enumerate(zip(streams, choose, strict=True)):
        repeats, rest = divmod(count, max(1, stream.total))
        parts = (seed, number) if fixed or not config.shuffle else (seed, number, epoch)
        taken.append(stream.samples * repeats + _spread(stream.samples, rest, config.sampling_granularity, parts))
        units += repeats * len(stream.samples) + int(min(len(stream.samples), -(-rest // config.sampling_granularity)))
    return Drawn(sizes, np.concatenate(taken), first_id, key, units)


def _spread(samples: Int64Array, count: int, granularity: int, key_parts: tuple[int, ...]) -> Int64Array:
    """How many samples to take of each shard: picks of ``granularity``, spread evenly over the shards in a keyed order."""
    result = np.zeros(len(samples), np.int64)
    if not count:
        return result
    order = permutation(np.arange(len(samples)), len(samples), derive_key(_PICKS, *key_parts))
    sizes = samples[order]
    picks = -(-sizes // granularity)
    # Shards lie end to end on a line of picks; taking every (1 / share)th from a random start takes of each its part.
    phase = float(draw(derive_key(_PHASE, *key_parts), np.zeros(1, np.int64))[0] >> np.uint64(11)) / (1 << 53)
    marks = np.floor(np.cumsum(picks) * (count / int(samples.sum())) + phase).astype(np.int64)
    taken = np.minimum(np.minimum(np.diff(marks, prepend=0), picks) * granularity, sizes)
    # A shard's last pick is smaller, so that this is nearly the count: the end of the line makes up for it.
    taken = np.clip(count - (np.cumsum(taken) - taken), 0, taken)
    room = sizes - taken
    missing = count - int(taken.sum())
    taken += np.clip(missing - (np.cumsum(room) - room), 0, room)
    result[order] = taken
    return result
