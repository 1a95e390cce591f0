"""The first batches by range: right, early, bounded in bytes, and never in the way of the shards themselves."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streaming import MDSWriter, Stream, StreamingDataset, World, early
from streaming.errors import CorruptError, UnavailableError
from streaming.store import open_store
from streaming.store.protocol import ObjectInfo, Store
from streaming.store.wrapper import WrapperStore

BATCH = 16  # of about 4 KB each, so that a batch in order is a small part of a shard
SAMPLES = 1950
SHARD_BYTES = 2 << 20


class GatedStore(WrapperStore):
    """Answers requests for whole shards only when the gate is open, and remembers the others."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.gate = threading.Event()
        self.ranges: list[tuple[str, int, int]] = []
        self.before_range: Callable[[str], None] = lambda key: None
        self.after_range: Callable[[str, int, memoryview], None] = lambda key, start, buffer: None

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        whole = len(buffer) == self.inner.head(key).size
        if whole:
            assert self.gate.wait(100)
        else:
            self.ranges.append((key, start, len(buffer)))
            self.before_range(key)
        info = self.inner.read_into(key, start, buffer, if_match=if_match, on_bytes=on_bytes)
        if not whole:
            self.after_range(key, start, buffer)
        return info


def write(folder: Path, compression: str | None = None, size_limit: int = SHARD_BYTES) -> None:
    rng = np.random.default_rng(0)
    with MDSWriter(
        out=str(folder), columns={'id': 'int', 'data': 'bytes'}, compression=compression, hashes=['xxh64'], size_limit=size_limit
    ) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'data': rng.bytes(int(rng.integers(2000, 6000)))})


