"""Threads for calls that wait for a network, and that nobody waits for at the end."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

from typing_extensions import Self

__all__ = ['CallerThreads']

T = TypeVar('T')

_Call = tuple['Future[Any]', Callable[[], Any]]


class CallerThreads(Generic[T]):
    """Makes calls in other threads, first come first served. As a context manager: until the block's end.

    Unlike those of a ThreadPoolExecutor the threads are daemons: the interpreter does not stay alive for a server that has
    stopped answering, and leaving the block does not wait for it either. Calls that have not begun by then are cancelled.

    Args:
        limit: Most calls at a time.
        name: What the threads' names begin with.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = 0

    def submit(self, call: Callable[[], T]) -> 'Future[T]':
        """Have a call made; the future has what it returned or raised."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        if self._threads < self._limit:
            threading.Thread(target=_make_calls, args=(self._calls,), name=f'{self._name}-{self._threads}', daemon=True).start()
            self._threads += 1
        return future

    def close(self) -> None:
        """Cancel what has not begun and let the threads end."""
        with suppress(queue.Empty):
            while item := self._calls.get_nowait():
                item[0].cancel()
        self.close_when_done()

    def close_when_done(self) -> None:
        """Let the threads end once all calls have been made."""
        for _ in range(self._threads):
            self._calls.put(None)
        self._threads = self._limit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _make_calls(calls: 'queue.SimpleQueue[_Call | None]') -> None:
    while (item := calls.get()) is not None:
        future, call = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = call()
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(result)
        del item, future, call  # not until the next call comes: they may hold much
