"""An uncompressed MDS shard of which only parts are here: bytes read by range lie at their places in an image of the shard.

The image is memory that takes room only where something was put. So the checks and decoders of the whole reader work on it as
they do on the file. Whether reading by range pays is not decided here.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.format.mds import head_bytes, read_offsets
from streaming.format.shard import ShardInfo
from streaming.readers import Reader
from streaming.readers.gather import Mapped
from streaming.readers.mds import MDSReader

__all__ = ['RangedReader', 'coalesce']

# Mapped memory is this process's own, and is promised without being set aside.
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, 'MAP_NORESERVE', 0)


def coalesce(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Join ranges whose gaps are small.

    Args:
        ranges: (start, end) each, end exclusive, in any order; they may overlap.
        gap: Ranges that are at most so many bytes apart become one, with what is between them.

    Returns:
        (start, end) each, by start, more than ``gap`` apart. Empty ranges are left out.
    """
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if start == end:
            continue
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


class RangedReader:
    """A shard that is read in parts: its head, then the ranges that are `missing` of some samples, then it has these.

    Samples that it does not have are read from the whole shard. Any thread may call.

    Args:
        shard: An uncompressed MDS shard.
        source: Its URL, for messages.
        read: Fills a buffer with the object's bytes from some start.
        open_whole: Opens the whole shard, waiting for it.
        columns: Decode only these. Default: None, all.
        allow_unsafe_types: Whether ``pkl`` columns may be read. Default: False.
    """

    owned_bytes = 0

    def __init__(
        self,
        shard: ShardInfo,
        source: str,
        read: Callable[[int, memoryview], None],
        open_whole: Callable[[], Reader],
        *,
        columns: Sequence[str] | None = None,
        allow_unsafe_types: bool = False,
    ) -> None:
        self._shard = shard
        self._source = source
        self._read = read
        self._open_whole = open_whole
        self._columns = columns
        self._allow_unsafe_types = allow_unsafe_types
        self._image = memoryview(mmap.mmap(-1, max(1, shard.raw_data.bytes), flags=_FLAGS))[: shard.raw_data.bytes]
        self._has = np.zeros(shard.samples, np.bool_)
        self._spans: list[tuple[int, int]] = []
        self._offsets: np.ndarray[Any, np.dtype[np.uint32]] | None = None
        self._partial: MDSReader | None = None
        self._whole: Reader | None = None

    @property
    def head_bytes(self) -> int:
        """Bytes that must be here before samples can be found."""
        return head_bytes(self._shard.samples, b'')

    @property
    def has_head(self) -> bool:
        """Whether samples can be found."""
        return self._partial is not None

    def read_head(self) -> None:
        """Read what must be here before samples can be found.

        Raises:
            FormatError: it cannot be the head of such a shard.
            ArgumentError: there is no such column, or reading it is not allowed.
            StoreError: the store failed.
        """
        self.read_range(0, self.head_bytes)
        self._offsets = read_offsets(self._image, self._shard.samples, self._source)
        self._partial = MDSReader.of_bytes(
            self._image, self._source, self._shard, columns=self._columns, allow_unsafe_types=self._allow_unsafe_types
        )

    def read_range(self, start: int, end: int) -> None:
        """Read a range to its place. Say `add` once samples are whole."""
        self._read(start, self._image[start:end])
        self._spans.append((start, end))

    def foreseen(self, numbers: Sequence[int], gap: int) -> list[tuple[int, int]]:
        """Where samples must be by what the index says, to be read along with the head; nowhere if their sizes vary.

        Small gaps are closed. The head has the last word: what was not foreseen is `missing`.
        """
        sizes = self._shard.column_sizes
        known = [size for size in sizes if size is not None]
        begin = self._shard.raw_data.bytes - sum(known) * self._shard.samples
        if not sizes or len(known) < len(sizes) or begin < self.head_bytes:
            return []
        return coalesce([(begin + number * sum(known), begin + (number + 1) * sum(known)) for number in numbers], gap)

    def missing(self, numbers: Sequence[int], gap: int) -> list[tuple[int, int]]:
        """The ranges of samples that are not here, with small gaps closed. The head must be here."""
        assert self._offsets is not None
        wanted = [number for number in numbers if not self._has[number]]
        places = [(int(self._offsets[number]), int(self._offsets[number + 1])) for number in wanted]
        return coalesce([place for place in places if not self._is_read(*place)], gap)

    def _is_read(self, start: int, end: int) -> bool:
        return any(begin <= start and end <= stop for begin, stop in self._spans)

    def add(self, numbers: Sequence[int]) -> None:
        """Note that the bytes of samples are here."""
        self._has[list(numbers)] = True

    def agrees_with(self, data: memoryview) -> bool:
        """Whether the bytes that samples were taken from are those of the whole shard."""
        # By NumPy: two memoryviews are compared byte by byte.
        here, there = np.frombuffer(self._image, np.uint8), np.frombuffer(data, np.uint8)
        return not self._has.any() or all(np.array_equal(here[start:end], there[start:end]) for start, end in self._spans)

    @property
    def data(self) -> memoryview:
        """The image of the shard."""
        return self._image

    def __len__(self) -> int:
        return self._shard.samples

    def read_each(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Decode some samples (N,) as `read` does, each when it is taken."""
        return map(self.read, numbers.tolist())

    def mapped(self, leases: ExitStack, numbers: NDArray[np.int64]) -> Mapped | None:
        """What whole columns of samples that are here can be gathered from; None where one is not."""
        if self._partial is None or not self._has[numbers].all():
            return None
        return self._partial.mapped(leases, numbers)

    @property
    def read(self) -> Callable[[int], dict[str, Any]]:
        """Decodes a sample as brackets do."""
        return self.__getitem__

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Decode sample ``number``, from 0, waiting for the whole shard if it is not among those that are here.

        Raises:
            FormatError: its bytes are not what the format says; names the object and the sample.
            IndexError: there is no such sample.
        """
        if self._partial is not None and 0 <= number < self._shard.samples and self._has[number]:
            return self._partial[number]
        if self._whole is None:
            self._whole = self._open_whole()
        return self._whole[number]
