"""StreamingDataLoader: torch's DataLoader that counts what it delivered, so that a run can go on at the next sample."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from streaming.batches import collate, why_not_whole
from streaming.dataset import StreamingDataset, WholeBatches
from streaming.errors import ArgumentError
from streaming.handover import Handover
from streaming.progress import Begun
from streaming.queues import direct_context

__all__ = ['StreamingDataLoader']

logger = logging.getLogger(__name__)


class StreamingDataLoader(DataLoader[Any]):
    """A DataLoader whose state can be saved after any batch and loaded on any number of ranks and workers.

    Takes what `torch.utils.data.DataLoader` takes. With a dataset that is no `StreamingDataset` it is that, and has no state.

    Batches that torch's default_collate would make of the samples of a dataset without code of its own (a ``__getitem__`` or
    ``__iter__`` of a subclass) are read whole, without making the samples. They are the same batches. Where that is not done,
    the log says why at DEBUG.

    Hugging Face Accelerate leaves it as it is: a rank reads its own part already, which ``Accelerator.prepare`` would deal to the
    ranks once more, so that most samples were seen by none. Batches stay where they are made, move them to the device.

    Raises:
        ArgumentError: ``batch_size`` is not the dataset's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arguments = signature(DataLoader.__init__).bind(self, *args, **kwargs).arguments
        self._source: DataLoader[Any] | None = None
        self._pool: int | None = None
        self._round = 0
        self._begun: Begun | None = None
        self._delivered = 0
        # What Accelerate asks before it wraps a loader.
        self._is_accelerate_prepared = isinstance(self.dataset, StreamingDataset)
        if isinstance(self.dataset, StreamingDataset):
            expected = self.dataset.batch_size
            if expected is None or self.batch_size not in (None, expected):
                raise ArgumentError(
                    f'the DataLoader makes batches of {self.batch_size}, but the dataset was made with batch_size={expected}; '
                    'give both the same batch_size, the samples a batch of one rank'
                )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its private iterator class here
        dataset = self.dataset
        if not isinstance(dataset, StreamingDataset):
            return super().__iter__()
        if self._pool is None or not (self.persistent_workers and self.num_workers > 0):
            self._pool, self._round = dataset.progress.new_pool(), 0
        else:
            self._round += 1
        # Begun here, not in the first worker to come: the state is right from the start.
        begun = dataset.progress.begin(dataset.iteration_key(self._pool, self._round))
        if self._source is None:
            self._source = self._make_source(dataset)
        handover = self._make_handover(dataset, self._source)
        whole = None
        if self._source is not self:
            whole = WholeBatches(self.drop_last)
            if handover is not None:
                whole = replace(whole, empty=handover.empty, runs=True)
        with dataset.in_pool(self._pool, whole):
            batches = self._start(self, handover) if whole is None else self._iterate_whole(dataset, self._source, handover)
        self._begun, self._delivered = begun, 0
        return self._deliver(batches, begun)

    def _iterate_whole(self, dataset: StreamingDataset, source: DataLoader[Any], handover: Handover | None) -> Iterator[Any]:
        if self.num_workers or self.pin_memory:
            return self._start(source, handover)
        # Nothing is left that torch's iterator would do, except to draw a seed: what is random after it stays what it was.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        return map(collate, dataset)

    def _make_handover(self, dataset: StreamingDataset, source: DataLoader[Any]) -> Handover | None:
        """How new workers hand over batches, if not as torch has it: only where no two tensors can be in one place."""
        is_new = self.num_workers > 0 and not self._round
        if not is_new or not Handover.is_possible() or source.collate_fn not in (collate, default_collate):
            return None
        return Handover(source.collate_fn, self.num_workers, source.prefetch_factor or 1, dataset.read_run)

    def _start(self, source: DataLoader[Any], handover: Handover | None) -> Iterator[Any]:
        """The iterator of torch; if workers are new, with our queues."""
        if not self.num_workers or self._round:
            return DataLoader.__iter__(source)
        function, context = source.collate_fn, source.multiprocessing_context
        source.collate_fn = handover or function
        source.multiprocessing_context = direct_context(context) or context
        try:
            return DataLoader.__iter__(source)
        finally:  # the iterator keeps its own
            source.collate_fn, source.multiprocessing_context = function, context

    def _make_source(self, dataset: StreamingDataset) -> DataLoader[Any]:
        """What makes the batches: a loader that takes them whole from the dataset, else this one, which collates samples."""
        why = why_not_whole(dataset, self.batch_size, self.collate_fn)
        if why is not None:
            logger.debug('batches are made of samples, one by one, as %s', why)
            return self
        arguments = {name: value for name, value in self._arguments.items() if name not in ('self', 'drop_last')}
        return DataLoader(**{**arguments, 'batch_size': None, 'collate_fn': collate})

    def _deliver(self, batches: Iterator[Any], begun: Begun) -> Iterator[Any]:
        for batch in batches:
            # Counted before the training loop has it: a state taken there holds this batch as done. An older iterator that is
            # still in use counts no more.
            if self._begun is begun:
                self._delivered += 1
            yield batch
        if self._begun is begun:
            self._begun = None

    def state_dict(self) -> dict[str, Any] | None:
        """The state after the last batch that was delivered; None if the dataset is not a StreamingDataset.

        Every rank's state is the same as long as all have been given as many batches.
        """
        dataset = self.dataset
        if not isinstance(dataset, StreamingDataset):
            return None
        if self._begun is None:
            return dataset.state_of(dataset.progress.upcoming(), 0)
        samples = self._delivered * (self.batch_size or 1)
        return dataset.state_of(self._begun, samples * dataset.num_data_ranks)

    def load_state_dict(self, obj: Mapping[str, Any]) -> None:
        """Let the next iteration go on where the state was taken.

        Raises:
            ArgumentError: it is not a state of such a dataset.
        """
        if not isinstance(self.dataset, StreamingDataset):
            raise ArgumentError(f'the dataset is a {type(self.dataset).__name__}, which has no state to load')
        self.dataset.load_state_dict(obj)
        self._begun = None
