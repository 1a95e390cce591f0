"""What several tests of caches need."""

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest


def bytes_in(folder: Path) -> int:
    """What lies in a folder, files that are growing too, each once: some are renamed while we look."""
    sizes: dict[int, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(place, name))
                sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


class Watch:
    """Looks at a cache folder all the time.

    While nothing is deleted, which takes the lock on the hidden folder: a listing takes time, and what it has counted could be
    replaced by what it still comes to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._end = threading.Event()
        self.most = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        gate = os.open(self._folder / '.streaming', os.O_RDONLY)
        while not self._end.wait(0.001):
            fcntl.flock(gate, fcntl.LOCK_EX)
            self.most = max(self.most, bytes_in(self._folder))
            fcntl.flock(gate, fcntl.LOCK_UN)
        os.close(gate)

    def __enter__(self) -> 'Watch':
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def watch() -> type[Watch]:
    """Given a cache folder, a context manager whose ``most`` is the most that it held."""
    return Watch
