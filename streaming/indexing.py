"""What may stand in brackets behind a dataset: an int, a negative int, a slice, a list or an array of ints."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

__all__ = ['resolve']

T = TypeVar('T')


def resolve(index: Any, size: int, read: Callable[[int], T]) -> T | list[T]:
    """Read what an index asks for.

    Args:
        index: An int (from the end if negative), a slice, or a sequence or array of ints.
        size: How many samples there are.
        read: Reads one, by its number from 0.

    Returns:
        One sample for an int, else a list.

    Raises:
        IndexError: there is no such sample.
        TypeError: it is no index.
    """
    if type(index) is int:
        if 0 <= index < size:
            return read(index)
        return read(_inside(index, size))
    if isinstance(index, slice):
        return [read(number) for number in range(*index.indices(size))]
    if isinstance(index, np.ndarray):
        if index.dtype == bool or not np.issubdtype(index.dtype, np.integer):
            raise TypeError(f'samples are numbered by integers, got an array of {index.dtype}')
        if index.ndim == 0:
            return read(_inside(int(index), size))
        return [read(_inside(number, size)) for number in index.ravel().tolist()]
    if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
        return read(_inside(int(index), size))
    if isinstance(index, Iterable) and not isinstance(index, (str, bytes)):
        # Each checked before the first is read.
        return [read(number) for number in [_inside(_integer(item), size) for item in index]]
    raise TypeError(f'samples are numbered by integers, got {type(index).__name__}')


def _integer(item: Any) -> int:
    if isinstance(item, bool) or not hasattr(item, '__index__'):
        raise TypeError(f'samples are numbered by integers, got {type(item).__name__}')
    return int(item.__index__())


def _inside(number: int, size: int) -> int:
    if not -size <= number < size:
        raise IndexError(f'sample {number} of a dataset of {size}')
    return number + size if number < 0 else number
