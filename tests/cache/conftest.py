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
    """Looks at cache folders all the time.

    While nothing is deleted, which takes the locks on the hidden folders: a listing takes time, and what it has counted could be
    replaced by what it still comes to.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._end = threading.Event()
        self.most = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        gates = [os.open(folder / '.streaming', os.O_RDONLY) for folder in self._folders]
        while not self._end.wait(0.001):
            for gate in gates:
                fcntl.flock(gate, fcntl.LOCK_EX)
            self.most = max(self.most, sum(map(bytes_in, self._folders)))
            for gate in gates:
                fcntl.flock(gate, fcntl.LOCK_UN)
        for gate in gates:
            os.close(gate)

    def __enter__(self) -> 'Watch':
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def watch() -> type[Watch]:
    """Given cache folders, by path, a context manager whose ``most`` is the most that they held together."""
    return Watch
