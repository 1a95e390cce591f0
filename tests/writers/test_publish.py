"""What reaches the store, in which order, and what becomes of a writer whose store fails."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streaming import LocalDataset, MDSWriter
from streaming.errors import (
    AlreadyExistsError,
    ArgumentError,
    CancelledError,
    CorruptError,
    DeniedError,
    StoreError,
    StreamingError,
    UnavailableError,
)
from streaming.format.compression import Codec, register_codec
from streaming.store.local import LocalStore
from streaming.store.memory import MemoryStore
from streaming.store.protocol import ObjectInfo, Store
from streaming.store.wrapper import WrapperStore
from streaming.testing.wrappers import Fault, FaultyStore

COLUMNS = {'x': 'int'}
# 24 samples a shard
OPTIONS: dict[str, Any] = {'columns': COLUMNS, 'size_limit': 460}
Serve = Callable[[Store], str]


def write_until_it_fails(writer: MDSWriter, most: int) -> int:
    for x in range(most):
        try:
            writer.write({'x': x})
        except StreamingError:
            return x
    return most


class GatedStore(WrapperStore):
    """Puts nothing until it is told to, or closed."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.begun_count = 0
        self.closed = False

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        self.begun_count += 1
        self.begun.release()
        assert self.gate.wait(100)
        if self.closed:
            raise CancelledError(f'{key}: closed')
        return self.inner.put(key, source, overwrite=overwrite)

    def close(self) -> None:
        self.closed = True
        self.gate.set()


def test_the_index_is_put_last_and_once(serve: Serve) -> None:
    store = FaultyStore(MemoryStore())
    with MDSWriter(out=serve(store), max_workers=4, **OPTIONS) as writer:
        for x in range(200):
            writer.write({'x': x})
    puts = [key for operation, key in store.calls if operation == 'put']
    assert sorted(puts[:-1]) == [f'shard.{number:05}.mds' for number in range(len(puts) - 1)]
    assert puts[-1] == 'index.json'
    assert len(puts) > 9


def test_passing_failures_are_tried_again(serve: Serve) -> None:
    store = FaultyStore(
        MemoryStore(), Fault('put', times=3), Fault('put', 'index.json', times=1), Fault('put', after_effect=True)
    )
    with MDSWriter(out=serve(store), exist_ok='append', **OPTIONS) as writer:
        for x in range(200):
            writer.write({'x': x})
    index = store.get('index.json')
    assert index.count(b'"samples": 24') == 8


@pytest.mark.parametrize('key', [r'shard\.0000[2-9].*', r'shard\.00007.*', r'index\.json'])
@pytest.mark.parametrize('workers', [1, 4])
def test_a_failure_ends_the_writer(serve: Serve, key: str, workers: int) -> None:
    store = FaultyStore(MemoryStore(), Fault('put', key, DeniedError, times=None))
    raises = pytest.raises(DeniedError, match=r'could not be .*no dataset at mem://.*failed on purpose')
    with raises as caught, MDSWriter(out=serve(store), max_workers=workers, compression='zstd', **OPTIONS) as writer:
        for x in range(200):
            writer.write({'x': x})
    assert isinstance(caught.value.__cause__, DeniedError)
    keys = {info.key for info in store.list()}
    assert 'index.json' not in keys
    # What was put is gone again, unless an index that may have arrived names it.
    assert bool(keys) == key.startswith('index')
    for use in (lambda: writer.write({'x': 1}), writer.finish):
        with pytest.raises(DeniedError, match='could not be'):
            use()


def test_a_failure_is_raised_by_the_next_write(serve: Serve) -> None:
    store = GatedStore(FaultyStore(MemoryStore(), Fault('put', error=DeniedError)))
    writer = MDSWriter(out=serve(store), max_workers=1, **OPTIONS)
    for x in range(30):
        writer.write({'x': x})
    assert store.begun.acquire(timeout=60)
    assert not any('part' in thread.name for thread in threading.enumerate())
    stopped = threading.Event()
    stop, writer._publisher._on_failure = writer._publisher._on_failure, lambda: (stop(), stopped.set())  # type: ignore[func-returns-value,assignment]
    store.gate.set()
    assert stopped.wait(60)
    with pytest.raises(DeniedError, match='shard 0 could not be published'):
        writer.write({'x': 30})
    assert list(store.list()) == []


