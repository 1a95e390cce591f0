"""The parts of a fetch that threads share: turns, buffers, the temporary file."""

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streaming.cache.transfer import Buffers, Scratch, Turns
from streaming.errors import CancelledError


def wait_until_asked(turns: Turns, count: int) -> None:
    deadline = threading.Event()
    for _ in range(1000):
        if len(turns._waiting) == count:
            return
        deadline.wait(0.01)
    raise AssertionError(f'{len(turns._waiting)} wait, not {count}')


def test_the_shard_begun_first_has_its_turn_first() -> None:
    turns = Turns(limit=1)
    order: list[str] = []

    def work(name: str, turn: object) -> None:
        with turn:  # type: ignore[attr-defined]
            order.append(name)

    with turns.of_one_shard() as first, turns.of_one_shard() as second, ThreadPoolExecutor(4) as threads:
        with first:
            calls = []
            for count, (name, turn) in enumerate([('c', second), ('d', second), ('a', first), ('b', first)]):
                calls.append(threads.submit(work, name, turn))
                wait_until_asked(turns, count + 1)
        for call in calls:
            call.result(10)
    assert order == ['a', 'b', 'c', 'd']
    assert turns._free == 1


def test_the_fewer_processes_a_rank_has_the_more_requests_each_makes() -> None:
    allowed = []
    for processes in (1, 2, 3, 8, 100):
        turns = Turns()
        turns.share_rank(processes)
        allowed.append(turns._free)
    assert allowed == [24, 16, 12, 12, 12]
    turns = Turns()
    turns.share_rank(1)
    turns.share_rank(8)  # another dataset of the process
    assert turns._free == 24


def test_who_waits_goes_on_when_more_are_allowed() -> None:
    turns = Turns(limit=0)
    with turns.of_one_shard() as turn, ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(turn.__enter__) for _ in range(2)]
        wait_until_asked(turns, 2)
        turns.share_rank(1)
        for call in calls:
            call.result(10)
    assert turns._free == 22


def test_who_waits_for_a_turn_of_a_shard_that_is_given_up_is_told() -> None:
    turns = Turns(limit=1)
    with turns.of_one_shard() as first, ThreadPoolExecutor(2) as threads:
        with first:
            with turns.of_one_shard() as second:
                call = threads.submit(second.__enter__)
                wait_until_asked(turns, 1)
            with pytest.raises(CancelledError):
                call.result(10)
        with first:  # the turn that was not taken is not lost
            pass
    assert turns._free == 1


def test_what_comes_after_the_file_is_closed_goes_nowhere(tmp_path: Path) -> None:
    path = tmp_path / 'scratch'
    with Scratch(path) as scratch:
        scratch.write_at(b'cd', 2)
        scratch.write_at(b'ab', 0)
    with (tmp_path / 'other').open('wb'), pytest.raises(CancelledError):  # which may have its descriptor now
        scratch.write_at(b'late', 0)
    assert path.read_bytes() == b'abcd'
    assert (tmp_path / 'other').read_bytes() == b''


def test_buffers_are_used_again_while_anything_is_fetched() -> None:
    buffers = Buffers()
    with buffers:
        first = buffers.take(8192)
        lent = buffers.lend(first)
        assert next(lent) is first
        assert buffers.take(8192).obj is not first.obj  # not yet
        assert next(lent, None) is None
        smaller = buffers.take(100)
        assert smaller.obj is first.obj
        assert len(smaller) == 100
        list(buffers.lend(smaller))
    assert buffers.take(100).obj is not first.obj


def _has_huge_pages() -> bool:
    setting = Path('/sys/kernel/mm/transparent_hugepage/enabled')
    return setting.exists() and '[never]' not in setting.read_text()


@pytest.mark.skipif(not _has_huge_pages(), reason='this system has no huge pages')
def test_a_buffer_is_not_made_page_by_page() -> None:
    size = 16 << 20
    buffer = Buffers().take(size)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    with open('/dev/zero', 'rb') as zeros:
        assert zeros.readinto(buffer) == size
    pages = size // resource.getpagesize()
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < pages // 8
