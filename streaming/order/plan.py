"""The plan of an epoch for one rank: any batch of any of its workers, by its number, without the batches before it."""

import hashlib
import warnings
from collections.abc import Sequence as Items
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from streaming.order.batching import (
    BoolArray,
    DevicePerStream,
    PerStream,
    RandomBatches,
    Sequence,
    Stratified,
)
from streaming.order.config import OrderConfig, Origin, StreamSamples, data_world
from streaming.order.lookup import Arrays, Group, compute_here
from streaming.order.partition import Deal, Int64Array, divide_each_other, grid_for
from streaming.order.rest import Dealt, Flat
from streaming.order.sampling import share_out
from streaming.order.state import make_state
from streaming.order.subset import Subset
from streaming.order.uses import ShardUses, sort_uses
from streaming.world import World

__all__ = ['OrderConfig', 'Plan', 'StreamSamples', 'Subset']

# Samples looked up together: the arithmetic costs about 0.25 us a sample in rows of this length, and 5 us in single batches.
_CHUNK = 8192

# Chunks kept: the reader's and the prefetcher's, and one to come for each.
_KEPT = 4


class Plan:
    """The rest of one epoch, as one rank sees it.

    A plan is read by several threads at once. It costs O(shards): to make, and once more when the first batch is asked for.

    Args:
        config: The settings of the order.
        streams: The samples of each stream's shards, and the streams' weights.
        world: The rank that asks. Its ``num_workers`` says how batches are dealt to workers.
        epoch: The epoch, 0-based.
        sample_in_epoch: Samples of the epoch that all ranks together have been given, with padding. Default: 0.
        subset: The samples that take part. ``streams`` count all samples nevertheless. Default: None, all do.
        batches_done: Batches that the world's own worker was given beyond that; its batches count from there. Default: 0.
        arrays: Where arrays of the epoch's length come from, which only orders of mosaicml-streaming need: given a name and a
            function that computes it, gives the array (mapped from a file that all processes of the node share, say).
            Default: None, each plan computes its own.

    Raises:
        ArgumentError: settings that cannot work.
    """

    def __init__(
        self,
        config: OrderConfig,
        streams: Items[StreamSamples],
        world: World,
        *,
        epoch: int,
        sample_in_epoch: int = 0,
        subset: Subset | None = None,
        batches_done: int = 0,
        arrays: Arrays | None = None,
    ) -> None:
        self.world = world
        self._batches_done = batches_done
        self.config = config.resolve(world)
        self.epoch = epoch
        self.sample_in_epoch = sample_in_epoch
        self._data = data_world(world, config.replication)
        self._here = Origin.of(self._data, epoch, self._batch_size)
        self._subset = subset
        self._arrays = compute_here if arrays is None else arrays
        self._all_streams = streams
        streams = self.config.weigh(streams)
        self._streams = streams if subset is None else subset.restrict(streams)
        self._shares = share_out(self._streams, self.config)
        self._rest = self._make_rest()
        self._chunks: dict[tuple[int, int], tuple[Int64Array, BoolArray]] = {}
        self._warn()

    # ---- sizes -------------------------------------------------------------------------------------------------------------

    @property
    def num_batches(self) -> int:
        """Batches that each rank yields in the rest of the epoch; the last one may be smaller, then on all ranks."""
        return -(-self.samples_of_rank // self._batch_size)

    @property
    def samples_of_rank(self) -> int:
        """Samples that each rank yields in the rest of the epoch, with padding."""
        if self.config.tail == 'drop':
            return self._rest.left // self.global_batch_size * self._batch_size
        return self._rest.samples_of_rank

    @property
    def global_batch_size(self) -> int:
        """Samples a batch of all ranks."""
        return self._here.global_batch_size

    @property
    def unique_samples(self) -> int:
        """Samples that all ranks together yield in the rest of the epoch, without padding.

        A sample counts as often as the weights take it.
        """
        if self.config.tail == 'drop':
            return self.num_batches * self.global_batch_size
        return min(self._rest.left, max(0, self.epoch_size - self.sample_in_epoch))

    @property
    def epoch_size(self) -> int:
        """Samples that the streams' weights give an epoch. Batching by streams may leave out what makes no whole batch."""
        return sum(self._shares.choose)

    @property
    def epoch_samples(self) -> int:
        """The least ``sample_in_epoch`` at which the epoch is over. At least 1."""
        end = self._rest.length
        return max(1, end - self.global_batch_size + 1 if self.config.tail == 'drop' else end)

    def batches_of(self, worker: int) -> int:
        """Batches that one worker of each rank yields in the rest of the epoch."""
        return max(0, len(range(worker, self.num_batches, self.world.num_workers)) - self._done_by(worker))

    def _done_by(self, worker: int) -> int:
        return self._batches_done if worker == self.world.worker else 0

    # ---- batches -----------------------------------------------------------------------------------------------------------

    def batch(self, worker: int, index: int) -> Int64Array:
        """The samples of a worker's batch number ``index``, 0-based from ``sample_in_epoch`` on.

        Args:
            worker: The worker, below the world's ``num_workers``.
            index: Below ``batches_of(worker)``.

        Returns:
            Sample ids, int64 (batch size,), counting through all shards of all streams; fewer in the last batch. Not to be
            written to.

        Raises:
            IndexError: there is no such batch.
        """
        return self._from(worker, index, self._batch_size)[0]

    def mask(self, worker: int, index: int) -> BoolArray:
        """Which samples of that batch are not padding, bool, in the shape of `batch`."""
        return self._from(worker, index, self._batch_size)[1]

    def onward(self, worker: int, index: int) -> tuple[Int64Array, BoolArray]:
        """The samples of that batch and of as many after it as were looked up with it, and which of them are not padding.

        Returns:
            Sample ids, int64 (samples,), and bool (samples,): batches of the full size, but for the worker's last.
        """
        return self._from(worker, index)

    def _from(self, worker: int, index: int, most: int | None = None) -> tuple[Int64Array, BoolArray]:
        if not 0 <= index < self.batches_of(worker):
            raise IndexError(f'worker {worker} has batches 0 to {self.batches_of(worker) - 1}, not {index}')
        together = max(1, _CHUNK // self._batch_size)
        number, within = divmod(index, together)
        chunk = self._chunks.get((worker, number))
        if chunk is None:
            chunk = self._look_up(worker, number * together, together)
            # Threads may race here. Each has its chunk; one that another drops is made again when it is asked for.
            kept = dict(list(self._chunks.items())[-_KEPT + 1 :])
            kept[worker, number] = chunk
            self._chunks = kept
        first = within * self._batch_size
        part = slice(first, None if most is None else first + most)
        return chunk[0][part], chunk[1][part]

    def _look_up(self, worker: int, first: int, count: int) -> tuple[Int64Array, BoolArray]:
        """The samples of some batches of a worker, end to end, and which are not padding."""
        numbers = np.arange(first, min(first + count, self.batches_of(worker))) + self._done_by(worker)
        batches = numbers * self.world.num_workers + worker
        numbers = (batches[:, None] * self._batch_size + np.arange(self._batch_size)).ravel()
        ids, repeats = self._rest.look_up(numbers[numbers < self.samples_of_rank])
        if self._subset is not None:
            ids = self._subset.to_ids(ids)
        real = ~repeats
        for array in (ids, real):
            array.setflags(write=False)
        return ids, real

    @property
    def signature(self) -> str:
        """16 hexadecimal digits for all that `shard_uses` depends on: the same on all ranks of a node."""
        digest = hashlib.sha256()
        world = (self._data.num_ranks, self._data.ranks_per_node, self._data.node)
        digest.update(repr((self.config, world, self.epoch, self.sample_in_epoch)).encode())
        for stream in self._streams:
            digest.update(repr((len(stream.samples), stream.proportion, stream.repeat, stream.choose)).encode())
            digest.update(np.ascontiguousarray(stream.samples, '<i8').data)
        return digest.hexdigest()[:16]

    def shard_uses(self, node: int | None = None) -> ShardUses:
        """When a node uses each shard in the rest of the epoch.

        By formula, and never too short, for the windowed order and without shuffling: it costs O(shards). For an order of
        mosaicml-streaming the node's part of its array is looked through once.

        Args:
            node: The node, as data sees it. Default: None, this rank's.
        """
        node = self._data.node if node is None else node
        found = []
        for first_shard, shards, first, last in self._rest.uses(node):
            size = self.global_batch_size
            found.append((first_shard + shards, first // size, last // size))
        return sort_uses(found, self.num_batches)

    def working_set(self, shard_bytes: Int64Array) -> int:
        """About how many bytes of shards this rank's node has in use at a time, at the most.

        Exact for the windowed order and without shuffling, but for a few samples. The orders of mosaicml-streaming are taken for
        the one of these that is most like them: windowed for py1e and, as its blocks begin all at once, with blocks half as
        large again for py1br; no shuffling for py1s and py2s. It costs O(shards).

        Args:
            shard_bytes: Bytes of each shard, int64 (shards,).
        """
        algo = self.config.shuffle_algo if self.config.shuffle else None
        if algo == 'naive':
            return int(shard_bytes.sum())
        block_size = self.config.shuffle_block_size
        assert block_size is not None
        config = replace(
            self.config,
            shuffle_algo='windowed',
            shuffle=algo is not None and algo not in ('py1s', 'py2s'),
            shuffle_block_size=block_size * 3 // 2 if algo == 'py1br' else block_size,
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # said when this plan was made
            like = Plan(config, self._all_streams, self.world, epoch=self.epoch, subset=self._subset)
        return like.shard_uses().most_bytes(shard_bytes)

    def describe(self, shard_bytes: Int64Array) -> str:
        """What was derived, in a line for a log; see `working_set`."""
        config = self.config
        order = f'{config.shuffle_algo} with blocks of {config.shuffle_block_size:,} samples' if config.shuffle else 'as they lie'
        in_use = self.working_set(shard_bytes) / 1e6
        return (
            f'samples are read {order}, num_canonical_nodes={config.rows:,}; a global batch is {self.global_batch_size:,} '
            f'samples, an epoch {self.num_batches:,} batches; a node has up to about {in_use:,.1f} MB of shards in use at a time'
        )

    # ---- state -------------------------------------------------------------------------------------------------------------

    def state(self, epoch: int, sample_in_epoch: int) -> dict[str, Any]:
        """The state of a run that has been given so many samples of an epoch; that of the next epoch where this one is over.

        Args:
            epoch: The epoch.
            sample_in_epoch: Samples of it that all ranks together have been given.
        """
        if epoch == self.epoch and sample_in_epoch >= self.epoch_samples:
            epoch, sample_in_epoch = epoch + 1, 0
        origin = self._origin if epoch == self.epoch and sample_in_epoch else Origin.of(self._data, epoch, self._batch_size)
        return make_state(self.config, origin, epoch, sample_in_epoch)

    # ---- how the epoch is put together -------------------------------------------------------------------------------------

    @cached_property
    def _origin(self) -> Origin:
        """The world that began this epoch."""
        origin = self.config.origin
        if origin is not None and origin.epoch == self.epoch and self.sample_in_epoch:
            return origin
        return self._relaxed if self._relaxed is not None and self.config.batching_method == 'per_stream' else self._here

    @cached_property
    def _relaxed(self) -> Origin | None:
        """The world for which mosaicml-streaming, relaxed, makes the epochs of a run that goes on with nodes that do not fit."""
        config, nodes = self.config, self._data.num_nodes
        began = config.initial_physical_nodes or nodes
        size, rest = divmod(nodes * self._batch_size, began)
        fits = divide_each_other(config.rows, nodes)
        if not config.is_compatible or config.partition_algo != 'relaxed' or fits:
            return None
        if rest or not divide_each_other(config.rows, began):
            return None  # mosaicml-streaming refuses
        return Origin(epoch=self.epoch, num_nodes=began, ranks_per_node=self._data.ranks_per_node, batch_size=size)

    def _make_rest(self) -> Dealt | Flat:
        config, nodes = self.config, self._data.num_nodes
        if config.batching_method != 'random':
            return self._flat(self._make_sequence(), self._start_of_sequence())
        group = self._group(range(len(self._streams)), 1.0)
        compact = config.tail != 'pad'
        began = self._relaxed
        if began is not None:
            grid = grid_for(group.samples, config.rows, began.num_nodes, compact=compact)
            dealt = Deal(grid, self.sample_in_epoch, began.num_nodes, began.ranks_per_node, began.batch_size)
            relaxed = RandomBatches(group, dealt)
            return self._flat(relaxed, 0, self.sample_in_epoch + relaxed.length)
        grid = grid_for(group.samples, config.rows, nodes, compact=compact)
        dealt = Deal(grid, self.sample_in_epoch, nodes, self._data.ranks_per_node, self._batch_size)
        return Dealt(group, dealt, self._data)

    def _start_of_sequence(self) -> int:
        """Where to go on in a sequence."""
        return self.sample_in_epoch - self._samples_again

    @property
    def _samples_again(self) -> int:
        """Samples that come again where a state of mosaicml-streaming does not say in which global batches it counted.

        As there, its batching by streams goes back to the start of a global batch.
        """
        is_old = self.config.is_compatible and self.config.origin is None and self.config.batching_method != 'random'
        return self.sample_in_epoch % self.global_batch_size if is_old else 0

    def _make_sequence(self) -> Sequence:
        config, origin = self.config, self._origin
        chosen = [number for number, count in enumerate(self._shares.choose) if count]
        groups = [self._group([number], self._shares.proportions[number]) for number in chosen]
        if config.batching_method == 'stratified':
            # Streams too small to have a sample have no part either.
            shares = [self._shares.proportions[number] for number in chosen]
            shares = shares if len(shares) == len(self._streams) else [share / sum(shares) for share in shares]
            return Stratified(groups, shares, config, origin)
        if config.batching_method == 'per_stream':
            return PerStream(groups, config, origin, self.epoch, self._arrays)
        return DevicePerStream(groups, config, origin, self.epoch, self._arrays)

    def _group(self, numbers: Items[int], proportion: float) -> Group:
        block_size = self.config.shuffle_block_size
        assert block_size is not None
        first_ids = np.cumsum([0, *(stream.total for stream in self._streams)]).tolist()
        return Group(
            self.config,
            [self._streams[number] for number in numbers],
            [self._shares.choose[number] for number in numbers],
            [first_ids[number] for number in numbers],
            sum(len(stream.samples) for stream in self._streams[: numbers[0]]),
            self.epoch,
            int(block_size * proportion),
            self._arrays,
        )

    def _flat(self, sequence: Sequence, start: int, length: int | None = None) -> Flat:
        return Flat(sequence, start, sequence.length if length is None else length, self._data, self._batch_size)

    @property
    def _batch_size(self) -> int:
        assert self.config.batch_size is not None
        return self.config.batch_size

    def _warn(self) -> None:
        """Say what is costly, once a job."""
        if self.world.rank or self.world.worker:
            return
        rows, nodes = self.config.rows, self._data.num_nodes
        if self._samples_again:
            warnings.warn(
                f'sample_in_epoch={self.sample_in_epoch} is no multiple of the global batch of {self.global_batch_size}: '
                f'the batch that was begun comes again, with {self._samples_again} samples',
                stacklevel=3,
            )
        if not divide_each_other(rows, nodes):
            warnings.warn(
                f'{rows} canonical nodes and {nodes} physical nodes do not divide one another: '
                'the order of samples stays, but shards at the border of two nodes are downloaded by both',
                stacklevel=3,
            )
        if self.config.batching_method != 'random' and self._origin.global_batch_size != self.global_batch_size:
            warnings.warn(
                f'this epoch was begun with a global batch of {self._origin.global_batch_size} and goes on with '
                f'{self.global_batch_size}: until it ends, the sequence of samples stays, and a batch may mix what '
                f'{self.config.batching_method} batching keeps apart',
                stacklevel=3,
            )