def test_writing_waits_for_a_slow_store(serve: Serve) -> None:
    store = GatedStore(MemoryStore())
    writer = MDSWriter(out=serve(store), max_workers=2, **OPTIONS)
    written = 0

    def write() -> None:
        nonlocal written
        for x in range(400):
            writer.write({'x': x})
            written += 1
        writer.finish()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(2):
            assert store.begun.acquire(timeout=60)
        deadline = time.monotonic() + 60
        while written < 4 * 24 and time.monotonic() < deadline:
            thread.join(0.01)
        thread.join(0.3)
        # Two being put, one in line, one that is full and waits for its place.
        assert store.begun_count == 2
        assert written == 4 * 24
    finally:
        store.gate.set()
        thread.join(60)
    assert not thread.is_alive()
    assert written == 400
    assert len(list(store.list())) == -(-400 // 24) + 1


@pytest.mark.parametrize('how', ['a failure', 'an error in the block'])
def test_giving_up_does_not_wait_for_further_tries(serve: Serve, how: str) -> None:
    """Seven shards of nine wait for another try, for minutes."""
    faults = [Fault('put', r'shard\.0000[0-6].*', times=None)]
    if how == 'a failure':
        faults.append(Fault('put', r'shard\.00007.*', DeniedError))
    store = FaultyStore(MemoryStore(), *faults)
    raises: Any = pytest.raises(DeniedError) if how == 'a failure' else pytest.raises(KeyError)
    with raises, MDSWriter(out=serve(store), max_workers=8, retry=10_000, **OPTIONS) as writer:
        for x in range(200):
            writer.write({'x': x})
        if how != 'a failure':
            raise KeyError
    assert list(store.list()) == []


def test_an_interrupt_ends_the_writer(serve: Serve) -> None:
    store = GatedStore(MemoryStore())
    main = threading.get_ident()
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), MDSWriter(out=serve(store), max_workers=1, **OPTIONS) as writer:
        timer.start()
        for x in range(1000):
            writer.write({'x': x})
    timer.join()
    with pytest.raises(ArgumentError, match='given up'):
        writer.finish()
    assert list(store.list()) == []


class ShortStore(WrapperStore):
    """Acknowledges less than it was given."""

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        info = self.inner.put(key, source, overwrite=overwrite)
        return ObjectInfo(key, info.size - 1, info.etag)


def test_an_acknowledgement_of_fewer_bytes_is_a_failure(serve: Serve) -> None:
    with (
        pytest.raises(StoreError, match='bytes were put, the store has'),
        MDSWriter(out=serve(ShortStore(MemoryStore())), **OPTIONS) as w,
    ):
        w.write({'x': 1})


@pytest.mark.parametrize('mode', [True, 'append', False])
@pytest.mark.parametrize('operation', ['get', 'head', 'list', 'delete'])
def test_a_store_that_cannot_say_what_is_there(serve: Serve, operation: str, mode: Any) -> None:
    inner = MemoryStore()
    with MDSWriter(out=serve(inner), **OPTIONS) as writer:
        writer.write({'x': 1})
    before = {info.key: inner.get(info.key) for info in inner.list()}
    store = FaultyStore(inner, Fault(operation, error=DeniedError))
    try:
        MDSWriter(out=serve(store), exist_ok=mode, **OPTIONS)._abort()
    except (DeniedError, AlreadyExistsError):
        assert {info.key: inner.get(info.key) for info in inner.list()} == before
    else:
        assert operation not in [name for name, _ in store.calls]


def test_what_cannot_be_deleted_stays(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    inner = MemoryStore()
    with MDSWriter(out=serve(inner), **OPTIONS) as writer:
        for x in range(100):
            writer.write({'x': x})
    store = FaultyStore(inner, Fault('delete', r'shard.*', DeniedError, times=None))
    with MDSWriter(out=serve(store), exist_ok=True, **OPTIONS) as writer:
        writer.write({'x': 1})
    assert 'left in mem://' in caplog.text
    assert b'"samples": 1,' in inner.get('index.json')


class BrokenCodec(Codec):
    name = 'broken'

    def compress(self, data: bytes | memoryview) -> bytes:
        if data:
            raise MemoryError('no memory left')
        return b''

    def decompressor(self, size: int) -> Any:
        raise NotImplementedError


def test_errors_that_are_not_ours(tmp_path: Path) -> None:
    register_codec(BrokenCodec)
    with (
        pytest.raises(StreamingError, match=r'shard 0 .*no memory left') as caught,
        MDSWriter(out=tmp_path, compression='broken', **OPTIONS) as writer,
    ):
        writer.write({'x': 1})
    assert isinstance(caught.value.__cause__, MemoryError)
    assert list(tmp_path.iterdir()) == []


def test_remote_and_copy_fail_alike(tmp_path: Path, serve: Serve) -> None:
    store = FaultyStore(LocalStore(tmp_path / 'remote'), Fault('put', r'shard\.00003.*', CorruptError, times=None))
    with pytest.raises(CorruptError), MDSWriter(out=(tmp_path / 'copy', serve(store)), keep_local=True, **OPTIONS) as writer:
        for x in range(500):
            writer.write({'x': x})
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]
    store.faults.clear()
    with MDSWriter(out=(tmp_path / 'copy', serve(store)), keep_local=True, **OPTIONS) as writer:
        for x in range(500):
            writer.write({'x': x})
    assert [sample['x'] for sample in LocalDataset(tmp_path / 'copy')] == list(range(500))


def test_an_outage_is_an_error_in_the_end(serve: Serve) -> None:
    store = FaultyStore(MemoryStore(), Fault('put', error=UnavailableError, times=None))
    with pytest.raises(UnavailableError, match='gave up after'), MDSWriter(out=serve(store), max_workers=1, **OPTIONS) as writer:
        assert write_until_it_fails(writer, 10) == 10
    assert list(store.list()) == []
