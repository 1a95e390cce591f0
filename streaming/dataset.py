"""StreamingDataset: the streams, the order and the cache, wired together. What each does is in its own module."""

import logging
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from streaming.arrival import Arrivals
from streaming.errors import ArgumentError
from streaming.indexing import resolve
from streaming.order.plan import OrderConfig, Plan, StreamSamples, Subset
from streaming.order.state import parse_state
from streaming.progress import Begun, Progress
from streaming.readers.gather import Column, Empty
from streaming.readers.samples import Run
from streaming.shards import DatasetShards
from streaming.stream import Stream, make_streams
from streaming.units import bytes_to_int, number_abbrev_to_int
from streaming.walk import Walk, is_walk, parse_walk
from streaming.workers import end_with_parent, leave_no_sockets
from streaming.world import World

__all__ = ['StreamingDataset']

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WholeBatches:
    """How whole batches are made.

    Args:
        drop_last: Whether to leave out a last batch that is smaller.
        empty: Makes the arrays of one batch, which are of no use once the next is asked for. Default: numpy.empty, which stay.
        runs: Whether a `Run` may stand for its columns, for the process that is to `read_run`. Default: False.
    """

    drop_last: bool
    empty: Empty = np.empty
    runs: bool = False


class StreamingDataset(IterableDataset[dict[str, Any]]):
    """Samples of one or more streams, dealt to nodes, ranks and workers in a fixed order, fetched and cached as they come up.

    Iterating gives this rank's (or, in a DataLoader worker, this worker's) samples of the next epoch. Indexing gives any sample.

    Args:
        streams: The streams to mix. Default: None, one stream made from ``remote``, ``local`` and ``split``.
        remote: URL or path of the dataset. Default: None, it is read in ``local``.
        local: Folder for the copies of shards, shared by the processes of a node. Default: None, a folder of this user's.
        split: Sub-folder of both. Default: None.
        download_retry: How often a shard whose bytes are wrong is fetched anew. Default: 2.
        download_timeout: Seconds without a byte after which a download is an error. Default: 60.
        validate_hash: The hash to check, of those recorded, and then no sample is delivered before its shard is verified.
            Default: None, the cheapest recorded one.
        keep_zip: Keep compressed shards beside the decompressed ones. Default: False.
        epoch_size: Samples an epoch, such as ``1000`` or ``"64M"``. Default: None, what the streams and their weights give.
        predownload: How many of its samples a worker fetches ahead. Default: None, about 512 MiB of shards.
        cache_limit: The most that ``local`` may hold, in bytes or as ``"10gb"``. Default: None, no limit.
        sampling_method: ``'balanced'`` or ``'fixed'``: whether up- and down-sampling picks anew each epoch. Default: balanced.
        sampling_granularity: Samples picked together when down-sampling. Default: 1.
        partition_algo: ``'relaxed'`` or ``'orig'``. Default: relaxed.
        num_canonical_nodes: In how many parts the samples are dealt; fixes the order. Default: None, derived from the nodes.
        batch_size: Samples a batch of one rank; the DataLoader's too. Needed to iterate. Default: None.
        shuffle: Whether to shuffle. Default: False.
        shuffle_algo: ``'windowed'``, or an order of mosaicml-streaming: naive, py1s, py2s, py1br, py1e. Default: None, windowed.
        shuffle_seed: Seed of the order. Default: 9176.
        shuffle_block_size: Samples that mix. Default: None, derived.
        batching_method: ``'random'``, ``'stratified'``, ``'per_stream'`` or ``'device_per_stream'``. Default: random.
        allow_unsafe_types: Allow columns that run code when read (``pkl``). Default: False.
        replication: How many consecutive ranks get the same samples. Default: None, each its own.
        stream_name: Which registered class to make the stream from where ``streams`` is None. Default: ``'stream'``.
        stream_config: Further arguments for it. Default: None.
        columns: The columns to decode. Default: None, all.
        tail: What becomes of the end of an epoch: ``'pad'`` repeats samples until all ranks have as many, ``'drop'`` leaves out
            what makes no whole batch of all ranks, ``'mask'`` pads and adds ``is_padding`` to each sample, for an exact
            evaluation. Default: pad.
        subset: The samples that take part: their ids, a bool for each sample, or a ``.npy`` file of either, which is mapped and
            not copied. Indexing still gives any sample. Default: None, all.
        on_bad_shard: What becomes of an epoch in which a shard is missing, or still wrong after ``download_retry``. ``'raise'``:
            an error, in every process that needs the shard. ``'skip'``: a warning, and sample n of the next good shard of the
            stream stands in for its sample n, so that all ranks keep their steps. Indexing raises. Default: raise.
        world: Where this process is in the job; ``World.from_mesh(mesh, 'dp')`` for data-parallel ranks that are not all ranks.
            Default: None, from torch.distributed or the launcher's environment.

    Raises:
        ArgumentError: values that cannot work.
        NotFoundError: a stream has no index.
        StreamingError: a stream cannot be reached, or is not a dataset.
    """

    def __init__(
        self,
        *,
        streams: Sequence[Stream] | None = None,
        remote: str | None = None,
        local: str | None = None,
        split: str | None = None,
        download_retry: int = 2,
        download_timeout: float = 60,
        validate_hash: str | None = None,
        keep_zip: bool = False,
        epoch_size: int | str | None = None,
        predownload: int | None = None,
        cache_limit: int | str | None = None,
        sampling_method: str = 'balanced',
        sampling_granularity: int = 1,
        partition_algo: str = 'relaxed',
        num_canonical_nodes: int | None = None,
        batch_size: int | None = None,
        shuffle: bool = False,
        shuffle_algo: str | None = None,
        shuffle_seed: int = 9176,
        shuffle_block_size: int | None = None,
        batching_method: str = 'random',
        allow_unsafe_types: bool = False,
        replication: int | None = None,
        stream_name: str = 'stream',
        stream_config: Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        tail: str = 'pad',
        subset: NDArray[Any] | Sequence[int] | str | Path | None = None,
        on_bad_shard: str = 'raise',
        on_stale: str = 'error',
        world: World | None = None,
    ) -> None:
        if on_bad_shard not in ('raise', 'skip'):
            raise ArgumentError(f"on_bad_shard must be 'raise' or 'skip', got {on_bad_shard!r}")
        if predownload is not None and predownload < 0:
            raise ArgumentError(f'predownload must not be negative, got {predownload}')
        self.on_bad_shard = on_bad_shard
        self.predownload = predownload
        self.batch_size = batch_size
        self.replication = replication
        self.allow_unsafe_types = allow_unsafe_types
        self.cache_limit = None if cache_limit is None else bytes_to_int(cache_limit)
        self._columns = None if columns is None else list(columns)
        self._world = World.detect() if world is None else world
        self._subset_from = subset
        self._subset_made: Subset | None = None
        self._config = OrderConfig(
            batch_size=batch_size,
            epoch_size=None if epoch_size is None else number_abbrev_to_int(epoch_size),
            sampling_method=sampling_method,
            sampling_granularity=sampling_granularity,
            partition_algo=partition_algo,
            num_canonical_nodes=num_canonical_nodes,
            shuffle=shuffle,
            shuffle_algo=shuffle_algo,
            shuffle_seed=shuffle_seed,
            shuffle_block_size=shuffle_block_size,
            batching_method=batching_method,
            replication=replication,
            tail=tail,
        )
        defaults = {
            'split': split,
            'download_retry': download_retry,
            'download_timeout': download_timeout,
            'validate_hash': validate_hash,
            'keep_zip': keep_zip,
            'on_stale': on_stale,
        }
        self.streams = make_streams(streams, stream_name, {'remote': remote, 'local': local, **(stream_config or {})}, defaults)
        self._index_hashes: list[str] | None = None
        self._shards_open: DatasetShards | None = None
        self._progress = Progress()
        self._pool: int | None = None
        self._whole: WholeBatches | None = None
        self._round: tuple[str, int] = ('', -1)
        self._walk_begun: Walk | None = None
        self._walk_loaded: Mapping[str, Any] | None = None
        shards = self._shards  # opened here, so that whatever is wrong with a stream is said in the training process
        if not shards.table.num_samples:
            warnings.warn(f'the dataset has no samples: {self.streams}', stacklevel=2)
        self._check_order(self._progress.upcoming())

    # ---- sizes -------------------------------------------------------------------------------------------------------------

    @property
    def num_samples(self) -> int:
        """Samples in all streams, each counted once."""
        return self._shards.table.num_samples

    @property
    def size(self) -> int:
        """Samples in all streams, each counted once."""
        return self.num_samples

    @property
    def epoch_size(self) -> int:
        """Samples that all ranks together see in an epoch, without padding."""
        return self._plan(self._progress.current(), from_start=True).unique_samples

    @property
    def next_epoch(self) -> int:
        """The epoch that the next iteration will be, 0-based. May be set."""
        return self._progress.next_epoch

    @next_epoch.setter
    def next_epoch(self, epoch: int) -> None:
        self._progress.set_next_epoch(epoch)

    @property
    def cache_usage(self) -> int:
        """Bytes of the dataset's files that lie in the cache folders now."""
        return self._shards.cached_bytes()

    def __len__(self) -> int:
        """Samples that this rank sees in an epoch, with padding.

        Raises:
            ArgumentError: the dataset has no batch_size.
        """
        return self._plan(self._progress.current(), from_start=True).samples_of_rank

    def stats(self) -> dict[str, dict[str, int]]:
        """What the processes of this node have done with each cache folder, by folder: the sums of `CacheCounters`, by name."""
        return {str(path): asdict(counters) for path, counters in self._shards.counters().items()}

    # ---- samples -----------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """The sample, or the list of samples, at an int, negative int, slice, list or array of ints."""
        shards = self._shards_open or self._shards
        if type(index) is int and 0 <= index < shards.num_samples:
            return shards.read(index)
        return resolve(index, shards.num_samples, shards.read, shards.read_many)

    def __iter__(self) -> Iterator[Any]:
        """Begin the next epoch, or where a loaded state left off, and walk this worker's samples of it.

        Raises:
            ArgumentError: the dataset has no batch_size.
        """
        self._require_batch_size()
        info = get_worker_info()
        if info is not None:
            leave_no_sockets()
            end_with_parent()
        loaded, self._walk_loaded = self._walk_loaded, None
        key, worker = self._iteration_key(), 0 if info is None else info.id
        if loaded is None:
            walk = Walk(self._progress.begin(key, worker))
        else:
            walk = self._walk_of(loaded)
            self._progress.go_on(key, worker, walk.begun)
        batches_done = 0 if self._whole is not None else walk.taken // (self.batch_size or 1)
        plan = self._plan(walk.begun, batches_done=batches_done)
        arrivals = self._arrivals(plan, walk.begun)
        if arrivals is not None and info is not None:
            # A worker is asked for its first batch when all have been started: until then, it can begin with it.
            arrivals.foresee(plan.batch(worker, 0))
        if self._whole is not None:
            return self._walk_whole(plan, arrivals, self._whole)
        self._walk_begun = walk
        return walk.steps(self._parts(walk, plan, arrivals))

    def _parts(self, walk: Walk, plan: Plan, arrivals: Arrivals | None) -> Generator[Iterator[Any], None, None]:
        """The rest of this worker's samples, part by part."""
        skipped = walk.taken % (self.batch_size or 1)
        with closing(self._here(plan) if arrivals is None else self._arriving(plan, arrivals)) as parts:
            for ids, is_real in parts:
                samples = self._samples(ids) if is_real is None else self._marked(ids, is_real)
                due = walk.taken + len(ids) - skipped
                yield islice(samples, skipped, None) if skipped else samples
                skipped = 0
                if walk.taken < due:  # a sample was an error: what comes after it is not the next
                    return

    def _here(self, plan: Plan) -> Generator[tuple[NDArray[np.int64], NDArray[np.bool_] | None], None, None]:
        """This worker's samples, many batches at once: nothing has to be waited for."""
        worker, index = plan.world.worker, 0
        while index < plan.batches_of(worker):
            ids, is_real = plan.onward(worker, index)
            index += -(-len(ids) // (self.batch_size or 1))
            yield ids, is_real if self._config.tail == 'mask' else None

    def _walk_whole(
        self, plan: Plan, arrivals: Arrivals | None, whole: WholeBatches
    ) -> Iterator[list[Any] | dict[str, Column] | Run]:
        """Batches as columns; as lists of samples where they cannot be had so."""
        with closing(self._whole_batches(plan, arrivals, whole)) as batches:
            for ids, is_real, columns in batches:
                if whole.drop_last and len(ids) < (self.batch_size or 1):
                    return
                yield replace(columns, is_real=is_real) if isinstance(columns, Run) else self._batch(ids, is_real, columns)

    def _batch(
        self, ids: NDArray[np.int64], is_real: NDArray[np.bool_] | None, columns: dict[str, Column] | None
    ) -> list[Any] | dict[str, Column]:
        if columns is None:
            return list(self._samples(ids) if is_real is None else self._marked(ids, is_real))
        return columns if is_real is None else {**columns, 'is_padding': ~is_real}

    def read_run(self, run: Run, empty: Empty) -> list[Any] | dict[str, Column]:
        """The columns of a batch that a worker gave as a run, or its samples; a shard that has gone meanwhile is brought again.

        Raises:
            StreamingError: a sample is broken, or cannot be had.
        """
        return self._batch(run.sample_ids, run.is_real, self._shards.run_columns(run, empty))

    def _whole_batches(
        self, plan: Plan, arrivals: Arrivals | None, whole: WholeBatches
    ) -> Generator[tuple[NDArray[np.int64], NDArray[np.bool_] | None, dict[str, Column] | Run | None], None, None]:
        """This worker's batches, and their columns where they can be had."""
        if arrivals is not None:
            with closing(self._arriving(plan, arrivals)) as batches:
                for ids, is_real in batches:
                    run = self._shards.run(ids) if whole.runs else None
                    yield ids, is_real, run or self._shards.columns(ids, whole.empty)
            return
        size = self.batch_size or 1
        for ids, is_real in self._here(plan):
            for number, columns in enumerate(self._shards.batches(ids, size, whole.empty, runs=whole.runs)):
                part = slice(number * size, (number + 1) * size)
                yield ids[part], None if is_real is None else is_real[part], columns

    def _arriving(
        self, plan: Plan, arrivals: Arrivals
    ) -> Generator[tuple[NDArray[np.int64], NDArray[np.bool_] | None], None, None]:
        """The samples of each of this worker's batches, once they can be read, and with a masked tail which are not padding."""
        worker = plan.world.worker
        with closing(arrivals):
            for index in range(plan.batches_of(worker)):
                ids = arrivals.prepare(index, plan.batch(worker, index))
                yield ids, plan.mask(worker, index) if self._config.tail == 'mask' else None

    def _samples(self, ids: NDArray[np.int64]) -> Iterator[Any]:
        if type(self).__getitem__ is not StreamingDataset.__getitem__:
            return (self[sample_id] for sample_id in ids.tolist())
        return self._shards.read_many(ids)

    def _marked(self, ids: NDArray[np.int64], is_real: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
        for sample, real in zip(self._samples(ids), is_real.tolist(), strict=True):
            if not isinstance(sample, dict):
                raise ArgumentError(
                    f"tail='mask' adds is_padding to samples that are dicts; __getitem__ gave a {type(sample).__name__}"
                )
            yield {**sample, 'is_padding': not real}

    def _arrivals(self, plan: Plan, begun: Begun) -> Arrivals | None:
        """What has the shards of a plan here; None where they all are, or there is nothing to read."""
        if not self._shards.is_remote or not plan.batches_of(plan.world.worker):
            return None

        def next_plan() -> Plan:
            return self._plan(replace(begun, epoch=begun.epoch + 1, sample_in_epoch=0), world=plan.world)

        timeout_s = max(stream.download_timeout or 0 for stream in self.streams)
        skip_bad = self.on_bad_shard == 'skip'
        return Arrivals(self._shards, plan, next_plan, self.predownload, timeout_s, skip_bad=skip_bad)

    # ---- epochs and state --------------------------------------------------------------------------------------------------

    def state_dict(self, num_samples: int | None = None, from_beginning: bool = True) -> dict[str, Any]:
        """What a run needs to go on from here, on this or any other number of ranks.

        Args:
            num_samples: Samples that all ranks together were given. Default: None, for loaders that ask in each process that
                iterates: how far this one has come, which only the same process of a job of the same size can load.
            from_beginning: Whether since the epoch began, rather than since this iteration did (after a resumption they differ).

        Raises:
            ArgumentError: ``num_samples`` is not given, and other processes iterate.
        """
        if num_samples is None:
            return self._state_of_walk()
        return self.state_of(self._progress.current(), num_samples, from_beginning)

    def state_of(self, begun: Begun, num_samples: int, from_beginning: bool = False) -> dict[str, Any]:
        """The state after ``num_samples`` of the iteration ``begun``; see `state_dict`."""
        sample = num_samples if from_beginning else begun.sample_in_epoch + num_samples
        return self._plan(begun, from_start=True).state(begun.epoch, sample)

    def load_state_dict(self, obj: Mapping[str, Any]) -> None:
        """Let the next iteration go on where the state was taken.

        Raises:
            ArgumentError: it is not such a state, or is of another order than this dataset's.
        """
        begun = Begun(*parse_state(obj, self._config))
        self._check_order(begun)
        if is_walk(obj):
            self._walk_of(obj)
            self._walk_loaded = obj
        else:
            self._progress.load(begun.epoch, begun.sample_in_epoch, begun.order)

    def _walk_of(self, state: Mapping[str, Any]) -> Walk:
        return Walk(Begun(*parse_state(state, self._config)), parse_walk(state, self._world_here))

    def _state_of_walk(self) -> dict[str, Any]:
        walk = self._walk_begun if self._walk_loaded is None else self._walk_of(self._walk_loaded)
        if walk is None:
            walk = Walk(self._progress.upcoming())
            if self._progress.current() != walk.begun:
                raise ArgumentError('another process iterates this dataset: ask the loader for its state, or give num_samples')
        return walk.state(self.state_of(walk.begun, 0), self._world_here)

    def change_order(self, *, weights: Sequence[Mapping[str, float]] | None = None, shuffle_seed: int | None = None) -> None:
        """Change the mix or the seed for the epochs to come; both go into the state. Call it on every rank, between epochs.

        Args:
            weights: For each stream a mapping with one of ``proportion``, ``repeat`` and ``choose``, or an empty one. Default:
                None, as before.
            shuffle_seed: The new seed. Default: None, as before.

        Raises:
            ArgumentError: they cannot work, or the next iteration goes on in the middle of an epoch.
        """
        changes: dict[str, Any] = {}
        if weights is not None:
            changes['weights'] = [dict(weight) for weight in weights]
        if shuffle_seed is not None:
            changes['shuffle_seed'] = shuffle_seed
        replace(self._config, **changes).weigh(self._stream_samples())
        self._progress.change_order(changes)
        self._check_order(self._progress.upcoming())

    # ---- what the loader needs to know -------------------------------------------------------------------------------------

    @property
    def world(self) -> World:
        """Where this process is in the job."""
        return self._world

    @property
    def num_data_ranks(self) -> int:
        """Ranks that get different samples: all, unless ``replication`` gives several the same."""
        return self._world.num_ranks // (self.replication or 1)

    @property
    def progress(self) -> Progress:
        """The epochs, shared with this rank's workers."""
        return self._progress

    @contextmanager
    def in_pool(self, pool: int, whole: WholeBatches | None = None) -> Iterator[None]:
        """Within the block, whoever inherits the dataset or iterates it belongs to the pool of workers with this number.

        Args:
            pool: The number.
            whole: How to iterate over whole batches: lists of samples, or dicts of columns. Default: None, over samples.
        """
        before = self._pool, self._whole
        self._pool, self._whole = pool, whole
        try:
            yield
        finally:
            self._pool, self._whole = before

    @staticmethod
    def iteration_key(pool: int, count: int) -> str:
        """The key of a pool's iteration number ``count``."""
        return f'pool {pool}.{count}'

    def _iteration_key(self) -> str | None:
        """What this iteration's workers have in common; None where one process reads alone."""
        info = get_worker_info()
        if self._pool is not None:
            group = f'pool {self._pool}'
        elif info is not None:
            # All workers that a DataLoader starts get seeds that count up from one base.
            group = f'seed {info.seed - info.id}'
        else:
            return None
        # Workers that stay for several iterations begin each of them once.
        self._round = (group, self._round[1] + 1 if self._round[0] == group else 0)
        return f'{group}.{self._round[1]}'

    def _require_batch_size(self) -> None:
        if self.batch_size is None:
            raise ArgumentError(
                'StreamingDataset needs batch_size=, the samples a batch of one rank, to deal samples to ranks and workers; '
                "give it the DataLoader's"
            )

    @property
    def _world_here(self) -> World:
        """The world as this process sees it, which may be a DataLoader's worker."""
        info = get_worker_info()
        return self._world if info is None else self._world.with_worker(info.id, info.num_workers)

    def _plan(self, begun: Begun, *, from_start: bool = False, world: World | None = None, batches_done: int = 0) -> Plan:
        self._require_batch_size()
        world = self._world_here if world is None else world
        config = replace(self._config, **begun.order)
        sample = 0 if from_start else begun.sample_in_epoch
        return Plan(
            config,
            self._stream_samples(),
            world,
            epoch=begun.epoch,
            sample_in_epoch=sample,
            subset=self._subset,
            batches_done=batches_done,
            arrays=self._shards.arrays,
        )

    def _check_order(self, begun: Begun) -> None:
        """Raise for an order that cannot work before anything is fetched; say, once a job, what was derived."""
        if self.batch_size is None:
            return
        plan = self._plan(begun, from_start=True)
        if self._world.rank == 0 and logger.isEnabledFor(logging.INFO):
            logger.info('%s', plan.describe(self._shards.table.raw_bytes))

    @property
    def _subset(self) -> Subset | None:
        chosen = self._subset_from
        if chosen is not None and self._subset_made is None:
            self._subset_made = Subset(np.load(chosen, mmap_mode='r') if isinstance(chosen, (str, Path)) else np.asarray(chosen))
        return self._subset_made

    def _stream_samples(self) -> list[StreamSamples]:
        arrays = self._shards.samples_by_stream
        return [StreamSamples.of(samples, **stream.weight) for samples, stream in zip(arrays, self.streams, strict=True)]

    # ---- processes ---------------------------------------------------------------------------------------------------------

    @property
    def _shards(self) -> DatasetShards:
        """The open streams of this process. A forked process shares its parent's maps, a spawned one opens its own."""
        if self._shards_open is None:
            hashes = self._index_hashes
            opened = [stream.open(None if hashes is None else hashes[i]) for i, stream in enumerate(self.streams)]
            self._shards_open = DatasetShards(
                opened,
                self._columns,
                self.allow_unsafe_types,
                limit_bytes=self.cache_limit,
                timeout_s=max(stream.download_timeout or 0 for stream in self.streams),
            )
            self._index_hashes = self._shards_open.index_hashes
        return self._shards_open

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_shards_open': None, '_subset_made': None, '_walk_begun': None}
