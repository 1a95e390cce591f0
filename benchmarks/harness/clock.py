"""Timing what gives samples, with the same few nanoseconds of counting for everybody."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from time import perf_counter
from typing import Any

__all__ = ['calls_per_second', 'items_per_second', 'take']


def take(items: Iterator[Any], most: int) -> int:
    """Take and drop up to so many items; say how many there were."""
    last = deque(enumerate(islice(items, most), 1), maxlen=1)
    return last[0][0] if last else 0


def items_per_second(epoch: Callable[[], Iterable[Any]], seconds: float, step: int = 100) -> float:
    """Items a second, for about so many seconds, epoch after epoch.

    The time of an epoch runs from its first item on: what comes before that is another benchmark's. Epochs that take longer to
    begin than to run are not repeated for ever: after ten times as many seconds it is over.

    Raises:
        ValueError: there are not enough items to time.
    """
    count, timed, end = 0, 0.0, perf_counter() + 10 * seconds
    while timed < seconds and perf_counter() < end:
        # One iterator, whoever asks: that of litData begins again whenever it is asked for one.
        iterator = chain(epoch())
        take(iterator, 1)
        found, begin, elapsed = 0, perf_counter(), 0.0
        while timed + elapsed < seconds:
            taken = take(iterator, step)
            found += taken
            elapsed = perf_counter() - begin
            if taken < step:
                break
        if not found:
            raise ValueError('fewer than two items: nothing to time')
        count, timed = count + found, timed + elapsed
    return count / timed


def calls_per_second(function: Callable[[int], Any], arguments: Sequence[int], seconds: float, step: int = 100) -> float:
    """Calls a second, one argument each, for about so many seconds."""
    return items_per_second(lambda: map(function, arguments), seconds, step)
