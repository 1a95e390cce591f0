"""Where a part's samples go: to shards of its folder, by split, or to heaps for a shuffle."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import accumulate, pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streaming.format.index import ShardInfo
from streaming.format.mds import MDSSchema, head_bytes
from streaming.writers.convert.job import Job, Part, Spill, part_folder
from streaming.writers.mds import MDSWriter
from streaming.writers.merge import moved

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ['Draws', 'ShardSink', 'Sink', 'cut_block']

# Threads of a part that compress and put. All cores have parts of their own; one more hides a store's latency.
_PUBLISHERS = 2
_DRAWN_AT_ONCE = 4096


class Sink(ABC):
    """Takes encoded samples, in order."""

    @abstractmethod
    def add(self, data: bytes, sizes: NDArray[np.uint32]) -> None:
        """Take samples.

        Args:
            data: Their bytes, back to back.
            sizes: The bytes of each (samples,).

        Raises:
            StreamingError: one of them, or one before them, cannot be stored.
        """

    def __enter__(self) -> 'Self':
        return self

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Store what is left; where the block raised, give up."""


def cut_block(data: bytes, sizes: NDArray[np.uint32]) -> Iterator[bytes]:
    """The samples of a block."""
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    return (data[start:end] for start, end in pairwise([0, *ends]))


class EncodedWriter(MDSWriter):
    """Writes samples that are encoded already.

    Attributes:
        shards: What is stored.
    """

    def __init__(self, **options: Any) -> None:
        self.shards: list[ShardInfo] = []
        super().__init__(**options)

    def _use(self, schema: MDSSchema) -> None:
        super()._use(schema)
        self._begin(_same, head_bytes=head_bytes(0, self._config), bytes_a_sample=4)

    def write_block(self, data: bytes, sizes: NDArray[np.uint32]) -> None:
        """Write samples, as many at once as there is room for in a shard.

        Args:
            data: Their bytes, back to back.
            sizes: The bytes of each (samples,).
        """
        view = memoryview(data)
        ends = np.cumsum(sizes, dtype=np.int64)
        counted = ends + self._bytes_a_sample * np.arange(1, len(sizes) + 1)
        row = at = taken = 0
        while row < len(sizes):
            stop = int(np.searchsorted(counted, taken + self._threshold - self._size, 'right'))
            if stop <= row or self._stopped:
                # It begins a shard, needs a larger buffer, or is refused.
                stop = row + 1
                self.write(data[at : int(ends[row])])  # type: ignore[arg-type]
            else:
                self._append(view[at : int(ends[stop - 1])])
                self._sizes.frombytes(sizes[row:stop].astype(self._sizes.typecode).tobytes())
                self._size += int(counted[stop - 1]) - taken
            row, at, taken = stop, int(ends[stop - 1]), int(counted[stop - 1])

    def _note_stored(self, shard: ShardInfo) -> None:
        super()._note_stored(shard)
        self.shards.append(shard)


def _same(sample: Any) -> bytes:
    return sample  # type: ignore[no-any-return]


class Draws:
    """Random 64-bit numbers for the samples of a part: the same wherever and however often it is done.

    Args:
        seed: Of the job.
        purpose: Tells uses apart that one job has for such numbers.
        part: Number of the part.
    """

    def __init__(self, seed: int, purpose: int, part: int) -> None:
        # random_raw is the plain stream of the algorithm, which does not change with NumPy's version.
        self._raw = np.random.PCG64(np.random.SeedSequence([seed, purpose, part])).random_raw
        self._drawn: list[int] = []

    def next(self) -> int:
        """The next one."""
        if not self._drawn:
            self._drawn = self._raw(_DRAWN_AT_ONCE)[::-1].tolist()
        return self._drawn.pop()


class ShardSink(Sink):
    """Shards in the part's own folder, in each split.

    Args:
        job: Says where and how.
        part: Whose samples these are.
    """

    def __init__(self, job: Job, part: Part) -> None:
        self._part = part
        self._open = ExitStack()
        splits = list(job.splits) or [part.split or job.split]
        self._writers = {
            split: EncodedWriter(
                out=job.folder(part_folder(split, part.number)),
                columns=job.columns,
                compression=job.compression,
                hashes=job.hashes,
                size_limit=job.size_limit,
                max_workers=_PUBLISHERS,
                exist_ok=True,
            )
            for split in splits
        }
        for writer in self._writers.values():
            self._open.enter_context(writer)
        self._every = list(self._writers.values())
        self._draws = Draws(job.shuffle_seed or 0, 1, part.number)
        total = sum(job.splits.values()) or 1.0
        self._bounds = [share / total * (1 << 64) for share in accumulate(job.splits.values())]

    def add(self, data: bytes, sizes: NDArray[np.uint32]) -> None:
        if len(self._every) == 1:
            self._every[0].write_block(data, sizes)
            return
        for sample in cut_block(data, sizes):
            drawn = self._draws.next()
            split = next((number for number, bound in enumerate(self._bounds) if drawn < bound), len(self._every) - 1)
            self._every[split].write(sample)  # type: ignore[arg-type]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._open.__exit__(kind, error, traceback)

    @property
    def shards(self) -> dict[str, tuple[ShardInfo, ...]]:
        """What is stored, by split, as the dataset's index names it."""
        return {
            split: tuple(
                moved(shard, part_folder('', self._part.number))
                for shard in sorted(writer.shards, key=lambda shard: shard.raw_data.basename)
            )
            for split, writer in self._writers.items()
        }

    @property
    def spills(self) -> tuple[Spill, ...]:
        """Nothing."""
        return ()
