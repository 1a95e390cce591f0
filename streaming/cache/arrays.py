"""Arrays of an epoch's length, computed once a node and mapped by all its processes.

Only orders of mosaicml-streaming need any. The file's name says all that the array depends on, so it is never stale.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streaming.cache.locks import wait_for_lock
from streaming.files import new_file

__all__ = ['SharedArrays']

logger = logging.getLogger(__name__)

# Arrays kept: this epoch's and the next one's, of a few streams each. Whoever still maps an older one keeps its bytes.
_KEPT = 16


class SharedArrays:
    """Computes an array unless its file is there, and maps it.

    Args:
        folder: Where the files lie; shared by the processes of a node.
        timeout_s: Seconds without a sign of life of whoever computes the array, after which waiting is an error.
        make_room: Called with the bytes of an array before it is written. Default: does nothing.
    """

    def __init__(self, folder: Path, timeout_s: float = 600.0, make_room: Callable[[int], None] = lambda size: None) -> None:
        self._folder = folder
        self._make_room = make_room
        self._timeout_s = timeout_s

    def __call__(self, name: str, compute: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
        """The array of that name, read-only.

        Raises:
            DeadlineError: another process computes it and does not get done.
        """
        path = self._folder / f'{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy'
        found = self._map(path)
        if found is not None:
            return found
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with wait_for_lock(path.with_suffix('.lock'), self._timeout_s, f'the array {name} to be computed') as lock:
            found = self._map(path)
            if found is None:
                logger.info('computing the order of an epoch (%s)', name)
                array = np.ascontiguousarray(compute(), np.int64)
                lock.beat()
                self._make_room(array.nbytes)
                with new_file(path) as file:
                    np.save(file, array)
                self._forget_old()
                mapped = self._map(path)
                found = array if mapped is None else mapped
        return found

    @staticmethod
    def _map(path: Path) -> NDArray[np.int64] | None:
        try:
            array: NDArray[np.int64] = np.load(path, mmap_mode='r')
        except (FileNotFoundError, ValueError):
            return None
        with suppress(FileNotFoundError):
            os.utime(path)  # in use: not among the first to go
        return array

    def _forget_old(self) -> None:
        """Remove arrays that nobody has asked for lately, and what killed processes left."""
        with suppress(FileNotFoundError):
            files = sorted(self._folder.glob('*.npy'), key=lambda path: path.stat().st_mtime_ns)
            parts = sorted(self._folder.glob('*.part'), key=lambda path: path.stat().st_mtime_ns)
            for path in (*files[:-_KEPT], *parts[:-_KEPT]):
                path.unlink()
