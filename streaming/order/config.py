"""What an order depends on beside the world: the settings and the sizes of the streams, each checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from streaming.errors import ArgumentError
from streaming.order.partition import Int64Array
from streaming.world import World

__all__ = ['OrderConfig', 'Origin', 'StreamSamples', 'data_world']

SHUFFLES = ('windowed', 'naive', 'py1s', 'py2s', 'py1br', 'py1e')
_CHOICES = {
    'shuffle_algo': SHUFFLES,
    'partition_algo': ('relaxed', 'orig'),
    'batching_method': ('random', 'stratified', 'per_stream', 'device_per_stream'),
    'sampling_method': ('balanced', 'fixed'),
    'tail': ('pad', 'drop', 'mask'),
}
_AT_LEAST = {
    'batch_size': 1,
    'shuffle_block_size': 1,
    'num_canonical_nodes': 1,
    'initial_physical_nodes': 1,
    'sampling_granularity': 1,
    'epoch_size': 0,
    'replication': 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderConfig:
    """The settings of an order. None means derived from the world, see `resolve`.

    Args:
        batch_size: Samples a batch of one rank. Needed by a plan. Default: None.
        shuffle: Whether to shuffle. Default: False.
        shuffle_algo: ``'windowed'``, or an order of mosaicml-streaming: ``'naive'``, ``'py1s'``, ``'py2s'``,
            ``'py1br'``, ``'py1e'``. Also says whose up- and down-sampling is used without shuffling. Default: None,
            windowed.
        shuffle_seed: Seed of the order. Default: 9176, as in mosaicml-streaming.
        shuffle_block_size: Over how many samples of a canonical node those of a shard spread out. Default: None,
            4,000,000 over the canonical nodes, at least 262,144.
        num_canonical_nodes: In how many parts the samples are dealt. Default: None, the nodes (64 times as many for
            py1s, py2s).
        initial_physical_nodes: On how many nodes the run began, where that is not this world's. Default: None.
        partition_algo: ``'relaxed'`` or ``'orig'``; they differ only where an epoch of mosaicml-streaming goes on, on a
            number of nodes that does not fit. Default: relaxed.
        batching_method: ``'random'`` (batches from all streams' samples), ``'stratified'`` (each batch with every
            stream's share), ``'per_stream'`` (each global batch from one stream), ``'device_per_stream'`` (each
            rank's). Default: random.
        sampling_method: ``'balanced'`` or ``'fixed'``: whether up- and down-sampling picks anew each epoch. Default:
            balanced.
        sampling_granularity: Samples picked together when down-sampling. Default: 1.
        epoch_size: Samples an epoch. Default: None, what the streams and their weights give.
        tail: What becomes of the end of an epoch: ``'pad'`` repeats samples until all ranks have as many, ``'mask'``
            does and marks them, ``'drop'`` leaves out what makes no whole global batch. Default: pad.
        replication: How many consecutive ranks get the same samples. Default: None, each its own.
        weights: Weights of the streams that replace those they were made with: for each stream a mapping with one of
            ``'proportion'``, ``'repeat'`` and ``'choose'``, or an empty one. For a curriculum: they may change between epochs and
            are part of the state. Default: None, the streams' own.
        origin: The world that began the epoch to be resumed. Only from a state. Default: None.

    Raises:
        ArgumentError: a value that cannot work.
    """

    batch_size: int | None = None
    shuffle: bool = False
    shuffle_algo: str | None = None
    shuffle_seed: int = 9176
    shuffle_block_size: int | None = None
    num_canonical_nodes: int | None = None
    initial_physical_nodes: int | None = None
    partition_algo: str = 'relaxed'
    batching_method: str = 'random'
    sampling_method: str = 'balanced'
    sampling_granularity: int = 1
    epoch_size: int | None = None
    tail: str = 'pad'
    replication: int | None = None
    weights: 'tuple[Mapping[str, float], ...] | None' = None
    origin: 'Origin | None' = None

    def __post_init__(self) -> None:
        if isinstance(self.origin, Mapping):
            object.__setattr__(self, 'origin', Origin(**self.origin))
        if self.weights is not None:
            object.__setattr__(self, 'weights', tuple(dict(weight) for weight in self.weights))
            for weight in self.weights:
                if not weight.keys() <= {'proportion', 'repeat', 'choose'}:
                    raise ArgumentError(f'a weight is one of proportion, repeat and choose by name, got {weight!r}')
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (name == 'shuffle_algo' and value is None):
                raise ArgumentError(f'{name} must be one of {", ".join(choices)}, got {value!r}')
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least):
                raise ArgumentError(f'{name} must be a whole number of at least {least}, got {value!r}')

    @property
    def is_compatible(self) -> bool:
        """Whether the order is one of mosaicml-streaming's."""
        return self.shuffle_algo not in (None, 'windowed')

    @property
    def rows(self) -> int:
        """Canonical nodes, of settings that were resolved."""
        assert self.num_canonical_nodes is not None
        return self.num_canonical_nodes

    def weigh(self, streams: 'Sequence[StreamSamples]') -> 'list[StreamSamples]':
        """The streams with ``weights`` in place of their own.

        Raises:
            ArgumentError: there are more or fewer weights than streams, or one cannot work.
        """
        if self.weights is None:
            return list(streams)
        if len(self.weights) != len(streams):
            raise ArgumentError(f'there are {len(self.weights)} weights for {len(streams)} streams')
        weights: list[dict[str, Any]] = [dict(weight) for weight in self.weights]
        return [StreamSamples(stream.samples, **weight) for stream, weight in zip(streams, weights, strict=True)]

    def resolve(self, world: World) -> 'OrderConfig':
        """The settings with all that is derived filled in.

        Args:
            world: The world that begins the run.

        Raises:
            ArgumentError: ``batch_size`` is not given, or ``replication`` does not fit the world.
        """
        if self.batch_size is None:
            raise ArgumentError('batch_size, the samples a batch of one rank, is needed to deal samples to ranks')
        nodes = data_world(world, self.replication).num_nodes
        algo = self.shuffle_algo or 'windowed'
        rows = self.num_canonical_nodes or nodes * (64 if algo in ('py1s', 'py2s') else 1)
        return replace(
            self,
            shuffle_algo=algo,
            num_canonical_nodes=rows,
            shuffle_block_size=self.shuffle_block_size or max(4_000_000 // rows, 1 << 18),
            initial_physical_nodes=self.initial_physical_nodes or nodes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The world that began an epoch, where another one goes on with it.

    Args:
        epoch: The epoch.
        num_nodes: Its nodes.
        ranks_per_node: Their ranks.
        batch_size: Samples a batch of one rank.
    """

    epoch: int
    num_nodes: int
    ranks_per_node: int
    batch_size: int

    @property
    def global_batch_size(self) -> int:
        """Samples a batch of all ranks."""
        return self.num_nodes * self.ranks_per_node * self.batch_size

    @classmethod
    def of(cls, world: World, epoch: int, batch_size: int) -> 'Origin':
        """What a world (as data sees it) writes down of itself."""
        return cls(epoch=epoch, num_nodes=world.num_nodes, ranks_per_node=world.ranks_per_node, batch_size=batch_size)

    def to_json(self) -> dict[str, int]:
        """Its fields by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True, eq=False)
class StreamSamples:
    """How many samples each shard of a stream has, and the stream's weight: at most one of the three.

    Args:
        samples: Samples of each shard, int64 (shards,).
        proportion: Share in an epoch, relative to the other streams' shares.
        repeat: How often each sample is seen in an epoch.
        choose: How many samples are taken in an epoch.

    Raises:
        ArgumentError: a weight is negative, or two are given.
    """

    samples: Int64Array
    proportion: float | None = None
    repeat: float | None = None
    choose: int | None = None
    total: int = field(init=False)

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples, dtype=np.int64)
        if samples.ndim != 1 or (samples.size and int(samples.min()) < 0):
            raise ArgumentError('samples must be a row of counts, one a shard, none of them negative')
        object.__setattr__(self, 'samples', samples)
        object.__setattr__(self, 'total', int(samples.sum()))
        given = {name: value for name in ('proportion', 'repeat', 'choose') if (value := getattr(self, name)) is not None}
        if len(given) > 1 or any(not value >= 0 for value in given.values()):
            raise ArgumentError(f'a stream takes at most one of proportion, repeat and choose, none negative; got {given}')

    def with_samples(self, samples: Int64Array) -> 'StreamSamples':
        """The same weight with other samples."""
        return replace(self, samples=samples)

    @classmethod
    def of(cls, samples: ArrayLike, **weight: Any) -> 'StreamSamples':
        """The same from any row of numbers."""
        return cls(np.asarray(samples, dtype=np.int64), **weight)


def data_world(world: World, replication: int | None) -> World:
    """The world as data sees it: ranks that get the same samples are one.

    Args:
        world: This process's place.
        replication: How many consecutive ranks get the same samples; None: each its own.

    Raises:
        ArgumentError: the replicas do not fill the nodes evenly.
    """
    if replication in (None, 1):
        return world
    assert replication is not None
    if world.num_ranks % replication or not (world.ranks_per_node % replication == 0 or replication % world.ranks_per_node == 0):
        raise ArgumentError(
            f'replication={replication} does not fit {world.num_ranks} ranks, {world.ranks_per_node} on each node: '
            'one must divide the other, and all ranks'
        )
    return replace(
        world,
        rank=world.rank // replication,
        num_ranks=world.num_ranks // replication,
        ranks_per_node=max(1, world.ranks_per_node // replication),
    )
