"""A small record that a rank shares with its DataLoader workers, without a name that could collide or be left behind.

The record is a mapping of JSON values in anonymous memory. A forked worker inherits it; a spawned one receives the open file with
the pickled dataset. Any other pickle (a copy to disk, or to another machine) holds a copy of the values, not the memory.
"""

import fcntl
import json
import mmap
import os
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any

__all__ = ['SharedRecord']

# Only pages that were written take memory.
_SLOT_BYTES = 4 << 20
_HEAD = struct.Struct('<Q')
_LENGTH = struct.Struct('<I')
_SIZE = _HEAD.size + 2 * _SLOT_BYTES

# Record locks (lockf) keep other processes out; this keeps out the threads of ours.
_threads = threading.RLock()


def _renew_lock() -> None:
    global _threads
    _threads = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def _anonymous_file() -> int:
    if hasattr(os, 'memfd_create'):
        return os.memfd_create('streaming-record', os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class SharedRecord:
    """JSON values under names, the same for all processes that inherited the record.

    A change is seen by all others whole or not at all, also when its writer is killed in the middle: there are two slots, and the
    one that counts is named last.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._attach(_anonymous_file())
        with self.locked() as record:
            record.update(values or {})

    def _attach(self, descriptor: int) -> None:
        self._descriptor = descriptor
        if os.fstat(descriptor).st_size < _SIZE:
            os.ftruncate(descriptor, _SIZE)
        self._map = mmap.mmap(descriptor, _SIZE)

    def __del__(self) -> None:
        if hasattr(self, '_map'):
            self._map.close()
            os.close(self._descriptor)

    def read(self) -> dict[str, Any]:
        """The values as they are now."""
        with self._alone():
            return self._load()

    @contextmanager
    def locked(self) -> Iterator[dict[str, Any]]:
        """The values, to be changed in place while no other process or thread reads or changes them."""
        with self._alone():
            values = self._load()
            yield values
            self._store(values)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _threads:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _load(self) -> dict[str, Any]:
        (version,) = _HEAD.unpack_from(self._map, 0)
        if version == 0:
            return {}
        at = _HEAD.size + version % 2 * _SLOT_BYTES
        (length,) = _LENGTH.unpack_from(self._map, at)
        values: dict[str, Any] = json.loads(self._map[at + _LENGTH.size : at + _LENGTH.size + length])
        return values

    def _store(self, values: Mapping[str, Any]) -> None:
        data = json.dumps(values).encode()
        if len(data) > _SLOT_BYTES - _LENGTH.size:
            raise ValueError(f'a shared record holds at most {_SLOT_BYTES - _LENGTH.size} bytes of JSON, got {len(data)}')
        (version,) = _HEAD.unpack_from(self._map, 0)
        at = _HEAD.size + (version + 1) % 2 * _SLOT_BYTES
        _LENGTH.pack_into(self._map, at, len(data))
        self._map[at + _LENGTH.size : at + _LENGTH.size + len(data)] = data
        _HEAD.pack_into(self._map, 0, version + 1)

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            return SharedRecord, (self.read(),)
        return _inherit, (DupFd(self._descriptor),)


def _inherit(duplicate: Any) -> SharedRecord:
    record = SharedRecord.__new__(SharedRecord)
    record._attach(duplicate.detach())
    return record
