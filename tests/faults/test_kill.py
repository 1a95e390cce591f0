"""kill -9 of all processes of a job, or of any one, again and again: the next start works at once, and nothing is left behind.

``KILL_ROUNDS=100 pytest tests/faults/test_kill.py`` for more rounds than the suite has time for.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from streaming import MDSWriter

# A rank with two workers: walks an epoch, and lingers in the middle of it if so told.
RANK = """
import sys
from streaming import StreamingDataLoader, StreamingDataset, World
remote, local, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dataset = StreamingDataset(
    remote=remote, local=local, batch_size=8, shuffle=True, world=World(rank=rank, num_ranks=2, ranks_per_node=2)
)
loader = StreamingDataLoader(dataset, batch_size=8, num_workers=2)
seen = []
batches = iter(loader)
print('begun', flush=True)  # in the epoch: killed while multiprocessing makes its locks, the C library would leave their files
for number, batch in enumerate(batches):
    seen += batch['id'].tolist()
    if number == 20 and sys.argv[4] == 'linger':
        sys.stdin.read()
print('seen', *seen, flush=True)
"""

ROUNDS = int(os.environ.get('KILL_ROUNDS', '8'))
SAMPLES = 1000


def processes_of_session(session: int) -> set[int]:
    found = set()
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    found.add(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def mapped_names() -> set[str]:
    """Names in /dev/shm that a living process has mapped."""
    names: set[str] = set()
    for maps in Path('/proc').glob('[0-9]*/maps'):
        with suppress(OSError):  # it ended, or is another user's
            names.update(line.partition('/dev/shm/')[2] for line in maps.read_text().splitlines() if '/dev/shm/' in line)
    return names


def start(remote: Path, local: Path, temporary: Path, rank: int, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-c', RANK, str(remote), str(local), str(rank), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'TMPDIR': str(temporary)},
        start_new_session=True,
    )


def kill_all(ranks: list[subprocess.Popen[str]]) -> set[int]:
    """Kill each rank and its workers, and return their pids: each rank is a session of its own."""
    killed = set()
    for process in ranks:
        for pid in processes_of_session(process.pid):
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    for process in ranks:
        process.communicate(timeout=60)
    return killed


def remove_interrupted_tensors(pids: set[int]) -> None:
    """Remove the files of tensors that a worker was killed at making.

    torch makes a file in /dev/shm for each tensor that a worker sends, gives it its size and takes its name away. A process
    that is killed in these microseconds leaves the file. Nobody but torch could change that; it must not be more than that.
    """
    for path in Path('/dev/shm').glob('torch_*'):
        if int(path.name.split('_')[1]) in pids:
            assert path.stat().st_size <= 1 << 16, path
            path.unlink()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The ranks' folder for temporary files: of their own, and with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix='kill-') as folder:
        yield Path(folder)


class Survivors:
    """What is left of jobs of which one process was killed: they end by themselves while the next job runs."""

    def __init__(self) -> None:
        self._jobs: list[tuple[list[subprocess.Popen[str]], int]] = []

    def add(self, ranks: list[subprocess.Popen[str]], victim: int) -> None:
        """Let the ranks go on that linger, now that one process of theirs is dead."""
        for process in ranks:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdin = None
        self._jobs.append((ranks, victim))

    def check(self) -> None:
        """A rank that lost nothing has finished its epoch, the one that lost something has failed, and no worker outlives it."""
        for ranks, victim in self._jobs:
            for process in ranks:
                output, _ = process.communicate(timeout=90)
                if process.returncode == 0:
                    assert len(output.splitlines()[-1].split()) == 1 + SAMPLES // 2
            assert sum(process.returncode == 0 for process in ranks) >= 1, 'one process was killed, and both ranks failed'
            deadline = time.monotonic() + 30
            while any(processes_of_session(process.pid) for process in ranks) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(processes_of_session(process.pid) for process in ranks), 'workers outlive their rank'
            remove_interrupted_tensors({victim})
        self._jobs.clear()


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * ROUNDS)
@pytest.mark.skipif(not Path('/proc').is_dir(), reason='finds the processes to kill in /proc')
def test_kill_and_start_again_at_once(tmp_path: Path, temporary: Path) -> None:
    remote, local = tmp_path / 'remote', tmp_path / 'cache'
    with MDSWriter(
        out=str(remote), columns={'id': 'int', 'data': 'bytes'}, compression='zstd', hashes=['xxh64'], size_limit='64kb'
    ) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'data': random.Random(number).randbytes(1000)})

    def litter() -> tuple[set[str], set[str]]:
        """What is in shared memory since the start, and in the ranks' own folder for temporary files."""
        # What other programs of the machine have there, they have mapped; a name may be seen a moment before it is.
        deadline = time.monotonic() + 10
        while (shared := names() - shared_before - mapped_names()) and time.monotonic() < deadline:
            time.sleep(0.05)
        # torch makes ten of the name tmp... when a worker fails, to see whether there are descriptors left.
        return shared, {name for name in os.listdir(temporary) if not re.fullmatch(r'tmp\w{8}', name)}

    def names() -> set[str]:
        """Those that forked ranks can have made: not mosaicml-streaming's, nor the semaphores of spawned processes."""
        return {name for name in os.listdir('/dev/shm') if not re.match(r'\d{6}_|sem\.mp-', name)}

    shared_before = names()
    leftovers = []
    survivors = Survivors()
    for attempt in range(ROUNDS):
        draw = random.Random(attempt)
        # Most rounds go on with what the round before had fetched; some begin with nothing.
        if attempt % 5 == 0:
            survivors.check()
            shutil.rmtree(local, ignore_errors=True)
        ranks = [start(remote, local, temporary, rank, 'linger') for rank in range(2)]
        survivors.check()
        said = [process.stdout.readline() for process in ranks if process.stdout is not None]
        assert said == ['begun\n'] * 2
        # Anywhere between the first fetch and the middle of the epoch.
        time.sleep(draw.random() * 0.2)
        if draw.random() < 0.5:
            remove_interrupted_tensors(kill_all(ranks))
        else:
            victim = draw.choice(sorted(pid for process in ranks for pid in processes_of_session(process.pid)))
            os.kill(victim, signal.SIGKILL)
            survivors.add(ranks, victim)
        leftovers.append(sum(1 for path in (local / '.streaming').rglob('*') if path.is_file()))
    survivors.check()
    assert litter() == (set(), set())
    # The ledger, the source, and for each shard that a killed process was fetching a lock and a part.
    assert max(leftovers) <= 4 + 2 * 2 * 2 * 3 * 4, 'what killed fetches leave is written over, not added to'

    ranks = [start(remote, local, temporary, rank, 'finish') for rank in range(2)]
    seen: list[int] = []
    for process in ranks:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        seen += [int(word) for word in output.splitlines()[-1].split()[1:]]
    assert set(seen) == set(range(SAMPLES))
    assert len(seen) <= SAMPLES + 2
    assert not any(processes_of_session(process.pid) for process in ranks), 'workers outlive their rank'
    assert litter() == (set(), set())
    parts = [path.name for path in (local / '.streaming').rglob('*') if path.is_file()]
    assert sorted(parts) == ['ledger', 'source.json'], 'a whole epoch leaves nothing of the killed fetches'
