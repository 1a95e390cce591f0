"""Timing what gives samples, with the same few nanoseconds of counting for everybody."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from time import perf_counter
from typing import Any

__all__ = ['calls_per_second', 'items_per_second', 'take']


def take(items: Iterator[Any], most: int) -> int:
    """Take and drop up to so many items; say how many there were."""
    last = deque(enumerate(islice(items, most), 1), maxlen=1)
    return last[0][0] if last else 0


def items_per_second(items: Iterable[Any], seconds: float, step: int = 100) -> float:
    """Items a second, from the first item on (what comes before it is another benchmark's), for about so many seconds.

    Raises:
        ValueError: there are not enough items to time.
    """
    iterator = iter(items)
    take(iterator, 1)
    count, begin = 0, perf_counter()
    while True:
        taken = take(iterator, step)
        count += taken
        elapsed = perf_counter() - begin
        if taken < step or elapsed >= seconds:
            break
    if not count:
        raise ValueError('fewer than two items: nothing to time')
    return count / elapsed


def calls_per_second(function: Callable[[int], Any], arguments: Sequence[int], seconds: float, step: int = 100) -> float:
    """Calls a second, one argument each, after one that is not counted, for about so many seconds."""
    return items_per_second(map(function, arguments), seconds, step)
