"""How much memory processes hold, as Linux tells; elsewhere 0. Pages of mapped files count as long as they are in use."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ['children', 'peak_mb', 'private_mb', 'reset_peak', 'rss_mb', 'take']


def _field(name: str, pid: int | str) -> float:
    try:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    except OSError:
        return 0.0
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith(name + ':')), 0.0)


def rss_mb(pid: int | str = 'self') -> float:
    """Resident memory in MiB."""
    return _field('VmRSS', pid)


def peak_mb(pid: int | str = 'self') -> float:
    """The most resident memory in MiB since `reset_peak`, or since the process began."""
    return _field('VmHWM', pid)


def private_mb(pid: int | str = 'self') -> float:
    """Resident memory in MiB that no file stands behind: what cannot be dropped."""
    return _field('RssAnon', pid)


def reset_peak() -> float:
    """Let the peak begin here; say how much memory in MiB there is now."""
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')
    return rss_mb()


def take(folder: str | Path, size: int) -> None:
    """Have memory for so many bytes of files in a folder.

    What nothing uses for a second goes back to the host of a virtual machine, and the first to need it again waits for it: up to
    2 ns a byte, more than any of the contenders takes for one.
    """
    zeros = bytes(1 << 23)
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(0, size, len(zeros)):
            file.write(zeros)


def children() -> list[int]:
    """The processes that this one started and that still run."""
    found: list[int] = []
    for task in Path('/proc/self/task').glob('*/children'):
        try:
            found += [int(pid) for pid in task.read_text().split()]
        except OSError:
            continue
    return found
