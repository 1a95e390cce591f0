"""Calls in other threads."""

import subprocess
import sys
import threading

import pytest

from streaming.threads import CallerThreads


def test_results_and_errors() -> None:
    def fail() -> int:
        raise ValueError('no')

    with CallerThreads[int](2, 'test') as threads:
        futures = [threads.submit(lambda number=number: number) for number in range(10)]  # type: ignore[misc]
        assert [future.result() for future in futures] == list(range(10))
        with pytest.raises(ValueError, match='no'):
            threads.submit(fail).result()


def test_leaving_cancels_what_has_not_begun_and_waits_for_nothing() -> None:
    hold, begun = threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return hold.wait(10)

    with CallerThreads[bool](1, 'test') as threads:
        running = threads.submit(wait)
        waiting = threads.submit(wait)
        begun.wait(10)
    assert waiting.cancelled()
    assert not running.done()
    hold.set()
    assert running.result(10)


def test_the_interpreter_ends_while_a_call_hangs() -> None:
    code = (
        "import threading; from streaming.threads import CallerThreads\nCallerThreads(1, 'test').submit(threading.Event().wait)"
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=100)
