"""How a batch comes from a worker to the training process: by memory that both keep mapped.

torch makes a file of shared memory for each tensor, sends its descriptor over a connection of its own and maps it, which takes
longer than its bytes do. Here a worker has a few slots, which it uses again and again: it makes long arrays of a batch in one, or
copies its tensors there, and sends the rest; where that is unpickled the tensors are copied out, and the slot is free. What does
not fit, or comes while no slot is free, goes torch's way. The memory has no name and goes with the last process that has it open.

A batch that lies side by side in a shard's file needs no slot: the worker sends which samples it is, a `Run`, and where that is
unpickled it is read from the same file.
"""

import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._utils import ExceptionWrapper
from torch.utils.data import get_worker_info

from streaming.readers.gather import Empty
from streaming.readers.samples import Run

__all__ = ['Handover']

_Bytes = NDArray[np.uint8]
_BYTE = np.dtype('u1')

# Where a slot begins; the first of them says which slots are taken, a byte each.
_PAGE = 4096

# Where a tensor begins within its slot.
_ALIGNMENT = 64

# The largest batch that slots are made for. Of a larger one the bytes are most of the work, and slots stay as long as workers do.
_MOST_BYTES = 16 << 20

# Tensors of so many bytes are received into memory that is used again, of which at most so much is kept free.
_BLOCK_BYTES = 64 << 10
_FREE_BLOCKS = 4

# Batches may be larger than the first one by so much.
_SPARE = 1.25


class Handover:
    """The collate function of one pool of workers: it makes a batch, and has it handed over in a slot.

    Args:
        collate: Makes the batch, of which no tensor shares memory with another. Those of a dict go by slots.
        workers: How many the pool has.
        slots: How many batches of one worker may be on their way.
        read_run: What makes of a run, in the training process, what the batch is made of. Default: None, workers give none.
    """

    def __init__(
        self, collate: Callable[[Any], Any], workers: int, slots: int, read_run: Callable[[Run, Empty], Any] | None = None
    ) -> None:
        self._collate = collate
        self._read_run = read_run
        self._slots = slots
        self._key = next(_keys)
        self._files = [os.memfd_create('streaming-handover', os.MFD_CLOEXEC) for _ in range(workers)]
        self._memory: dict[int, _Memory] = {}
        self.blocks = _Blocks()
        # In a worker: its memory, once it has handed over a batch, and the slot in which arrays of the next one are.
        self._mine: _Memory | None = None
        self._slot: int | None = None
        self._used = 0
        weakref.finalize(self, _close, self._files).atexit = False
        _handovers[self._key] = self

    @staticmethod
    def is_possible() -> bool:
        """Whether the system has memory without a name."""
        return hasattr(os, 'memfd_create')

    def __getstate__(self) -> dict[str, Any]:
        # Pickled only where a worker is spawned.
        return {**self.__dict__, '_files': [DupFd(file) for file in self._files], '_memory': {}, '_read_run': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _files=[file.detach() for file in state['_files']])

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory for an array of the batch that this worker is about to make: in a slot, if there is one and it has room.

        It is good until the batch is handed over.
        """
        memory, size = self._mine, math.prod(shape) * dtype.itemsize
        if memory is not None and self._slot is None:
            self._slot, self._used = memory.free_slot(), 0
        if memory is None or self._slot is None or self._used + size > memory.slot_bytes:
            return np.empty(shape, dtype)
        found = memory.bytes_at(self._slot, self._used, size)
        self._used += _round_up(size, _ALIGNMENT)
        return found.view(dtype).reshape(shape)

    def __call__(self, data: Any) -> Any:
        """The batch, in a worker; it pickles into one without slots."""
        if type(data) is Run:
            return _SentRun(self._key, data)
        batch = self._collate(data)
        worker = get_worker_info()
        if worker is None or type(batch) is not dict:
            return batch
        tensors = {name: value for name, value in batch.items() if _fits(value)}
        slot, used, self._slot, self._used = self._slot, self._used, None, 0
        places: dict[str, int] = {}
        if self._mine is not None and slot is not None:
            places = self._mine.find(slot, used, tensors)
        size = used + sum(_room(tensor) for name, tensor in tensors.items() if name not in places)
        if self._mine is None and 0 < size <= _MOST_BYTES:
            slot_bytes = _round_up(int(size * _SPARE), _PAGE)
            self._mine = self._memory[worker.id] = _Memory(self._files[worker.id], self._slots, slot_bytes)
        if self._mine is not None and 0 < size <= self._mine.slot_bytes:
            slot = self._mine.free_slot() if slot is None else slot
            if slot is not None:
                return _Sent(self._key, worker.id, self._mine, slot, batch, tensors, places, used)
        # Torch may pickle it when the slot is used for another one.
        return {**batch, **{name: tensors[name].clone() for name in places}} if places else batch

    def read(self, run: Run) -> Any:
        """The batch that a worker gave as a run, in the training process."""
        assert self._read_run is not None
        return self._collate(self._read_run(run, self.blocks.empty))

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
        self._address = self._bytes.ctypes.data

    def free_slot(self) -> int | None:
        slot = self._taken.find(b'\0', 0, self.slots)
        return None if slot < 0 else slot

    def take(self, slot: int) -> None:
        self._taken[slot] = 1

    def give_back(self, slot: int) -> None:
        self._taken[slot] = 0

    def bytes_at(self, slot: int, start: int, size: int) -> _Bytes:
        begin = _PAGE + slot * self.slot_bytes + start
        return self._bytes[begin : begin + size]

    def find(self, slot: int, used: int, tensors: dict[str, torch.Tensor]) -> dict[str, int]:
        """Where in the first bytes of a slot those of the tensors are that are there."""
        begin = self._address + _PAGE + slot * self.slot_bytes
        places = {name: tensor.data_ptr() - begin for name, tensor in tensors.items() if tensor.is_contiguous()}
        return {name: start for name, start in places.items() if 0 <= start < used}


class _Blocks:
    """Memory for tensors that are received, which goes to the next one once nothing looks at it any more.

    The system takes longer to make new memory, page by page, than a tensor's bytes take to be copied there.
    """

    def __init__(self) -> None:
        self._free: deque[_Bytes] = deque(maxlen=_FREE_BLOCKS)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array, whatever is in it. Its memory goes to another one when this object goes: its views have to keep it."""
        size = math.prod(shape) * dtype.itemsize
        if size < _BLOCK_BYTES:
            return np.empty(shape, dtype)
        block = None
        for _ in range(len(self._free)):  # threads may race for the last one
            with suppress(IndexError):
                found = self._free.popleft()
                if len(found) == size:
                    block = found
                    break
                self._free.append(found)
        if block is None:
            block = np.empty(size, np.uint8)
        # An array of its own: the tensor keeps it for as long as its bytes can be looked at.
        lent = block.view(dtype).reshape(shape)
        weakref.finalize(lent, self._free.append, block).atexit = False
        return lent


