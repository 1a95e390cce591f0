"""A global shuffle in bounded memory: every sample draws a number, goes to the heap of numbers like it, and each heap is sorted.

Parts scatter their samples over heaps, which are objects beside the journal; then each heap, which fits into memory, becomes the
shards of one part. The order is that of the numbers drawn, which depend on the seed, the part and the place in it: so it is the
same for any number of workers, and after any interruption.

A heap of a spilled object:

    uint64            number of samples n
    uint64[n]         the number that each drew
    uint64[n]         bytes of each
    bytes             the samples, back to back

All integers are little-endian.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from streaming.errors import CorruptError
from streaming.format.index import ShardInfo
from streaming.store import open_store
from streaming.writers.convert.job import Job, Part, PartResult, Spill
from streaming.writers.convert.sinks import Draws, Sink, cut_block
from streaming.writers.convert.sources import Range

__all__ = ['HeapSink', 'gather_parts', 'read_heap']

_JOURNAL = '.convert'
# Of samples that wait in memory before they are put as one object.
_SPILL_BYTES = 64 << 20
# Samples that are put together of a heap at a time.
_GATHERED = 256


class HeapSink(Sink):
    """Scatters a part's samples over heaps.

    Args:
        job: Says where, and the seed.
        part: Whose samples these are.

    Attributes:
        spills: What is stored.
    """

    def __init__(self, job: Job, part: Part) -> None:
        self.spills: tuple[Spill, ...] = ()
        self._part = part
        self._store = open_store(job.folder(_JOURNAL))
        self._draws = Draws(job.shuffle_seed or 0, 0, part.number)
        self._clear()

    def _clear(self) -> None:
        self._drawn: list[list[int]] = [[] for _ in range(self._part.heaps)]
        self._samples: list[list[bytes]] = [[] for _ in range(self._part.heaps)]
        self._bytes = 0

    def add(self, data: bytes, sizes: NDArray[np.uint32]) -> None:
        for sample in cut_block(data, sizes):
            drawn = self._draws.next()
            # Heaps are ranges of numbers, so that sorted heaps, one after the other, are sorted.
            heap = drawn * self._part.heaps >> 64
            self._drawn[heap].append(drawn)
            self._samples[heap].append(sample)
        self._bytes += len(data)
        if self._bytes > _SPILL_BYTES:
            self._spill()

    def _spill(self) -> None:
        heaps = []
        for drawn, samples in zip(self._drawn, self._samples, strict=True):
            sizes = [len(sample) for sample in samples]
            heaps.append(np.array([len(samples), *drawn, *sizes], '<u8').tobytes() + b''.join(samples))
        bounds = np.cumsum([0, *map(len, heaps)]).tolist()
        key = f'spill-{self._part.number:05}.{len(self.spills):03}'
        self._store.put(key, b''.join(heaps))
        self.spills = (*self.spills, Spill(key, tuple(bounds)))
        self._clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self._bytes:
                self._spill()
        finally:
            self._store.close()

    @property
    def shards(self) -> dict[str, tuple[ShardInfo, ...]]:
        """None yet."""
        return {}


def gather_parts(parts: Sequence[Part], results: Sequence[PartResult]) -> list[Part]:
    """The second half of a shuffle: a part for each heap, which reads it where the parts of the first half have put it.

    Args:
        parts: The first half.
        results: What became of them.
    """
    spills = {result.number: result.spills for result in results}
    found: list[Part] = []
    for split in dict.fromkeys(part.split for part in parts):
        scattered = [part for part in parts if part.split == split]
        for heap in range(scattered[0].heaps):
            ranges = tuple(
                Range(key=spill.key, start=spill.bounds[heap], end=spill.bounds[heap + 1], bytes=_length(spill, heap))
                for part in scattered
                for spill in spills[part.number]
            )
            found.append(Part(number=len(found), ranges=ranges, split=split, stage='gather'))
    return found


def _length(spill: Spill, heap: int) -> int:
    return spill.bounds[heap + 1] - spill.bounds[heap]


def read_heap(job: Job, part: Part) -> Iterator[tuple[bytes, NDArray[np.uint32]]]:
    """The samples of a heap, in the order of what they drew: some back to back, and the bytes of each.

    Raises:
        CorruptError: what lies there is no heap.
    """
    drawn, samples = [], []
    store = open_store(job.folder(_JOURNAL))
    try:
        for piece in part.ranges:
            data = bytearray(piece.bytes)
            store.read_into(piece.key, piece.start, memoryview(data))
            count = int.from_bytes(data[:8], 'little')
            if 8 + 16 * count > len(data):
                raise CorruptError(f'{store.url_of(piece.key)} is no heap: {count} samples in {len(data)} bytes')
            numbers = np.frombuffer(data, '<u8', 2 * count, 8)
            bounds = 8 + 16 * count + np.concatenate([np.zeros(1, np.int64), np.cumsum(numbers[count:], dtype=np.int64)])
            if bounds[-1] != len(data):
                raise CorruptError(f'{store.url_of(piece.key)} is no heap: it ends at {bounds[-1]} of {len(data)} bytes')
            drawn.append(numbers[:count].copy())
            view = memoryview(bytes(data))
            samples += [view[start:end] for start, end in pairwise(bounds.tolist())]
    finally:
        store.close()
    order = np.argsort(np.concatenate(drawn), kind='stable') if drawn else np.zeros(0, np.int64)
    for start in range(0, len(order), _GATHERED):
        chosen = [samples[number] for number in order[start : start + _GATHERED].tolist()]
        yield b''.join(chosen), np.fromiter(map(len, chosen), np.uint32, len(chosen))
