"""The plan of an epoch for one rank: any batch of any of its workers, by its number, without the batches before it."""

import warnings
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.order.config import OrderConfig, Origin, StreamSamples, data_world
from streaming.order.partition import Deal, Int64Array, divide_each_other, grid_for
from streaming.order.state import make_state
from streaming.order.windowed import Windowed, deal_units
from streaming.world import World

__all__ = ['OrderConfig', 'Plan', 'StreamSamples']

# Samples looked up together: the arithmetic costs about 0.2 us a sample in rows of this length, and 5 us in single
# batches.
_CHUNK = 8192

# Chunks kept: the reader's and the prefetcher's, and one to come for each.
_KEPT = 4


class Plan:
    """The rest of one epoch, as one rank sees it.

    A plan is read by several threads at once, and costs O(shards) to make.

    Args:
        config: The settings of the order.
        streams: The samples of each stream's shards, and the streams' weights.
        world: The rank that asks. Its ``num_workers`` says how batches are dealt to workers.
        epoch: The epoch, 0-based.
        sample_in_epoch: Samples of the epoch that all ranks together have been given, with padding. Default: 0.

    Raises:
        ArgumentError: settings that cannot work.
    """

    def __init__(
        self, config: OrderConfig, streams: list[StreamSamples], world: World, *, epoch: int, sample_in_epoch: int = 0
    ) -> None:
        self.world = world
        self.config = config.resolve(world)
        self.epoch = epoch
        self.sample_in_epoch = sample_in_epoch
        self._data = data_world(world, config.replication)
        _refuse_unbuilt(self.config, streams)
        sizes = streams[0].samples if len(streams) == 1 else np.concatenate([stream.samples for stream in streams])
        self._grid = grid_for(
            int(sizes.sum()), self._rows, self._data.num_nodes, compact=self.config.tail in ('drop', 'mask')
        )
        self._deal = Deal(
            self._grid, sample_in_epoch, self._data.num_nodes, self._data.ranks_per_node, self.batch_size
        )
        self._sizes = sizes
        self._chunks: dict[tuple[int, int], tuple[Int64Array, NDArray[np.bool_]]] = {}
        self._warn()

    # ---- sizes
    # -------------------------------------------------------------------------------------------------------------

    @property
    def num_batches(self) -> int:
        """Batches that each rank yields in the rest of the epoch; the last one may be smaller, then on all ranks."""
        if self.config.tail == 'drop':
            return self._deal.left // self.global_batch_size
        return -(-self._deal.samples_of_rank // self.batch_size)

    @property
    def samples_of_rank(self) -> int:
        """Samples that each rank yields in the rest of the epoch, with padding."""
        whole = self.num_batches * self.batch_size
        return whole if self.config.tail == 'drop' else self._deal.samples_of_rank

    @property
    def batch_size(self) -> int:
        """Samples a batch of one rank."""
        assert self.config.batch_size is not None
        return self.config.batch_size

    @property
    def global_batch_size(self) -> int:
        """Samples a batch of all ranks."""
        return self.batch_size * self._data.num_ranks

    @property
    def unique_samples(self) -> int:
        """Samples that all ranks together yield in the rest of the epoch, without padding."""
        if self.config.tail == 'drop':
            return self.num_batches * self.global_batch_size
        return max(0, self._grid.samples - self.sample_in_epoch)

    @property
    def epoch_samples(self) -> int:
        """The least ``sample_in_epoch`` at which the epoch is over. At least 1."""
        end = self._grid.positions
        return max(1, end - self.global_batch_size + 1 if self.config.tail == 'drop' else end)

    def batches_of(self, worker: int) -> int:
        """Batches that one worker of each rank yields in the rest of the epoch."""
        return len(range(worker, self.num_batches, self.world.num_workers))

    # ---- batches
    # -----------------------------------------------------------------------------------------------------------

    def batch(self, worker: int, index: int) -> Int64Array:
        """The samples of a worker's batch number ``index``, 0-based from ``sample_in_epoch`` on.

        Args:
            worker: The worker, below the world's ``num_workers``.
            index: Below ``batches_of(worker)``.

        Returns:
            Sample ids, int64 (batch size,), counting through all shards of all streams; fewer in the last batch. Not to
            be written to.
        """
        return self._batch(worker, index)[0]

    def mask(self, worker: int, index: int) -> NDArray[np.bool_]:
        """Which samples of that batch are not padding, bool, in the shape of `batch`."""
        return self._batch(worker, index)[1]

    def _batch(self, worker: int, index: int) -> tuple[Int64Array, NDArray[np.bool_]]:
        if not 0 <= index < self.batches_of(worker):
            raise IndexError(f'worker {worker} has batches 0 to {self.batches_of(worker) - 1}, not {index}')
        together = max(1, _CHUNK // self.batch_size)
        number, within = divmod(index, together)
        chunk = self._chunks.get((worker, number))
        if chunk is None:
            chunk = self._look_up(worker, number * together, together)
            # Threads may race here. Each has its chunk; one that another drops is made again when it is asked for.
            kept = dict(list(self._chunks.items())[-_KEPT + 1 :])
            kept[worker, number] = chunk
            self._chunks = kept
        part = slice(within * self.batch_size, (within + 1) * self.batch_size)
        return chunk[0][part], chunk[1][part]

    def _look_up(self, worker: int, first: int, count: int) -> tuple[Int64Array, NDArray[np.bool_]]:
        """The samples of some batches of a worker, end to end, and which are not padding."""
        batches = np.arange(first, min(first + count, self.batches_of(worker))) * self.world.num_workers + worker
        numbers = (batches[:, None] * self.batch_size + np.arange(self.batch_size)).ravel()
        numbers = numbers[numbers < self.samples_of_rank]
        places = self._deal.places(self._data.node, self._data.rank_of_node, numbers)
        positions = self._deal.positions(places)
        rows, columns = self._grid.cells(positions)
        if self.config.shuffle:
            units, within = self._windowed.locate(rows, columns)
            ids = self._starts[units] + within
        else:
            ids = self._grid.start_of(rows) + columns
        real = (places < self._deal.left) & ~self._grid.are_repeats(positions)
        for array in (ids, real):
            array.setflags(write=False)
        return ids, real

    # ---- state
    # -------------------------------------------------------------------------------------------------------------

    def state(self, epoch: int, sample_in_epoch: int) -> dict[str, Any]:
        """The state of a run that has been given so many samples of an epoch; that of the next epoch where this one is
        over.

        Args:
            epoch: The epoch.
            sample_in_epoch: Samples of it that all ranks together have been given.
        """
        if epoch == self.epoch and sample_in_epoch >= self.epoch_samples:
            epoch, sample_in_epoch = epoch + 1, 0
        origin = self.config.origin
        if origin is None or origin.epoch != epoch or not sample_in_epoch:
            origin = Origin(
                epoch=epoch,
                num_nodes=self._data.num_nodes,
                ranks_per_node=self._data.ranks_per_node,
                batch_size=self.batch_size,
            )
        return make_state(self.config, origin, epoch, sample_in_epoch)

    # ---- the rest
    # ----------------------------------------------------------------------------------------------------------

    # Made when the first batch is asked for: a plan that only counts (`len` of a loader) costs nothing.
    @cached_property
    def _windowed(self) -> Windowed:
        dealing = deal_units(self._sizes, self._rows, self.config.shuffle_seed)
        assert self.config.shuffle_block_size is not None
        return Windowed(
            dealing, seed=self.config.shuffle_seed, epoch=self.epoch, block_size=self.config.shuffle_block_size
        )

    @cached_property
    def _starts(self) -> Int64Array:
        ends: Int64Array = np.cumsum(self._sizes)
        return ends - self._sizes

    @property
    def _rows(self) -> int:
        assert self.config.num_canonical_nodes is not None
        return self.config.num_canonical_nodes

    def _warn(self) -> None:
        """Say what is costly, once a job."""
        if self.world.rank or self.world.worker:
            return
        nodes = self._data.num_nodes
        if not divide_each_other(self._rows, nodes):
            warnings.warn(
                f'{self._rows} canonical nodes and {nodes} physical nodes do not divide one another: '
                'the order of samples stays, but shards at the border of two nodes are downloaded by both',
                stacklevel=3,
            )


def _refuse_unbuilt(config: OrderConfig, streams: list[StreamSamples]) -> None:
    refused = {
        'shuffle_algo': config.shuffle and config.shuffle_algo != 'windowed',
        'batching_method': config.batching_method != 'random',
        'epoch_size': config.epoch_size is not None,
        'a weight of a stream': any(
            s.proportion is not None or s.repeat is not None or s.choose is not None for s in streams
        ),
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise NotImplementedError(f'{name} does not work yet; leave it out')
