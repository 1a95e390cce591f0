"""kill -9 of every process of a job, again and again: the next start works, and nothing is left behind."""

import os
import random
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

ROUNDS = 20
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
        process.communicate(timeout=10)
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


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path('/proc').is_dir(), reason='finds the processes to kill in /proc')
def test_kill_all_ranks_and_start_again(tmp_path: Path, temporary: Path) -> None:
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
        while (shared := set(os.listdir('/dev/shm')) - shared_before - mapped_names()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return shared, set(os.listdir(temporary))

    shared_before = set(os.listdir('/dev/shm'))
    leftovers = []
    for attempt in range(ROUNDS):
        # Most rounds go on with what the round before had fetched; some begin with nothing.
        if attempt % 5 == 0:
            shutil.rmtree(local, ignore_errors=True)
        ranks = [start(remote, local, temporary, rank, 'linger') for rank in range(2)]
        said = [process.stdout.readline() for process in ranks if process.stdout is not None]
        assert said == ['begun\n'] * 2
        # Anywhere between the first fetch and the middle of the epoch.
        time.sleep(random.Random(attempt).random() * 0.2)
        remove_interrupted_tensors(kill_all(ranks))
        leftovers.append(sum(1 for path in (local / '.streaming').rglob('*') if path.is_file()))
    assert litter() == (set(), set())
    # The ledger, the source, and for each shard that a killed process was fetching a lock and a part.
    assert max(leftovers) <= 2 + 2 * 2 * 3 * 4, 'what killed fetches leave is written over, not added to'

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
