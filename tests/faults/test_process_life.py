"""However processes begin and end: no thread, descriptor, process or file stays, and nobody waits for a server that is silent."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming import MDSWriter, Stream, StreamingDataLoader, StreamingDataset, World
from streaming.store import open_store
from streaming.testing.oci import OCIServer
from streaming.testing.wrappers import LatencyStore

BATCH = 8
SAMPLES = 400
COLUMNS = {'id': 'int', 'data': 'bytes'}


def write(out: str) -> None:
    with MDSWriter(out=out, columns=COLUMNS, compression='zstd', hashes=['xxh64'], size_limit=20_000) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'data': bytes([number % 251]) * 500})


@pytest.fixture(scope='module')
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('life') / 'remote'
    write(str(folder))
    return folder


def make(remote: Path, local: Path, **options: Any) -> StreamingDataset:
    """Over a store so slow that threads are at work whenever the iterator is left."""
    store = LatencyStore(open_store(str(remote)), latency_s=0.01, bytes_per_s=1e6)
    options = {'world': World(), 'batch_size': BATCH, **options}
    return StreamingDataset(streams=[Stream(store=store, local=str(local))], **options)


def descriptors() -> int:
    gc.collect()
    return len(os.listdir('/proc/self/fd')) if Path('/proc/self/fd').is_dir() else 0


def litter(local: Path, grace_s: float = 10) -> list[str]:
    """What fetches have left; those that are just being given up may need a moment."""
    deadline = time.monotonic() + grace_s
    while (found := sorted(path.name for path in local.glob('.streaming/fetching/*'))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(('method', 'persistent'), [('fork', True), ('spawn', False), ('forkserver', True)])
def test_workers_however_they_start(remote: Path, tmp_path: Path, method: str, persistent: bool) -> None:
    dataset = make(remote, tmp_path, shuffle=True)
    loader = StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=2, multiprocessing_context=method, persistent_workers=persistent
    )
    epochs = []
    for stop in (SAMPLES, 3, SAMPLES):
        seen: list[int] = []
        for batch in loader:
            seen += batch['id'].tolist()
            if len(seen) >= stop * BATCH:
                break
        epochs.append(seen)
    assert sorted(epochs[0]) == sorted(epochs[2]) == list(range(SAMPLES))
    assert len(epochs[1]) == 3 * BATCH
    assert epochs[0] != epochs[2]
    del loader
    assert litter(tmp_path) == []


@pytest.mark.parametrize('workers', [0, 2])
def test_leaving_early_again_and_again(remote: Path, tmp_path: Path, workers: int) -> None:
    dataset = make(remote, tmp_path)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)
    next(iter(loader))
    before = descriptors()
    for _ in range(4):
        for number, _ in enumerate(loader):
            if number == 3:
                break
    assert descriptors() <= before + 2
    assert sorted(number for batch in loader for number in batch['id'].tolist()) == list(range(SAMPLES))
    assert litter(tmp_path) == []


def test_two_iterators_are_two_epochs(remote: Path, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path, shuffle=True)
    first, second = iter(dataset), iter(dataset)
    pairs = list(zip(first, second, strict=True))
    epochs = [[sample['id'] for sample in epoch] for epoch in zip(*pairs, strict=True)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(SAMPLES))] * 2
    again = make(remote, tmp_path, shuffle=True)
    assert [[sample['id'] for sample in again] for _ in range(2)] == epochs


def test_a_dataset_deleted_while_its_threads_run(remote: Path, tmp_path: Path) -> None:
    before = descriptors()
    for _ in range(3):
        dataset = make(remote, tmp_path)
        samples = iter(dataset)
        next(samples)
        del dataset, samples
        gc.collect()
    assert litter(tmp_path) == []
    assert descriptors() <= before + 2


SCRIPT = """
import sys
from streaming import StreamingDataLoader, StreamingDataset
if __name__ == '__main__':
    remote, local, workers, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    dataset = StreamingDataset(remote=remote, local=local, batch_size=8, download_timeout=60)
    loader = StreamingDataLoader(dataset, batch_size=8, num_workers=workers)
    batches = iter(loader)
    next(batches)
    print('begun', flush=True)
    if mode == 'exit':
        sys.exit(3)
    if mode == 'raise':
        raise RuntimeError('on purpose')
    if mode == 'wait':
        for batch in batches:
            pass
"""


ORPHANS = """
import os, signal, sys, time
from streaming import StreamingDataLoader, StreamingDataset
def linger(worker):
    time.sleep(1)  # the parent is gone before torch has looked who it is
if __name__ == '__main__':
    dataset = StreamingDataset(remote=sys.argv[1], local=sys.argv[2], batch_size=8)
    loader = StreamingDataLoader(dataset, batch_size=8, num_workers=3, worker_init_fn=linger)
    batches = iter(loader)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_their_rank_however_early(remote: Path, tmp_path: Path) -> None:
    command = [sys.executable, '-c', ORPHANS, str(remote), str(tmp_path / 'cache')]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    assert process.wait(60) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while in_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not in_session(process.pid)


@pytest.fixture(scope='module')
def server() -> Iterator[OCIServer]:
    with OCIServer(buckets=['data']) as server:
        write(server.url('data/set'))
        # All but the first shard: headers never come.
        server.add_fault(kind='stall', path=r'shard\.(?!00000)', seconds=600, times=None)
        yield server


def in_session(session: int) -> set[int]:
    found = set()
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            if os.getsid(int(entry.name)) == session:
                found.add(int(entry.name))
        except ProcessLookupError:
            continue
    return found


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(('mode', 'code'), [('end', 0), ('exit', 3), ('raise', 1), ('wait', -signal.SIGINT)])
def test_the_interpreter_ends_in_the_middle(server: OCIServer, tmp_path: Path, workers: int, mode: str, code: int) -> None:
    command = [sys.executable, '-c', SCRIPT, server.url('data/set'), str(tmp_path), str(workers), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == 'begun\n'
    began = time.monotonic()
    if mode == 'wait':
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, complaints = process.communicate(timeout=100)
    assert time.monotonic() - began < 50, 'the server is silent for ten minutes; nobody waits for it'
    assert process.returncode == code
    assert 'Fatal Python error' not in complaints
    if mode in ('end', 'exit'):
        assert complaints == ''
    assert not in_session(process.pid)
    if workers:
        # torch ends these workers by a signal. What they were fetching is written over by whoever fetches it next.
        assert all(name.endswith(('.lock', '.part')) for name in litter(tmp_path, 0))
    else:
        assert litter(tmp_path) == []
