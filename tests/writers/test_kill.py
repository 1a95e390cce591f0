"""Writers that are killed, and disks that are full."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming import LocalDataset, MDSWriter
from streaming.errors import AlreadyExistsError, NotFoundError, StoreError

# Puts a shard every few milliseconds and never ends by itself.
ENDLESS = textwrap.dedent("""
    import itertools, sys
    from streaming import MDSWriter
    exist_ok = {'True': True, 'False': False, 'append': 'append'}[sys.argv[2]]
    with MDSWriter(out=sys.argv[1], columns={'x': 'bytes'}, size_limit=1 << 16, exist_ok=exist_ok) as writer:
        for number in itertools.count():
            writer.write({'x': number.to_bytes(8, 'little') * 500})
""")


def write(out: Path, count: int, **options: Any) -> None:
    with MDSWriter(out=out, columns={'x': 'bytes'}, size_limit=1 << 16, **options) as writer:
        for number in range(count):
            writer.write({'x': number.to_bytes(8, 'little') * 500})


def read(folder: Path) -> list[int]:
    return [int.from_bytes(sample['x'][:8], 'little') for sample in LocalDataset(folder)]


def kill_amid_writing(out: Path, exist_ok: str, *, enough: int) -> None:
    """Kill a writer once it has put so many shards."""
    process = subprocess.Popen([sys.executable, '-c', ENDLESS, str(out), exist_ok])
    try:
        deadline = time.monotonic() + 60
        while len(list(out.glob('shard.*'))) < enough:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_killed_again_and_again(tmp_path: Path) -> None:
    for round_ in range(4):
        kill_amid_writing(tmp_path, 'True' if round_ else 'False', enough=10 * round_ + 5)
        assert not (tmp_path / 'index.json').exists()
        with pytest.raises(NotFoundError, match='not finished'):
            LocalDataset(tmp_path)
        with pytest.raises(AlreadyExistsError, match='did not finish'):
            write(tmp_path, 1)
    (tmp_path / f'.put-{"0" * 32}.tmp').write_bytes(b'what a kill amid a put leaves')
    write(tmp_path, 100, exist_ok=True)
    assert read(tmp_path) == list(range(100))
    index = {shard.raw_data.basename for shard in LocalDataset(tmp_path)._table}
    assert {path.name for path in tmp_path.iterdir()} == {'index.json', *index}


def test_killed_while_appending(tmp_path: Path) -> None:
    write(tmp_path, 50)
    for _ in range(2):
        kill_amid_writing(tmp_path, 'append', enough=len(list(tmp_path.iterdir())) + 5)
        assert read(tmp_path) == list(range(50))
    write(tmp_path, 20, exist_ok='append')
    assert read(tmp_path) == [*range(50), *range(20)]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    made = (
        os.geteuid() == 0
        and subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)], check=False, capture_output=True
        ).returncode
        == 0
    )
    if not made:
        pytest.skip('needs to mount a file system')
    yield folder
    subprocess.run(['umount', '--lazy', str(folder)], check=True)  # maps of shards may still be open


def test_a_full_disk(full_disk: Path) -> None:
    with pytest.raises(StoreError, match=r'shard \d+ could not be published.*No space left'):
        write(full_disk / 'data', 1000)
    assert not [path for path in full_disk.rglob('*') if path.is_file()]
    write(full_disk / 'data', 100)
    assert read(full_disk / 'data') == list(range(100))


def test_files_over_the_limit_of_the_process(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r'shard 0 could not be published.*File too large'):
            write(tmp_path, 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
