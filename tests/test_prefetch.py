"""The walk ahead of a reader: what is begun when, and what the reader is told."""

import threading
from collections.abc import Callable, Iterator

import pytest

from streaming.cache.shards import Tried
from streaming.errors import CancelledError, DeadlineError, UnavailableError
from streaming.prefetch import Prefetcher

MEGABYTE = 1 << 20


class Cache:
    """Remembers what it was asked for, in order; each fetch waits for its turn if `gate` is given."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.ensured: list[int] = []
        self.elsewhere: set[int] = set()
        self.errors: dict[int, Exception] = {}
        self.gates: dict[int, threading.Event] = {}
        self.changed = threading.Condition()

    def try_fetch(self, shard: int, check: Callable[[], None]) -> Tried:
        with self.changed:
            self.asked.append(shard)
            self.changed.notify_all()
        if shard in self.elsewhere:
            return Tried.ELSEWHERE
        gate = self.gates.get(shard)
        while gate is not None and not gate.wait(0.01):
            check()
        if shard in self.errors:
            raise self.errors[shard]
        return Tried.HERE

    def ensure(self, shard: int, check: Callable[[], None]) -> None:
        check()
        self.ensured.append(shard)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 10), self.asked


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def make(cache: Cache) -> Iterator[Callable[..., Prefetcher]]:
    made: list[Prefetcher] = []

    def build(
        uses: Iterator[tuple[int, int, int]],
        threads: int = 1,
        ahead: int | None = None,
        ahead_bytes: int = 1 << 40,
        timeout_s: float = 10,
    ) -> Prefetcher:
        made.append(
            Prefetcher(
                uses,
                cache.try_fetch,
                cache.ensure,
                describe='shard {}'.format,
                threads=threads,
                ahead=ahead,
                ahead_bytes=ahead_bytes,
                timeout_s=timeout_s,
            )
        )
        made[-1].start()
        return made[-1]

    yield build
    for prefetcher in made:
        prefetcher.close()
        assert prefetcher.join(30)


def test_shards_are_begun_by_first_use(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    prefetcher = make((i, shard, MEGABYTE) for i, shard in enumerate([4, 2, 0, 1, 3]))
    for shard in [4, 2, 0, 1, 3]:
        prefetcher.wait_for(shard)
    assert cache.asked == [4, 2, 0, 1, 3]
    assert cache.ensured == []


def test_what_is_needed_first_has_a_head_start(
    cache: Cache, make: Callable[..., Prefetcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('streaming.prefetch._HEAD_START_S', 60.0)
    cache.gates = {0: threading.Event(), 1: threading.Event()}
    cache.elsewhere = {2}
    prefetcher = make(((0, 0, 1), (0, 1, 1), (0, 2, 1), (1, 3, 1), (2, 4, 1)).__iter__(), threads=4)
    cache.wait_until(lambda: len(cache.asked) == 3)
    cache.gates[0].set()
    prefetcher.wait_for(0)
    prefetcher.wait_for(2)
    assert sorted(cache.asked) == [0, 1, 2], 'the first position still waits for shard 1'
    cache.gates[1].set()
    cache.wait_until(lambda: len(cache.asked) == 5)


def test_the_head_start_ends(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    cache.gates = {0: threading.Event()}
    make(((0, 0, 1), (1, 1, 1)).__iter__(), threads=2)
    cache.wait_until(lambda: cache.asked == [0, 1])
    cache.gates[0].set()


def test_it_stays_within_the_bytes_ahead(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    prefetcher = make(((i, i, MEGABYTE) for i in range(100)), ahead_bytes=3 * MEGABYTE)
    cache.wait_until(lambda: len(cache.asked) == 4)  # the one at hand and three ahead
    prefetcher.advance(5)
    cache.wait_until(lambda: len(cache.asked) == 9)
    assert cache.asked == list(range(9))


def test_it_stays_within_the_positions_ahead(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    prefetcher = make(((i, i, MEGABYTE) for i in range(100)), ahead=2)
    cache.wait_until(lambda: len(cache.asked) == 3)
    prefetcher.advance(1)
    cache.wait_until(lambda: len(cache.asked) == 4)
    assert cache.asked == [0, 1, 2, 3]


def test_what_others_fetch_is_waited_for_by_the_reader_only(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    cache.elsewhere = {1}
    prefetcher = make((i, i, 1) for i in range(4))
    cache.wait_until(lambda: len(cache.asked) == 4)
    prefetcher.wait_for(1)
    assert cache.ensured == [1]


def test_a_failure_reaches_the_reader_that_needs_the_shard(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    cache.errors[2] = UnavailableError('oci://bucket/shard.2 is gone')
    prefetcher = make((i, i, 1) for i in range(4))
    for shard in (0, 1, 3):
        prefetcher.wait_for(shard)
    with pytest.raises(UnavailableError, match=r'shard\.2 is gone'):
        prefetcher.wait_for(2)


def test_a_wait_without_a_byte_ends(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    cache.gates[0] = threading.Event()
    real = cache.try_fetch

    def stuck(shard: int, check: Callable[[], None]) -> Tried:
        cache.gates[0].wait(60)
        return real(shard, check)

    cache.try_fetch = stuck  # type: ignore[method-assign]
    prefetcher = make(iter([(0, 0, 1)]), timeout_s=0.2)
    with pytest.raises(DeadlineError, match=r'waited 0\.2 s for shard 0'):
        prefetcher.wait_for(0)
    cache.gates[0].set()


def test_closing_gives_up_what_is_going_on(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    cache.gates[0] = threading.Event()
    prefetcher = make(((i, i, 1) for i in range(10)), threads=2)
    cache.wait_until(lambda: 0 in cache.asked)
    prefetcher.close()
    with pytest.raises(CancelledError):
        prefetcher.wait_for(0)


def test_a_plan_that_fails_leaves_the_reader_to_say_so(cache: Cache, make: Callable[..., Prefetcher]) -> None:
    def uses() -> Iterator[tuple[int, int, int]]:
        yield 0, 0, 1
        raise RuntimeError('no plan')

    prefetcher = make(uses())
    prefetcher.wait_for(0)
    prefetcher.wait_for(7)
    assert cache.ensured == [7]
