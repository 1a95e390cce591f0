"""A part of a dataset's samples, planned and counted as if it were the whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError
from streaming.order.config import StreamSamples
from streaming.order.partition import Int64Array

__all__ = ['Subset']

# Samples of a mask that are counted together.
_BLOCK = 4096


class Subset:
    """Samples that take part, by ids or by a mask. A sample of a subset has a number: how many of the subset come before it.

    Args:
        chosen: Sample ids (integers, in any order, each once), or a bool for each sample of the dataset. May be mapped from a
            file (``numpy.load(path, mmap_mode='r')``): ascending ids and masks are not copied.

    Raises:
        ArgumentError: neither, or an id that is negative or comes twice.
    """

    def __init__(self, chosen: NDArray[Any]) -> None:
        chosen = np.asarray(chosen) if not isinstance(chosen, np.ndarray) else chosen
        if chosen.ndim != 1 or (chosen.dtype.kind not in 'iub' and chosen.size):
            raise ArgumentError(f'a subset is a row of sample ids or of bools, got {chosen.dtype} {chosen.shape}')
        self._mask: NDArray[np.bool_] | None = None
        if chosen.dtype.kind == 'b':
            self._mask = chosen
            # How many of the subset come before each block of the mask; one pass in blocks, so that a mapped file stays one.
            counts = [int(np.count_nonzero(chosen[i : i + _BLOCK])) for i in range(0, len(chosen), _BLOCK)]
            self._before = np.cumsum([0, *counts])
            self._ids = np.empty(0, np.int64)
            return
        steps = np.diff(chosen)
        if chosen.size and not (steps > 0).all():
            chosen = np.sort(chosen)
            if not (np.diff(chosen) > 0).all():
                raise ArgumentError('a subset has each sample once, but some ids come twice')
        if chosen.size and int(chosen[0]) < 0:
            raise ArgumentError(f'sample ids are not negative, got {int(chosen[0])}')
        self._ids = chosen

    def __len__(self) -> int:
        return len(self._ids) if self._mask is None else int(self._before[-1])

    def restrict(self, streams: Sequence[StreamSamples]) -> list[StreamSamples]:
        """The same streams, with only the subset's samples counted in each shard.

        Raises:
            ArgumentError: an id is past the end, or the mask is of another length than the dataset.
        """
        total = sum(stream.total for stream in streams)
        if self._mask is None:
            if len(self._ids) and int(self._ids[-1]) >= total:
                raise ArgumentError(f'the subset has sample {int(self._ids[-1])}, but the dataset has only {total}')
        elif len(self._mask) != total:
            raise ArgumentError(f'the mask has {len(self._mask)} values, but the dataset has {total} samples')
        result, first_id = [], 0
        for stream in streams:
            ends = first_id + np.append(0, np.cumsum(stream.samples))
            result.append(stream.with_samples(np.diff(self._count_before(ends))))
            first_id += stream.total
        return result

    def to_ids(self, numbers: Int64Array) -> Int64Array:
        """The ids of the subset's samples ``numbers`` (N,), int64 (N,)."""
        if self._mask is None:
            return self._ids[numbers].astype(np.int64)
        blocks = np.searchsorted(self._before, numbers, side='right') - 1
        ids = np.empty_like(numbers)
        order = np.argsort(blocks, kind='stable')
        found, firsts = np.unique(blocks[order], return_index=True)
        for block, here in zip(found.tolist(), np.split(order, firsts[1:]), strict=True):
            within = np.flatnonzero(self._mask[block * _BLOCK : (block + 1) * _BLOCK])
            ids[here] = block * _BLOCK + within[numbers[here] - self._before[block]]
        return ids

    def _count_before(self, ids: Int64Array) -> Int64Array:
        """How many of the subset's samples come before each of some ids, ascending (N,)."""
        if self._mask is None:
            return np.searchsorted(self._ids, ids).astype(np.int64)
        blocks, within = np.divmod(ids, _BLOCK)
        rests = [
            np.count_nonzero(self._mask[block * _BLOCK : block * _BLOCK + rest])
            for block, rest in zip(blocks.tolist(), within.tolist(), strict=True)
        ]
        return self._before[np.minimum(blocks, len(self._before) - 1)] + np.array(rests, np.int64)
