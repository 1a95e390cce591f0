"""kill -9 of every process of a job, again and again: the next start works, and nothing is left behind."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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
print('begun', flush=True)
for number, batch in enumerate(loader):
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


def start(remote: Path, local: Path, rank: int, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-c', RANK, str(remote), str(local), str(rank), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_all(ranks: list[subprocess.Popen[str]]) -> None:
    """Kill each rank and its workers: each rank is a session of its own."""
    for process in ranks:
        for pid in processes_of_session(process.pid):
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
    for process in ranks:
        process.communicate(timeout=10)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path('/proc').is_dir(), reason='finds the processes to kill in /proc')
def test_kill_all_ranks_and_start_again(tmp_path: Path) -> None:
    remote, local = tmp_path / 'remote', tmp_path / 'cache'
    with MDSWriter(
        out=str(remote), columns={'id': 'int', 'data': 'bytes'}, compression='zstd', hashes=['xxh64'], size_limit='64kb'
    ) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'data': random.Random(number).randbytes(1000)})

    def litter() -> tuple[set[str], set[str]]:
        """What is in shared memory, and what multiprocessing, torch or we may put in the folder for temporary files."""
        names = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(('pymp-', 'torch', 'streaming', 'tmp'))}
        return set(os.listdir('/dev/shm')), names

    before = litter()
    leftovers = []
    for attempt in range(ROUNDS):
        # Most rounds go on with what the round before had fetched; some begin with nothing.
        if attempt % 5 == 0:
            shutil.rmtree(local, ignore_errors=True)
        ranks = [start(remote, local, rank, 'linger') for rank in range(2)]
        said = [process.stdout.readline() for process in ranks if process.stdout is not None]
        assert said == ['begun\n'] * 2
        # Anywhere between the first fetch and the middle of the epoch.
        time.sleep(random.Random(attempt).random() * 0.2)
        kill_all(ranks)
        leftovers.append(sum(1 for path in (local / '.streaming').rglob('*') if path.is_file()))
    assert litter() == before
    # The ledger, the source, and for each shard that a killed process was fetching a lock and a part.
    assert max(leftovers) <= 2 + 2 * 2 * 3 * 4, 'what killed fetches leave is written over, not added to'

    ranks = [start(remote, local, rank, 'finish') for rank in range(2)]
    seen: list[int] = []
    for process in ranks:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        seen += [int(word) for word in output.splitlines()[-1].split()[1:]]
    assert set(seen) == set(range(SAMPLES))
    assert len(seen) <= SAMPLES + 2
    assert not any(processes_of_session(process.pid) for process in ranks), 'workers outlive their rank'
    assert litter() == before
    parts = [path.name for path in (local / '.streaming').rglob('*') if path.is_file()]
    assert sorted(parts) == ['ledger', 'source.json'], 'a whole epoch leaves nothing of the killed fetches'
