"""Queues between a training process and its workers that send what is small themselves, in the thread that puts it.

Those of the standard library have a thread of their own for it. A batch passes two of them, one on its way and one that asks for
the next, and for each of them the system and the interpreter change threads twice, which takes longer than all else that is done
to hand over a batch in a slot (see `streaming.handover`).
"""

import copyreg
import io
import multiprocessing.context
import pickle
import select
import threading
from collections import ChainMap
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from typing import Any

__all__ = ['direct_context']

# With the length before it, what a pipe that is ready for more takes without a wait.
_MOST_BYTES = select.PIPE_BUF - 4

# How long somebody else may be at the pipe. Longer, and it is full.
_PATIENCE_S = 0.1


class DirectQueue(Queue):  # type: ignore[type-arg]
    """A queue of the standard library that sends small objects without its thread, as long as there is room in its pipe.

    With the first object that is large, or comes while the pipe is full, it goes on as it would have without this: what comes
    after it must not be faster. What cannot be pickled is an error of `put`. One thread of a process may put.
    """

    # What it has of the standard library's, whose stubs do not tell.
    _reader: Any
    _writer: Any
    _wlock: Any
    _sem: Any
    _thread: threading.Thread | None
    _closed: bool
    _send_bytes: Callable[[Any], None]

    def _reset(self, after_fork: bool = False) -> None:
        super()._reset(after_fork)  # type: ignore[misc]
        self._poll = _poller(self._reader)
        self._is_ready = _poller(self._writer, select.POLLOUT)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        if self._closed:
            super().put(obj, block, timeout)  # says so
            return
        # Here, and not in the thread, where what cannot be pickled is a traceback, and silence for whoever waits for it. Once:
        # pickling a tensor opens a descriptor for whoever unpickles it.
        data = _dumps(obj)
        if self._thread is not None or len(data) > _MOST_BYTES or not self._try_to_send(data):
            super().put(_Pickled(bytes(data)), block, timeout)

    def _try_to_send(self, data: memoryview) -> bool:
        if not self._wlock.acquire(True, _PATIENCE_S):
            return False
        try:
            if not self._is_ready(0) or not self._sem.acquire(False):
                return False
            self._send_bytes(data)
        finally:
            self._wlock.release()
        return True


# What `ForkingPickler` makes a copy of for each object: how to pickle what types, torch's too, as known by then.
_REDUCERS = ChainMap[Any, Any](
    ForkingPickler._extra_reducers,  # type: ignore[attr-defined]  # no stub has it
    copyreg.dispatch_table,
)


def _dumps(obj: Any) -> memoryview:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(obj)
    return buffer.getbuffer()


class _Pickled:
    """An object that has been pickled."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


def _poller(connection: Any, event: int = select.POLLIN) -> Callable[[float], bool]:
    """What a connection's poll does, with a selector that is made once."""
    poll = select.poll()
    poll.register(connection.fileno(), event)

    def wait(timeout_s: float = 0.0) -> bool:
        return bool(poll.poll(max(0.0, timeout_s * 1000)))

    return wait


def direct_context(context: BaseContext | None) -> BaseContext | None:
    """The context with such queues; None where it is not one of the standard library's.

    Args:
        context: How processes are started. None: as this process starts them.
    """
    if context is None:
        context = multiprocessing.get_context(multiprocessing.get_start_method())
    kind = type(context)
    if kind.__module__ != multiprocessing.context.__name__ or kind.Queue is not BaseContext.Queue:
        return None

    class DirectContext(kind):  # type: ignore[misc, valid-type]  # one of three
        def Queue(self, maxsize: int = 0) -> DirectQueue:  # the standard library's name
            return DirectQueue(maxsize, ctx=self.get_context())

    return DirectContext()
