"""Parts on the cores of this machine: a process each, a part at a time, nothing shared and nothing left behind.

Workers are spawned, so they inherit no threads and no locks. Each has a pipe to this process: when this process is killed the
pipe ends, and with it the worker; when a worker is killed, its end of the pipe does, and that is an error here.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from streaming.errors import ArgumentError, StreamingError
from streaming.writers.convert.job import Job, Part, PartResult
from streaming.writers.convert.parts import convert_part

__all__ = ['run_here', 'run_in_processes']

# Between two reports of a worker.
_REPORT_S = 0.2
# For a worker to end by itself once there is nothing more for it.
_GRACE_S = 5.0
# Parameters of glibc's malloc (malloc.h): freed memory that is kept, and how large a piece is that the system gives alone.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGE_BYTES = 256 << 20, 32 << 20
# Of waiting for a report or an end, before this process looks whether its workers are alive.
_LOOK_S = 10.0

OnReport = Callable[[int, int, int, int], None]


def run_here(job: Job, parts: Sequence[Part], on_report: OnReport) -> Iterator[PartResult]:
    """Do parts in this process, one after the other."""
    for part in parts:
        yield convert_part(job, part, lambda *done, number=part.number: on_report(number, *done))


def run_in_processes(job: Job, parts: Sequence[Part], workers: int, on_report: OnReport) -> Iterator[PartResult]:
    """Do parts in processes of this machine; gives their results as they come.

    Args:
        job: The job.
        parts: What is to be done.
        workers: How many processes.
        on_report: Called with a part's number and what was done of it since.

    Raises:
        ArgumentError: something of the job cannot be sent to another process.
        StreamingError: what a part raised, or a worker was killed.
    """
    try:
        pickled = pickle.dumps(job)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f'the job cannot be sent to other processes: {error}; name its functions as module:function, or pass workers=1'
        ) from error
    waiting = list(reversed(parts))
    started: list[_Worker] = []
    try:
        for number in range(min(workers, len(parts))):
            started.append(_Worker(number, pickled))
        for worker in started:
            worker.give(waiting.pop())
        busy = {worker.pipe: worker for worker in started}
        while busy:
            for pipe in wait(list(busy), timeout=_LOOK_S):
                worker = busy[pipe]  # type: ignore[index]
                answer = worker.take()
                if not isinstance(answer, PartResult):
                    on_report(*answer)
                    continue
                if waiting:
                    worker.give(waiting.pop())
                else:
                    worker.end()
                    del busy[worker.pipe]
                yield answer
    finally:
        for worker in started:
            worker.kill()


class _Worker:
    """A process that does parts.

    Args:
        number: Of the process, for messages.
        job: The job, pickled.
    """

    def __init__(self, number: int, job: bytes) -> None:
        context = multiprocessing.get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, job), name=f'streaming-convert-{number}', daemon=True)
        self._process.start()
        theirs.close()
        self._part: Part | None = None

    def give(self, part: Part) -> None:
        """Let it do a part."""
        self._part = part
        with suppress(BrokenPipeError):  # it was killed; `take` says so
            self.pipe.send(part)

    def take(self) -> Any:
        """What it has to say: a report, or the part's result.

        Raises:
            StreamingError: what the part raised, or that the process is gone.
        """
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_GRACE_S)
            raise StreamingError(
                f'the process that did part {self._part.number if self._part else "?"} ended with exit code '
                f'{self._process.exitcode} (killed, or out of memory); the same command goes on where it stopped'
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        """Tell it that there is nothing more."""
        with suppress(BrokenPipeError):
            self.pipe.send(None)

    def kill(self) -> None:
        """See that it is gone."""
        self.pipe.close()
        self._process.join(0 if self._part is None else _GRACE_S if self._process.exitcode is not None else 0.5)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(_GRACE_S)
        self._process.close()


def _work(pipe: Connection, pickled: bytes) -> None:
    """What a worker does until there is nothing more, or nobody to do it for."""
    # A tokenizer of the Rust package would start as many threads as there are cores, in each of as many processes.
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    # Ctrl-C is for the process that wanted it, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_memory()
    try:
        job = pickle.loads(pickled)
        while (part := pipe.recv()) is not None:
            pipe.send(convert_part(job, part, _Reports(pipe, part.number)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)  # the process that wanted it is gone
    except BaseException as error:
        with suppress(BrokenPipeError):
            pipe.send(_portable(error))


def _keep_memory() -> None:
    """Let a worker use the memory of a batch for the next one.

    Batches are about as large as what malloc returns to the system when it is freed. That clears each page again, which took as
    long as all else of converting small files.
    """
    with suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class _Reports:
    """Sends what was done now and then, not after every batch."""

    def __init__(self, pipe: Connection, number: int) -> None:
        self._pipe, self._number = pipe, number
        self._sums = [0, 0, 0]
        self._last = time.monotonic()

    def __call__(self, input_bytes: int, records: int, sample_bytes: int) -> None:
        for at, more in enumerate((input_bytes, records, sample_bytes)):
            self._sums[at] += more
        now = time.monotonic()
        if now - self._last > _REPORT_S:
            self._pipe.send((self._number, *self._sums))
            self._sums, self._last = [0, 0, 0], now


def _portable(error: BaseException) -> BaseException:
    """An error that can be sent; one that cannot is told in words. Its causes stay here, so they are in its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return StreamingError(f'{type(error).__name__}: {error}')
    return error
