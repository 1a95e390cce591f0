"""A full disk, a cache that cannot be written or disappears, clocks that jump: a clear error or recovery, and no wrong byte."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from streaming import MDSWriter, StreamingDataset, World
from streaming.errors import StreamingError

BATCH = 8
SAMPLES = 400


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    folder = tmp_path / 'remote'
    with MDSWriter(out=str(folder), columns={'id': 'int', 'data': 'bytes'}, hashes=['xxh64'], size_limit=200_000) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'data': bytes([number % 251]) * 10_000})
    return folder


def make(remote: Path, local: Path) -> StreamingDataset:
    return StreamingDataset(remote=str(remote), local=str(local), batch_size=BATCH, download_timeout=5, world=World())


def check(dataset: StreamingDataset) -> None:
    dataset.next_epoch = 0
    for number, sample in enumerate(dataset):
        assert (sample['id'], sample['data']) == (number, bytes([number % 251]) * 10_000)
    assert number == SAMPLES - 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB. The dataset has 4 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(folder)], capture_output=True).returncode:
        pytest.skip('this user may not mount a tmpfs')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_a_disk_that_fills_up(remote: Path, small_disk: Path) -> None:
    dataset = make(remote, small_disk / 'cache')
    for _ in range(2):
        dataset.next_epoch = 0
        with pytest.raises((OSError, StreamingError), match=r'No space left.*cache_limit') as error:
            check(dataset)
        assert str(small_disk) in str(error.value)
    del error
    # What is there is right, and once there is room it goes on.
    for path in (small_disk / 'cache').glob('shard.*'):
        assert path.read_bytes() == (remote / path.name).read_bytes()
    subprocess.run(['mount', '-o', 'remount,size=16m', str(small_disk)], check=True)
    check(dataset)
    dataset._shards.close()


def test_a_disk_that_fills_up_is_no_matter_with_a_limit(remote: Path, small_disk: Path) -> None:
    dataset = StreamingDataset(
        remote=str(remote), local=str(small_disk / 'cache'), batch_size=BATCH, cache_limit='1500kb', world=World()
    )
    check(dataset)
    dataset._shards.close()


FILE_SIZE = """
import resource, signal, sys
from streaming import StreamingDataset
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
dataset = StreamingDataset(remote=sys.argv[1], local=sys.argv[2], batch_size=8)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    next(iter(dataset))
except OSError as error:
    print(error)
"""


def test_files_that_may_not_grow(remote: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, '-c', FILE_SIZE, str(remote), str(tmp_path / 'cache')],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'},
    )
    assert 'File too large' in found.stdout, found.stderr
    assert 'shard.00000.mds' in found.stdout
    assert not [path for path in (tmp_path / 'cache').glob('shard.*') if path.stat().st_size > 100_000]
    check(make(remote, tmp_path / 'cache'))


@pytest.fixture
def read_only(remote: Path, tmp_path: Path) -> Iterator[Path]:
    """A half-filled cache on a file system that is mounted read-only: permission bits do not bind a superuser."""
    folder = tmp_path / 'mounted'
    dataset = make(remote, folder / 'cache')
    next(iter(dataset))
    dataset._shards.close()
    for command in (['mount', '--bind', str(folder), str(folder)], ['mount', '-o', 'remount,bind,ro', str(folder)]):
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip('this user may not mount')
    yield folder / 'cache'
    subprocess.run(['umount', str(folder)], check=True)


def test_a_cache_that_cannot_be_written(remote: Path, read_only: Path) -> None:
    with pytest.raises(OSError, match=r'Read-only file system') as error:
        check(make(remote, read_only))
    assert str(read_only) in str(error.value)


# Dropped from what the interpreter may get, so that permission bits bind a superuser too: CAP_DAC_OVERRIDE, by prctl(2).
PERMISSION = """
import ctypes, os, sys
if os.geteuid() == 0 and sys.argv[3:] != ['bound']:
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0
    os.execv(sys.executable, [sys.executable, '-c', os.environ['SCRIPT'], *sys.argv[1:3], 'bound'])
from streaming import StreamingDataset, World
try:
    next(iter(StreamingDataset(remote=sys.argv[1], local=sys.argv[2], batch_size=8, world=World())))
except PermissionError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='drops a capability of Linux')
def test_a_cache_without_permission(remote: Path, tmp_path: Path) -> None:
    local = tmp_path / 'cache'
    local.mkdir(mode=0o500)
    found = subprocess.run(
        [sys.executable, '-c', PERMISSION, str(remote), str(local)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1', 'SCRIPT': PERMISSION},
    )
    assert f"Permission denied: '{local}" in found.stdout, found.stderr


@pytest.mark.parametrize('when', ['before the first sample', 'in mid-epoch', 'between epochs'])
def test_a_cache_folder_that_disappears(remote: Path, tmp_path: Path, when: str) -> None:
    local = tmp_path / 'cache'
    dataset = make(remote, local)
    if when == 'before the first sample':
        shutil.rmtree(local)
    elif when == 'between epochs':
        check(dataset)
        shutil.rmtree(local)
    dataset.next_epoch = 0
    seen = []
    for number, sample in enumerate(dataset):
        if when == 'in mid-epoch' and number in (50, 200):
            shutil.rmtree(local, ignore_errors=True)
        assert sample['data'] == bytes([sample['id'] % 251]) * 10_000
        seen.append(sample['id'])
    assert seen == list(range(SAMPLES))


def test_clocks_that_jump(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines go by the monotonic clock, and times of files are only held against each other."""
    import time

    real = time.time
    jumps = iter([86400.0, -86400.0, 0.0, 3e8, -3e8] * 100_000)
    monkeypatch.setattr(time, 'time', lambda: real() + next(jumps))
    local = tmp_path / 'cache'
    dataset = make(remote, local)
    samples = iter(dataset)
    next(samples)
    for path in local.rglob('*'):
        with suppress(FileNotFoundError):  # a fetch is done meanwhile
            os.utime(path, (0, 0) if path.name < 'shard.00005' else (4e9, 4e9))
    assert len(list(samples)) == SAMPLES - 1
    check(make(remote, local))