class _Sent:
    """A batch whose tensors are in a slot, until it has been unpickled.

    Args:
        key: Of the Handover.
        worker: The worker.
        memory: Its slots.
        slot: The slot.
        batch: The batch.
        tensors: Those of its values that shall go by the slot.
        places: Where those of them begin that are there.
        used: How much of the slot these take.
    """

    def __init__(
        self,
        key: int,
        worker: int,
        memory: _Memory,
        slot: int,
        batch: dict[str, Any],
        tensors: dict[str, torch.Tensor],
        places: dict[str, int],
        used: int,
    ) -> None:
        self._address = key, worker, memory.slots, memory.slot_bytes, slot
        # In its place stands what a tensor is, so that the batch keeps its order.
        self._rest: dict[str, Any] = {**batch, **{name: _kind(value) for name, value in tensors.items()}}
        self._places: dict[str, tuple[int, int]] = {}
        start = used
        memory.take(slot)
        for name, tensor in tensors.items():
            if name in places:
                self._places[name] = places[name], tensor.numel() * tensor.element_size()
                continue
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
    handover = _handovers[key]
    memory = handover.memory_of(worker, slots, slot_bytes)
    for name, (start, size) in places.items():
        dtype, shape = getattr(torch, batch[name][0]), batch[name][1]
        copied = handover.blocks.empty((size,), _BYTE)
        copied[:] = memory.bytes_at(slot, start, size)  # by NumPy: torch would wake its threads for it
        batch[name] = torch.from_numpy(copied).view(dtype).view(shape)
    memory.give_back(slot)
    return batch


class _SentRun:
    """A run on its way to the training process.

    Args:
        key: Of the Handover.
        run: The run.
    """

    def __init__(self, key: int, run: Run) -> None:
        self._key = key
        self._run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive_run, (self._key, self._run.first, self._run.count, self._run.is_real)


def _receive_run(key: int, first: int, count: int, is_real: NDArray[np.bool_] | None) -> Any:
    """The batch of a run, in the training process; or what torch raises instead, as workers send it."""
    try:
        return _handovers[key].read(Run(first, count, is_real))
    except Exception:  # nobody who unpickles expects one: torch's thread that pins memory would end
        return ExceptionWrapper(where='in the training process, for a worker')  # type: ignore[no-untyped-call]


def _fits(value: Any) -> bool:
    """Whether a value is a tensor that is its bytes and nothing more."""
    return (
        type(value) is torch.Tensor
        and value.layout is torch.strided
        and value.device.type == 'cpu'
        and value.numel() > 0
        and not (value.requires_grad or value.is_quantized or value.is_conj() or value.is_neg())
    )


def _kind(tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """The name of its dtype, and its shape, as what is pickled in no time."""
    return str(tensor.dtype).removeprefix('torch.'), tuple(tensor.shape)


def _room(tensor: torch.Tensor) -> int:
    return _round_up(tensor.numel() * tensor.element_size(), _ALIGNMENT)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
