"""What every test is held to: it leaves no thread, no child process and nothing in shared memory behind."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# A thread that has been told to end may need a moment; one that needs more than this was not told.
GRACE_S = 5.0
SHM = Path('/dev/shm')

# Threads that libraries start once, on first use, and keep for the process.
KEPT_THREADS = ('pytest_timeout', 'execnet', 'tqdm', 'pydevd', 'asyncio_', 'Thread-MainEventLoop')


def threads() -> set[object]:
    return {thread for thread in threading.enumerate() if thread.is_alive() and not _kept(thread)}


def _kept(thread: threading.Thread) -> bool:
    return thread is threading.main_thread() or any(name in f'{thread.name} {type(thread).__name__}' for name in KEPT_THREADS)


def children() -> set[object]:
    """Child processes of this one, by pid and command; empty where /proc does not tell."""
    found: set[object] = set()
    for task in Path('/proc/self/task').glob('*/children'):
        try:
            pids = task.read_text().split()
        except OSError:  # the thread ended between the two
            continue
        for pid in pids:
            try:
                command = Path(f'/proc/{pid}/cmdline').read_bytes().replace(b'\0', b' ').decode(errors='replace').strip()
            except OSError:
                continue
            if 'resource_tracker' not in command and 'forkserver' not in command:  # multiprocessing keeps one of each
                found.add((int(pid), command))
    return found


def shared_memory() -> set[object]:
    """Names in /dev/shm that belong to this user; other programs of the machine come and go there under other names."""
    if not SHM.is_dir():
        return set()
    found: set[object] = set()
    for path in SHM.iterdir():
        try:
            if path.stat().st_uid == os.getuid() and _of_this_process(path.name):
                found.add(path.name)
        except FileNotFoundError:
            continue
    return found


def _of_this_process(name: str) -> bool:
    """Whether a test of this process can have made it: torch puts its pid into the name. Test processes run side by side."""
    if name.startswith('torch_'):
        return name.split('_')[1] in {str(os.getpid()), *(str(pid) for pid, _ in children())}  # type: ignore[misc]
    return not name.startswith(('sem.mp-', 'pym-'))


PROBES: dict[str, Callable[[], set[object]]] = {
    'threads': threads,
    'child processes': children,
    'names in /dev/shm': shared_memory,
}


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something running. What fixtures of a wider scope start is there before, so does not count."""
    for name in request.fixturenames:  # a module's server starts before the count, not within the first test that uses it
        if name != 'nothing_left_behind' and _is_wide(request, name):
            request.getfixturevalue(name)
    before = {what: probe() for what, probe in PROBES.items()}
    yield
    deadline = time.monotonic() + GRACE_S
    collected = False
    while True:
        left = {what: more for what, probe in PROBES.items() if (more := probe() - before[what])}
        if not left:
            return
        if not collected:
            # A DataLoader's iterator in a reference cycle (a failed test's traceback) still has its workers.
            gc.collect()
            collected = True
        if time.monotonic() > deadline:
            pytest.fail('left behind: ' + '; '.join(f'{what}: {sorted(map(str, more))}' for what, more in left.items()))
        time.sleep(0.02)


def _is_wide(request: pytest.FixtureRequest, name: str) -> bool:
    definitions = request._fixturemanager.getfixturedefs(name, request.node)
    return bool(definitions) and definitions[-1].scope != 'function'
