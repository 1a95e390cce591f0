"""Queues that send what is small in the thread that puts it, and all else, in order, as the standard library does."""

import copyreg
import multiprocessing
import queue
import threading
import time
from multiprocessing.context import BaseContext, ForkContext
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from streaming.queues import DirectQueue, direct_context

SMALL, LARGE = b'few', bytes(1 << 20)


def make(method: str = 'fork') -> Any:
    context = direct_context(multiprocessing.get_context(method))
    assert context is not None
    made = context.Queue()
    assert isinstance(made, DirectQueue)
    return made


def feeders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith('QueueFeeder')]


def drain(made: Any, count: int) -> list[Any]:
    return [made.get(timeout=20) for _ in range(count)]


def test_what_is_small_needs_no_thread() -> None:
    made = make()
    before = feeders()
    for number in range(20):
        made.put((number, SMALL))
        assert made.get(timeout=20) == (number, SMALL)
    made.put(None)
    assert made.get() is None
    assert feeders() == before
    assert made.empty()


def test_what_is_large_goes_by_a_thread_and_nothing_passes_it() -> None:
    made = make()
    sent = [SMALL, LARGE, SMALL, 1, LARGE, 2]
    for value in sent:
        made.put(value)
    assert drain(made, len(sent)) == sent


def test_who_puts_into_a_full_pipe_does_not_wait() -> None:
    made = make()
    sent = [(number, bytes(1000)) for number in range(500)]  # several times what a pipe holds
    for value in sent:
        made.put(value)
    assert drain(made, len(sent)) == sent


def test_who_finds_another_at_the_pipe_does_not_wait_long() -> None:
    made = make()
    with made._wlock:
        made.put(SMALL)
        made.put(2)
        assert made.empty()
    assert drain(made, 2) == [SMALL, 2]


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_between_processes(method: str) -> None:
    made = make(method)
    context = multiprocessing.get_context(method)
    for value in (SMALL, LARGE):
        process = context.Process(target=made.put, args=(value,))
        process.start()
        assert made.get(timeout=60) == value
        process.join(60)
        assert process.exitcode == 0
    made.put('left')  # what was put before a process begins is its own to get
    process = context.Process(target=made.get, args=(True, 60))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert made.empty()


def test_many_processes_at_one_pipe() -> None:
    made = make()
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=_put_many, args=(made, number)) for number in range(6)]
    for process in processes:
        process.start()
    found = drain(made, 6 * 400)
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    for number in range(6):
        assert [count for of, count, _ in found if of == number] == list(range(400))


def _put_many(made: Any, number: int) -> None:
    for count in range(400):
        made.put((number, count, bytes(300)))


def test_nothing_comes_in_time() -> None:
    made = make()
    since = time.monotonic()
    with pytest.raises(queue.Empty):
        made.get(timeout=0.2)
    assert time.monotonic() - since >= 0.19
    with pytest.raises(queue.Empty):
        made.get_nowait()


@pytest.mark.parametrize('before', [SMALL, LARGE])
def test_what_cannot_be_pickled_is_an_error_where_it_is_put(before: bytes) -> None:
    made = make()
    made.put(before)
    assert made.get(timeout=20) == before
    with pytest.raises((AttributeError, TypeError), match='pickle'):
        made.put(threading.Lock())
    made.put(1)
    assert made.get(timeout=20) == 1


def test_a_closed_queue_takes_nothing() -> None:
    made = make()
    made.put(1)
    made.cancel_join_thread()
    made.close()
    made.join_thread()
    with pytest.raises(ValueError, match='closed'):
        made.put(2)


class OwnContext(ForkContext):
    pass


class OwnQueues(ForkContext):
    def Queue(self, maxsize: int = 0) -> Any:
        return multiprocessing.get_context('fork').Queue(maxsize)


@pytest.mark.parametrize('context', [OwnContext(), OwnQueues()])
def test_contexts_of_others_are_left_alone(context: BaseContext) -> None:
    assert direct_context(context) is None


def test_processes_start_as_they_would_have() -> None:
    for method in ('fork', 'spawn', 'forkserver'):
        context = direct_context(multiprocessing.get_context(method))
        assert context is not None
        assert context.get_start_method() == method
        assert context.Process is multiprocessing.get_context(method).Process
    default = direct_context(None)
    assert default is not None
    assert default.get_start_method() == multiprocessing.get_start_method()


class Late:
    """Something that is pickled in a way that somebody registers."""


def test_what_is_registered_later_is_pickled_so() -> None:
    made = make()
    made.put(1)
    ForkingPickler.register(Late, lambda late: (str, ('for processes',)))
    try:
        made.put(Late())
        copyreg.pickle(Late, lambda late: (str, ('for all',)))  # what multiprocessing has been told comes first
        made.put(Late())
        del ForkingPickler._extra_reducers[Late]  # type: ignore[attr-defined]  # it offers no way back
        made.put(Late())
    finally:
        copyreg.dispatch_table.pop(Late, None)
    assert drain(made, 4) == [1, 'for processes', 'for processes', 'for all']
