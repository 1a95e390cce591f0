"""How a batch comes from a worker to the training process: by memory that both keep mapped.

torch makes a file of shared memory for each tensor, sends its descriptor over a connection of its own and maps it, which takes
longer than its bytes do. Here a worker has a few slots, which it uses again and again: it copies the tensors of a batch into one
and sends the rest; where that is unpickled the tensors are copied out, and the slot is free. What does not fit, or comes while no
slot is free, goes torch's way. The memory has no name and goes with the last process that has it open.
"""

import mmap
import os
import weakref
from collections.abc import Callable
from itertools import count
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

__all__ = ['Handover']

# Where a slot begins; the first of them says which slots are taken, a byte each.
_PAGE = 4096

# Where a tensor begins within its slot.
_ALIGNMENT = 64

# The largest batch that slots are made for. Of a larger one the bytes are most of the work, and slots stay as long as workers do.
_MOST_BYTES = 16 << 20

# Batches may be larger than the first one by so much.
_SPARE = 1.25


class Handover:
    """The collate function of one pool of workers: it makes a batch, and has it handed over in a slot.

    Args:
        collate: Makes the batch, of which no tensor shares memory with another. Those of a dict go by slots.
        workers: How many the pool has.
        slots: How many batches of one worker may be on their way.
    """

    def __init__(self, collate: Callable[[Any], Any], workers: int, slots: int) -> None:
        self._collate = collate
        self._slots = slots
        self._key = next(_keys)
        self._files = [os.memfd_create('streaming-handover', os.MFD_CLOEXEC) for _ in range(workers)]
        self._memory: dict[int, _Memory] = {}
        weakref.finalize(self, _close, self._files).atexit = False
        _handovers[self._key] = self

    @staticmethod
    def is_possible() -> bool:
        """Whether the system has memory without a name."""
        return hasattr(os, 'memfd_create')

    def __getstate__(self) -> dict[str, Any]:
        # Pickled only where a worker is spawned.
        return {**self.__dict__, '_files': [DupFd(file) for file in self._files], '_memory': {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _files=[file.detach() for file in state['_files']])

    def __call__(self, data: Any) -> Any:
        """The batch, in a worker; it pickles into one without slots."""
        batch = self._collate(data)
        worker = get_worker_info()
        if worker is None or type(batch) is not dict:
            return batch
        tensors = {name: value for name, value in batch.items() if _fits(value)}
        size = sum(map(_room, tensors.values()))
        if not 0 < size <= _MOST_BYTES:
            return batch
        if worker.id not in self._memory:
            slot_bytes = _round_up(int(size * _SPARE), _PAGE)
            self._memory[worker.id] = _Memory(self._files[worker.id], self._slots, slot_bytes)
        memory = self._memory[worker.id]
        slot = memory.free_slot() if size <= memory.slot_bytes else None
        return batch if slot is None else _Sent(self._key, worker.id, memory, slot, batch, tensors)

    def memory_of(self, worker: int, slots: int, slot_bytes: int) -> '_Memory':
        """The memory of a worker that has sent something."""
        if worker not in self._memory:
            self._memory[worker] = _Memory(self._files[worker], slots, slot_bytes)
        return self._memory[worker]


# Those of this process, by the key that is sent with each batch. Whoever waits for batches has them.
_handovers: 'weakref.WeakValueDictionary[int, Handover]' = weakref.WeakValueDictionary()
_keys = count()


class _Memory:
    """The slots of one worker, as a process has them mapped."""

    def __init__(self, file: int, slots: int, slot_bytes: int) -> None:
        size = _PAGE + slots * slot_bytes
        if os.fstat(file).st_size != size:
            os.ftruncate(file, size)
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._taken = mmap.mmap(file, size)
        self._bytes = np.frombuffer(self._taken, np.uint8)

    def free_slot(self) -> int | None:
        slot = self._taken.find(b'\0', 0, self.slots)
        return None if slot < 0 else slot

    def take(self, slot: int) -> None:
        self._taken[slot] = 1

    def give_back(self, slot: int) -> None:
        self._taken[slot] = 0

    def bytes_at(self, slot: int, start: int, size: int) -> 'np.ndarray[Any, np.dtype[np.uint8]]':
        begin = _PAGE + slot * self.slot_bytes + start
        return self._bytes[begin : begin + size]


class _Sent:
    """A batch whose tensors are in a slot, until it has been unpickled."""

    def __init__(
        self, key: int, worker: int, memory: _Memory, slot: int, batch: dict[str, Any], tensors: dict[str, torch.Tensor]
    ) -> None:
        self._address = key, worker, memory.slots, memory.slot_bytes, slot
        # In its place stands what a tensor is, so that the batch keeps its order.
        self._rest: dict[str, Any] = {**batch, **{name: (value.dtype, value.shape) for name, value in tensors.items()}}
        self._places: dict[str, tuple[int, int]] = {}
        start = 0
        memory.take(slot)
        for name, tensor in tensors.items():
            source = tensor.contiguous().view(-1).view(torch.uint8).numpy()
            memory.bytes_at(slot, start, len(source))[:] = source
            self._places[name] = start, len(source)
            start += _room(tensor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (*self._address, self._places, self._rest)


def _receive(
    key: int, worker: int, slots: int, slot_bytes: int, slot: int, places: dict[str, tuple[int, int]], batch: dict[str, Any]
) -> dict[str, Any]:
    """The batch again, in the training process."""
    memory = _handovers[key].memory_of(worker, slots, slot_bytes)
    for name, (start, size) in places.items():
        dtype, shape = batch[name]
        # By NumPy: torch would wake its threads for it.
        batch[name] = torch.from_numpy(memory.bytes_at(slot, start, size).copy()).view(dtype).view(shape)
    memory.give_back(slot)
    return batch


def _fits(value: Any) -> bool:
    """Whether a value is a tensor that is its bytes and nothing more."""
    return (
        type(value) is torch.Tensor
        and value.layout is torch.strided
        and value.device.type == 'cpu'
        and value.numel() > 0
        and not (value.requires_grad or value.is_quantized or value.is_conj() or value.is_neg())
    )


def _room(tensor: torch.Tensor) -> int:
    return _round_up(tensor.numel() * tensor.element_size(), _ALIGNMENT)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
