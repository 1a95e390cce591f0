"""What work costs, counted and not timed: calls of functions, and what Python tells its auditors."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ['audited', 'calls_of']


def calls_of(work: Callable[[], Any]) -> Counter[str]:
    """How often functions are called, of Python and of C, by name, in this thread."""
    calls: Counter[str] = Counter()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event in ('call', 'c_call'):
            calls[frame.f_code.co_name if event == 'call' else argument.__name__] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@contextmanager
def audited() -> Iterator[list[str]]:
    """What Python tells its auditors within the block. A hook stays for ever, so it is told to stop listening."""
    events: list[str] = []
    listening = True
    sys.addaudithook(lambda event, _: events.append(event) if listening else None)
    try:
        yield events
    finally:
        listening = False
