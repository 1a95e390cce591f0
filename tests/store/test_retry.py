import logging
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from streaming.errors import (
    AlreadyExistsError,
    ArgumentError,
    CancelledError,
    NotFoundError,
    PreconditionError,
    StoreError,
    ThrottledError,
    UnavailableError,
)
from streaming.store.memory import MemoryStore
from streaming.store.protocol import Store
from streaming.store.retry import RetryPolicy, RetryStore
from streaming.testing.store import StoreTests, pattern, read
from streaming.testing.wrappers import Fault, FaultyStore, LatencyStore

QUICK = RetryPolicy(first_wait_s=0.001, max_wait_s=0.002)


class Clock:
    """Time that passes only while somebody waits for a further try."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False

    def is_set(self) -> bool:
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr('streaming.store.retry.time', clock)
    monkeypatch.setattr('streaming.store.retry.threading', SimpleNamespace(Event=lambda: clock, Lock=threading.Lock))
    return clock


class TestRetryStore(StoreTests):
    examples = 5

    @pytest.fixture
    def store(self) -> Store:
        """A store in which every third call fails the first time."""
        faults = [Fault('*', skip=2, error=kind) for kind in (UnavailableError, ThrottledError)] * 20
        return RetryStore(FaultyStore(MemoryStore(), *faults), QUICK)


class TestLatencyStore(StoreTests):
    examples = 2

    @pytest.fixture
    def store(self) -> Store:
        return LatencyStore(MemoryStore(), latency_s=0.0005, bytes_per_s=1e9)


def throttled(retry_after_s: float) -> Callable[[str], StoreError]:
    def make(message: str) -> StoreError:
        error = ThrottledError(message)
        error.status, error.retry_after_s = 429, retry_after_s
        return error

    return make


def test_waits_double_with_full_jitter() -> None:
    policy = RetryPolicy()
    longest = [policy.wait_s(failures, draw=lambda: 1.0) for failures in range(1, 9)]
    assert longest == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert policy.wait_s(5, draw=lambda: 0.0) == 0.0
    assert policy.wait_s(1, 7.0, draw=lambda: 0.0) == 7.0
    assert policy.wait_s(1, 3600.0, draw=lambda: 0.0) == 30.0
    assert policy.wait_s(10_000, draw=lambda: 1.0) == 5.0


@pytest.mark.parametrize('bad', [{'tries': 0}, {'deadline_s': -1.0}, {'budget': -1}])
def test_policies_that_cannot_work(bad: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(bad))):
        RetryPolicy(**bad)  # type: ignore[arg-type]


def test_each_retry_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    store = RetryStore(FaultyStore(MemoryStore('logged'), Fault('put', times=2)), QUICK)
    with caplog.at_level(logging.INFO, 'streaming'):
        store.put('key', b'x')
    assert len(caplog.records) == 2
    assert 'PUT mem://logged/key failed: put mem://logged/key: failed on purpose; try 2 of 8' in caplog.text


def test_gives_up_with_the_last_error() -> None:
    inner = FaultyStore(MemoryStore(), Fault('head', error=ThrottledError, times=None))
    inner.add(Fault('get', error=NotFoundError, times=None))
    store = RetryStore(inner, QUICK)
    with pytest.raises(ThrottledError, match=r'gave up after 8 tries in \d+\.\d s') as error:
        store.head('key')
    assert isinstance(error.value.__cause__, ThrottledError)
    with pytest.raises(NotFoundError):
        store.get('key')
    assert inner.calls == [('head', 'key')] * 8 + [('get', 'key')]


def test_retry_after_is_honoured(clock: Clock) -> None:
    inner = FaultyStore(MemoryStore(), Fault('put', error=throttled(7.0)), Fault('put', error=throttled(3600.0)))
    RetryStore(inner, QUICK).put('key', b'x')
    first, second = clock.waits
    assert 7.0 <= first < 8.0
    assert 30.0 <= second < 31.0


def test_the_deadline_ends_the_tries(clock: Clock) -> None:
    policy = RetryPolicy(deadline_s=20.0, tries=100, first_wait_s=0.0)
    inner = FaultyStore(MemoryStore(), Fault('put', error=throttled(6.0), times=None))
    with pytest.raises(ThrottledError, match=r'gave up after 4 tries in 18\.0 s'):
        RetryStore(inner, policy).put('key', b'x')
    assert clock.waits == [6.0] * 3


def test_the_last_try_is_made_when_the_time_is_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    # The longest draws of the jitter: the fifth wait, of 1.6 s, would pass the deadline.
    drawn = RetryPolicy.wait_s
    monkeypatch.setattr(RetryPolicy, 'wait_s', lambda *args: drawn(*args, draw=lambda: 1.0))
    store = RetryStore(
        FaultyStore(MemoryStore(), Fault('head', times=None)), RetryPolicy(deadline_s=2.0, contact_s=2.0, tries=100)
    )
    with pytest.raises(UnavailableError, match=r'gave up after 6 tries in 2\.0 s'):
        store.head('key')
    assert clock.waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.5])


def test_a_store_that_never_answered_gets_less_patience() -> None:
    policy = RetryPolicy(contact_s=0.0)
    inner = FaultyStore(MemoryStore(), Fault('head', times=None))
    store = RetryStore(inner, policy)
    with pytest.raises(UnavailableError):
        store.head('key')
    assert len(inner.calls) == 1
    store.put('key', b'x')
    inner.faults = [Fault('head', times=1)]
    assert store.head('key').size == 1


def test_a_pickled_store_remembers_that_it_was_answered() -> None:
    store = RetryStore(FaultyStore(MemoryStore()), RetryPolicy(contact_s=0.0, first_wait_s=0.001))
    store.put('key', b'x')
    again = pickle.loads(pickle.dumps(store))
    again.inner.add(Fault('put'))
    again.put('key', b'x')


def test_the_budget_is_shared_by_all_threads() -> None:
    inner = FaultyStore(MemoryStore(), Fault('head', times=None))
    store = RetryStore(inner, RetryPolicy(first_wait_s=0.001, max_wait_s=0.001, budget=20, budget_per_s=0.0))

    def fail(_: int) -> str:
        with pytest.raises(UnavailableError) as error:
            store.head('key')
        return str(error.value)

    with ThreadPoolExecutor(8) as pool:
        messages = list(pool.map(fail, range(8)))
    assert len(inner.calls) == 8 + 20
    assert any('retry budget is spent' in message for message in messages)


def test_a_cut_read_goes_on_where_it_stopped() -> None:
    data = pattern(3 << 20)
    inner = FaultyStore(MemoryStore(), *(Fault('read_into', after_bytes=1 << 20) for _ in range(2)))
    store = RetryStore(inner, QUICK)
    store.put('key', data)
    seen: list[int] = []
    buffer = memoryview(bytearray(len(data)))
    store.read_into('key', 0, buffer, on_bytes=seen.append)
    assert buffer == data
    assert sum(seen) == len(data)  # nothing came twice
    assert inner.calls.count(('read_into', 'key')) == 3


def test_a_cut_read_never_mixes_two_versions() -> None:
    inner = FaultyStore(MemoryStore(), Fault('read_into', after_bytes=1 << 20))
    store = RetryStore(inner, QUICK)
    store.put('key', b'a' * (2 << 20))

    def overwrite(count: int) -> None:
        inner.inner.put('key', b'b' * (2 << 20))

    with pytest.raises(PreconditionError):
        store.read_into('key', 0, memoryview(bytearray(2 << 20)), on_bytes=overwrite)


def test_a_failure_after_the_last_byte_is_none() -> None:
    store = RetryStore(FaultyStore(MemoryStore(), Fault('read_into', after_bytes=10, times=None)), QUICK)
    store.put('key', b'0123456789')
    assert read(store, 'key', 0, 10) == b'0123456789'


@pytest.mark.parametrize('as_file', [False, True])
def test_a_put_whose_answer_was_lost_is_recognised(as_file: bool, tmp_path: Path) -> None:
    path = tmp_path / 'source'
    path.write_bytes(b'mine')
    inner = FaultyStore(MemoryStore(), Fault('put', after_effect=True))
    store = RetryStore(inner, QUICK)
    assert store.put('key', path if as_file else b'mine', overwrite=False).size == 4
    assert inner.calls.count(('put', 'key')) == 2
    with pytest.raises(AlreadyExistsError):
        store.put('key', b'mine', overwrite=False)


def test_a_put_that_another_won_is_not_ours() -> None:
    inner = FaultyStore(MemoryStore(), Fault('put'))
    store = RetryStore(inner, QUICK)
    inner.inner.put('key', b'hers')
    with pytest.raises(AlreadyExistsError):
        store.put('key', b'mine', overwrite=False)
    assert store.get('key') == b'hers'


def test_a_listing_goes_on_after_the_last_key() -> None:
    class Breaking(FaultyStore):
        def list(self, prefix: str = '', *, after: str = ''):  # type: ignore[no-untyped-def]
            for number, info in enumerate(super().list(prefix, after=after)):
                if number == 3:
                    raise UnavailableError('broke off')
                yield info

    inner = Breaking(MemoryStore())
    store = RetryStore(inner, QUICK)
    keys = [f'{i:02d}' for i in range(40)]
    for key in keys:
        store.put(key, b'')
    assert [info.key for info in store.list()] == keys


def test_closing_ends_the_waits(within: Callable[[float, Callable[[], float]], None]) -> None:
    inner = FaultyStore(MemoryStore(), Fault('head', error=throttled(30.0), times=None))
    store = RetryStore(inner)

    def seconds_to_close() -> float:
        inner.calls.clear()
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(store.head, 'key') for _ in range(4)]
            deadline = time.monotonic() + 30
            while len(inner.calls) < 4 and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            began = time.monotonic()
            store.close()
            for future in waiting:
                with pytest.raises(CancelledError, match='closed'):
                    future.result(timeout=20)
            return time.monotonic() - began

    within(1.0, seconds_to_close)
    store.put('key', b'x')
    assert store.get('key') == b'x'