@pytest.fixture(scope='module')
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('early') / 'remote'
    write(folder)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards here are 32 times smaller than those that reading by range is made for, so requests shall cost less, too."""
    monkeypatch.setattr('streaming.early._REQUEST_BYTES', early._REQUEST_BYTES // 32)
    monkeypatch.setattr('streaming.early._GAP_BYTES', early._GAP_BYTES // 32)


@pytest.fixture
def store(remote: Path) -> Iterator[GatedStore]:
    store = GatedStore(open_store(str(remote)))
    yield store
    store.gate.set()


def make(store: Store, local: Path, **options: Any) -> StreamingDataset:
    stream = Stream(store=store, local=str(local))
    return StreamingDataset(streams=[stream], **{'batch_size': BATCH, 'world': World(), **options})


def ranged_bytes(dataset: StreamingDataset) -> int:
    return sum(counters['ranged_bytes'] for counters in dataset.stats().values())


@pytest.mark.parametrize(('shuffle', 'batch'), [(False, BATCH), (True, 4)])  # shuffled, each sample is a request
def test_the_first_batch_comes_before_any_shard(
    store: GatedStore, remote: Path, tmp_path: Path, shuffle: bool, batch: int
) -> None:
    expected = list(islice(StreamingDataset(local=str(remote), batch_size=batch, shuffle=shuffle), batch))
    dataset = make(store, tmp_path, shuffle=shuffle, batch_size=batch)
    samples = iter(dataset)
    first = [next(samples) for _ in range(batch)]
    assert first == expected
    assert not list(tmp_path.glob('*.mds')), 'no shard is here'
    assert ranged_bytes(dataset) == sum(size for *_, size in store.ranges)
    store.gate.set()
    rest = list(samples)
    assert sorted(sample['id'] for sample in first + rest) == list(range(SAMPLES))
    assert dataset.stats()[str(tmp_path)]['fetched_bytes'] == sum(path.stat().st_size for path in remote.glob('*.mds'))


@pytest.mark.parametrize('shuffle', [False, True])
def test_where_sizes_are_fixed_the_first_batch_is_one_round_trip(tmp_path: Path, shuffle: bool) -> None:
    """No request waits for the answer to another."""
    remote = tmp_path / 'remote'
    with MDSWriter(out=str(remote), columns={'tokens': 'ndarray:uint16:2048'}, size_limit=SHARD_BYTES) as writer:
        for number in range(510):
            writer.write({'tokens': np.full(2048, number, np.uint16)})
    store = GatedStore(open_store(str(remote)))
    heads, others = threading.Event(), threading.Event()

    def meet(key: str) -> None:
        _, start, _ = store.ranges[-1]
        mine, other = (heads, others) if start == 0 else (others, heads)
        mine.set()
        assert other.wait(30), 'a head was waited for before samples were asked for'

    store.before_range = meet
    samples = iter(make(store, tmp_path / 'local', shuffle=shuffle, batch_size=4))
    expected = iter(StreamingDataset(local=str(remote), batch_size=4, shuffle=shuffle))
    assert [next(samples)['tokens'][0] for _ in range(4)] == [next(expected)['tokens'][0] for _ in range(4)]
    store.gate.set()
    samples.close()  # type: ignore[attr-defined]


def test_samples_side_by_side_are_one_request(store: GatedStore, tmp_path: Path) -> None:
    samples = iter(make(store, tmp_path))
    next(samples)
    heads = [(key, size) for key, start, size in store.ranges if start == 0]
    assert len(heads) == 1
    assert len(store.ranges) == 2
    assert store.ranges[1][2] < 6100 * BATCH
    store.gate.set()
    samples.close()  # type: ignore[attr-defined]


def test_what_is_read_by_range_is_bounded(store: GatedStore, tmp_path: Path) -> None:
    dataset = make(store, tmp_path)
    samples = iter(dataset)

    def open_the_gate() -> None:
        store.gate.set()

    # The reader comes to a batch that it may not read by range any more, and waits.
    timer = threading.Timer(1.0, open_the_gate)
    timer.start()
    assert sorted(sample['id'] for sample in samples) == list(range(SAMPLES))
    timer.join()
    total = int(dataset._shards.table.raw_bytes.sum())
    assert 0 < ranged_bytes(dataset) <= total // 16
    by_shard: dict[str, int] = {}
    for key, _, size in store.ranges:
        by_shard[key] = by_shard.get(key, 0) + size
    assert max(by_shard.values()) <= SHARD_BYTES // 4


@pytest.mark.parametrize('why', ['compressed', 'small', 'validate_hash', 'large batch'])
def test_where_it_does_not_pay_the_shard_is_waited_for(tmp_path: Path, why: str) -> None:
    write(tmp_path / 'remote', 'zstd' if why == 'compressed' else None, 100_000 if why == 'small' else SHARD_BYTES)
    store = GatedStore(open_store(str(tmp_path / 'remote')))
    store.gate.set()
    options = {'validate_hash': 'xxh64'} if why == 'validate_hash' else {'batch_size': 256} if why == 'large batch' else {}
    dataset = make(store, tmp_path / 'cache', **options)
    assert sorted(sample['id'] for sample in dataset) == list(range(SAMPLES))
    assert ranged_bytes(dataset) == 0


def test_a_range_that_stalls_does_not_hold_up_the_shard(store: GatedStore, tmp_path: Path) -> None:
    stalled = threading.Event()

    def stall(key: str) -> None:
        store.gate.set()
        stalled.wait(30)

    store.before_range = stall
    assert [sample['id'] for sample in make(store, tmp_path)] == list(range(SAMPLES))
    stalled.set()


def test_a_range_that_fails_leaves_it_to_the_shard(store: GatedStore, tmp_path: Path) -> None:
    def fail(key: str) -> None:
        store.gate.set()
        raise UnavailableError('not now')

    store.before_range = fail
    assert [sample['id'] for sample in make(store, tmp_path)] == list(range(SAMPLES))


@pytest.mark.parametrize('at', [0, 4, 8, 400])
def test_a_head_that_lies_leaves_it_to_the_shard(store: GatedStore, tmp_path: Path, at: int) -> None:
    def lie(key: str, start: int, buffer: memoryview) -> None:
        store.gate.set()
        if start == 0:
            buffer[at : at + 4] = b'\xff\xff\xff\x7f'

    store.after_range = lie
    assert [sample['id'] for sample in make(store, tmp_path)] == list(range(SAMPLES))


def test_wrong_bytes_by_range_do_not_go_unnoticed(store: GatedStore, tmp_path: Path) -> None:
    def flip(key: str, start: int, buffer: memoryview) -> None:
        if start:
            buffer[len(buffer) // 2] ^= 1

    store.after_range = flip
    samples = iter(make(store, tmp_path))
    next(samples)
    store.gate.set()
    with pytest.raises(CorruptError, match=r'shard\.00000\.mds .*read by range'):
        list(samples)


def test_an_object_of_another_size_is_not_read_by_range(store: GatedStore, tmp_path: Path) -> None:
    class Grown(GatedStore):
        def read_into(self, key: str, start: int, buffer: memoryview, **options: Any) -> ObjectInfo | None:
            super().read_into(key, start, buffer, **options)
            return ObjectInfo(key, 1 << 30)

    grown = Grown(store.inner)
    grown.gate.set()
    with pytest.raises(CorruptError, match=r'shard\.00000\.mds has 1073741824 bytes'):
        list(make(grown, tmp_path))


def test_other_samples_of_the_shard_wait_for_it(store: GatedStore, tmp_path: Path) -> None:
    dataset = make(store, tmp_path)
    samples = iter(dataset)
    assert next(samples)['id'] == 0
    threading.Timer(0.3, store.gate.set).start()
    assert dataset[BATCH + 3]['id'] == BATCH + 3
    samples.close()  # type: ignore[attr-defined]


def test_leaving_early_ends_it(store: GatedStore, tmp_path: Path) -> None:
    for _ in range(3):
        samples = iter(make(store, tmp_path))
        next(samples)
        threading.Timer(0.1, store.gate.set).start()
        samples.close()  # type: ignore[attr-defined]
        store.gate.clear()
    assert not list(tmp_path.glob('.streaming/fetching/*'))


@pytest.fixture
def is_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('streaming.dataset.get_worker_info', lambda: SimpleNamespace(id=0, num_workers=1, seed=0))
    monkeypatch.setattr('streaming.dataset.leave_no_sockets', lambda: None)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith('streaming-')}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures('is_worker')
def test_a_worker_begins_before_it_is_asked(store: GatedStore, remote: Path, tmp_path: Path) -> None:
    expected = list(islice(iter(StreamingDataset(local=str(remote), batch_size=BATCH)), BATCH))
    samples = iter(make(store, tmp_path))
    wait_until(lambda: len(store.ranges) == 2)
    assert [next(samples) for _ in range(BATCH)] == expected
    assert len(store.ranges) == 2
    store.gate.set()
    assert len(list(samples)) == SAMPLES - BATCH


@pytest.mark.usefixtures('is_worker')
def test_what_fails_before_it_is_asked_for_leaves_it_to_the_shard(store: GatedStore, tmp_path: Path) -> None:
    def fail(key: str) -> None:
        raise UnavailableError('no range today')

    store.before_range = fail
    samples = iter(make(store, tmp_path))
    wait_until(lambda: len(store.ranges) >= 1)
    store.gate.set()
    assert [sample['id'] for sample in samples] == list(range(SAMPLES))


@pytest.mark.usefixtures('is_worker')
@pytest.mark.parametrize('end', ['drop', 'close'])
def test_a_worker_that_is_never_asked_leaves_nothing(store: GatedStore, tmp_path: Path, end: str) -> None:
    store.after_range = lambda key, start, buffer: wait_until(store.gate.is_set)
    before = threads()
    samples = iter(make(store, tmp_path))
    wait_until(lambda: len(store.ranges) == 1)
    threading.Timer(0.2, store.gate.set).start()
    if end == 'close':
        samples.close()  # type: ignore[attr-defined]
    del samples
    wait_until(lambda: threads() <= before)
    assert not list(tmp_path.glob('.streaming/fetching/*'))
    assert not list(tmp_path.glob('*.mds'))
