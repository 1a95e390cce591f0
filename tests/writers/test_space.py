"""What a writer takes while its store is slow: a few shards of memory, and no disk but what it was told to keep."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streaming import LocalDataset, MDSWriter
from streaming.errors import StreamingError
from streaming.store.local import LocalStore
from streaming.store.protocol import ObjectInfo, Store
from streaming.store.wrapper import WrapperStore
from streaming.testing.wrappers import Fault, FaultyStore
from streaming.writers.buffer import ShardBuffer

SHARDS = 60
SHARD_BYTES = 1 << 14
Serve = Callable[[Store], str]


def disk_bytes(*folders: Path) -> int:
    """Bytes of all files in folders, and of those that this process has open there though they have no name any more."""
    sizes = [path.stat().st_size for folder in folders for path in folder.rglob('*') if path.is_file()]
    for number in os.listdir('/proc/self/fd'):
        try:
            name = os.readlink(f'/proc/self/fd/{number}')
            if name.endswith(' (deleted)') and any(name.startswith(f'{folder}/') for folder in folders):
                sizes.append(os.stat(f'/proc/self/fd/{number}').st_size)
        except FileNotFoundError:
            continue  # it was closed since the listing
    return sum(sizes)


class SlowStore(WrapperStore):
    """Takes its time, and looks around at the beginning and the end of each put."""

    def __init__(self, inner: Store, look: Callable[[], None]) -> None:
        super().__init__(inner)
        self.look = look
        self.stored = 0

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        self.look()
        time.sleep(0.005)
        self.look()
        info = self.inner.put(key, source, overwrite=overwrite)
        self.stored += 1
        return info


class Watch:
    """The most that a writer took at any put."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.local, self.temporary, self.remote = tmp_path / 'local', tmp_path / 'temporary', tmp_path / 'remote'
        self.temporary.mkdir()
        monkeypatch.setenv('TMPDIR', str(self.temporary))
        monkeypatch.setattr(tempfile, 'tempdir', None)
        self.store = SlowStore(LocalStore(self.remote), self.look)
        self.begun = self.most_disk = self.most_ahead = self.buffers = 0
        make = ShardBuffer.__init__

        def count(buffer: ShardBuffer, capacity: int) -> None:
            self.buffers += 1
            make(buffer, capacity)

        monkeypatch.setattr(ShardBuffer, '__init__', count)

    def look(self) -> None:
        self.most_disk = max(self.most_disk, disk_bytes(self.local, self.temporary))
        self.most_ahead = max(self.most_ahead, self.begun - self.store.stored)

    def write(self, writer: MDSWriter, shards: int) -> None:
        """Write shards of four samples."""
        with writer:
            for number in range(4 * shards):
                self.begun = number // 4
                writer.write({'x': number.to_bytes(2, 'little') + os.urandom(SHARD_BYTES // 4 - 256)})


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(tmp_path, monkeypatch)


@pytest.mark.parametrize('workers', [1, 4])
@pytest.mark.parametrize('compression', [None, 'zstd'])
@pytest.mark.parametrize('out', ['remote', 'local and remote'])
def test_sixty_shards_to_a_slow_store(watch: Watch, serve: Serve, out: str, compression: str | None, workers: int) -> None:
    url = serve(watch.store)
    place: Any = url if out == 'remote' else (watch.local, url)
    options: dict[str, Any] = {'size_limit': SHARD_BYTES, 'max_workers': workers, 'compression': compression}
    watch.write(MDSWriter(out=place, columns={'x': 'bytes'}, **options), SHARDS)
    assert len(list(watch.remote.glob('shard.*'))) == SHARDS
    assert watch.most_disk == 0
    # Those on their way, one that waits for a place, one that is filled.
    assert watch.most_ahead <= workers + 2
    assert watch.buffers <= workers + 2
    assert disk_bytes(watch.local, watch.temporary) == 0


def test_what_is_kept_is_not_there_twice(watch: Watch, serve: Serve) -> None:
    options: dict[str, Any] = {'size_limit': SHARD_BYTES, 'max_workers': 2, 'compression': 'zstd', 'keep_local': True}
    watch.write(MDSWriter(out=(watch.local, serve(watch.store)), columns={'x': 'bytes'}, **options), SHARDS)
    kept = disk_bytes(watch.local)
    assert len(LocalDataset(watch.local)) == 4 * SHARDS
    assert watch.most_disk <= kept
    assert kept == disk_bytes(watch.remote)
    assert disk_bytes(watch.temporary) == 0


def test_a_store_that_stands_still_stops_the_writer(watch: Watch, serve: Serve) -> None:
    """Until it goes on, no more is taken; and a failure leaves nothing."""
    goes_on = threading.Event()
    broken = FaultyStore(watch.store.inner, Fault('put', r'shard\.00009.*', StreamingError, times=None))

    class StandsStill(WrapperStore):
        def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
            assert goes_on.wait(30)
            return self.inner.put(key, source, overwrite=overwrite)

    writer = MDSWriter(
        out=(watch.local, serve(StandsStill(broken))), columns={'x': 'bytes'}, size_limit=SHARD_BYTES, max_workers=2
    )
    errors: list[BaseException] = []

    def write() -> None:
        try:
            watch.write(writer, SHARDS)
        except StreamingError as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join(0.3)
    # Nothing is stored, so it would have ended by now only if it did not wait.
    assert thread.is_alive()
    assert watch.begun <= 2 + 2
    watch.look()
    goes_on.set()
    thread.join(30)
    assert 'on purpose' in str(errors[0])
    assert watch.most_disk == 0
    assert disk_bytes(watch.local, watch.temporary, watch.remote) == 0
