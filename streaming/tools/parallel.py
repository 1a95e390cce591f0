"""Work on many objects at a time that ends soon and whole, whatever happens."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import TypeVar

from streaming.errors import ArgumentError, CancelledError
from streaming.store.protocol import Store

__all__ = ['OnBytes', 'in_parallel']

Item = TypeVar('Item')
Result = TypeVar('Result')
# Called from several threads with the number of bytes that were just dealt with. May raise to cancel.
OnBytes = Callable[[int], None]


def in_parallel(
    items: Iterable[Item],
    work: Callable[[Item, OnBytes], Result],
    *,
    workers: int,
    stores: Iterable[Store],
    on_bytes: OnBytes | None = None,
) -> Iterator[Result]:
    """Results of ``work``, in the order that they come.

    Where one raises, or the caller stops, what is on its way is cancelled and has ended before this does.

    Args:
        items: What to work on.
        work: Called in threads with an item, and with a function to call as bytes come; what that raises ends the work.
        workers: Threads.
        stores: Those that the work waits for; closed to cut its waits short.
        on_bytes: Told of the bytes. Default: None.

    Raises:
        ArgumentError: no workers.
    """
    if workers < 1:
        raise ArgumentError(f'workers must be at least 1, got {workers}')
    cancelled = threading.Event()

    def note(count: int) -> None:
        if cancelled.is_set():
            raise CancelledError('given up, because other work failed or was interrupted')
        if on_bytes is not None:
            on_bytes(count)

    pool = ThreadPoolExecutor(workers, thread_name_prefix='streaming-tools')
    futures: list[Future[Result]] = []
    try:
        futures += [pool.submit(work, item, note) for item in items]
        for future in as_completed(futures):
            yield future.result()
    finally:
        cancelled.set()
        pool.shutdown(wait=False, cancel_futures=True)
        running = [future for future in futures if not future.done()]
        # Again and again: a thread may have been just before the wait that is to be cut short.
        while wait(running, timeout=0.2).not_done:
            for store in stores:
                store.close()
        pool.shutdown()
