"""StreamingDataLoader: torch's DataLoader that counts what it delivered, so that a run can go on at the next sample."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader

from streaming.dataset import StreamingDataset
from streaming.errors import ArgumentError
from streaming.progress import Begun

__all__ = ['StreamingDataLoader']


class StreamingDataLoader(DataLoader[Any]):
    """A DataLoader whose state can be saved after any batch and loaded on any number of ranks and workers.

    Takes what `torch.utils.data.DataLoader` takes. With a dataset that is no `StreamingDataset` it is that, and has no state.

    Raises:
        ArgumentError: ``batch_size`` is not the dataset's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool: int | None = None
        self._round = 0
        self._begun: Begun | None = None
        self._delivered = 0
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
        with dataset.in_pool(self._pool):
            batches = super().__iter__()
        self._begun, self._delivered = begun, 0
        return self._deliver(batches, begun)

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
