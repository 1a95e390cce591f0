"""Closing a store while calls wait for its server."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from streaming.errors import CancelledError
from streaming.store.protocol import Store

__all__ = ['seconds_to_close']


def seconds_to_close(store: Store, wanted: Sequence[Callable[[], object]], all_wait: Callable[[], bool]) -> float:
    """Make calls at the same time, and close the store once all wait; the seconds until every one of them is cancelled."""
    deadline = time.monotonic() + 30
    calls, errors = [], list[BaseException | None]([None] * len(wanted))

    def run(number: int) -> None:
        try:
            wanted[number]()
        except BaseException as error:  # whatever it is, it is compared with what it should be
            errors[number] = error

    for number in range(len(wanted)):
        calls.append(threading.Thread(target=run, args=(number,)))
        calls[-1].start()
    while not (waiting := all_wait()) and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    store.close()
    for call in calls:
        call.join(20)
    spent = time.monotonic() - began
    assert waiting, 'not all calls came to their server'
    for error in errors:
        with pytest.raises(CancelledError, match='its store was closed'):
            raise error or AssertionError('it was not cancelled')
    return spent
