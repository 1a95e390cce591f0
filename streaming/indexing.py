"""What may stand in brackets behind a dataset: an int, a negative int, a slice, a list or an array of ints."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ['resolve']

T = TypeVar('T')


def resolve(
    index: Any, size: int, read: Callable[[int], T], read_many: Callable[[NDArray[np.int64]], Iterable[T]]
) -> T | list[T]:
    """Read what an index asks for.

    Args:
        index: An int (from the end if negative), a slice, or a sequence or array of ints.
        size: How many samples there are.
        read: Reads one, by its number from 0.
        read_many: Reads some, by their numbers.

    Returns:
        One sample for an int, else a list.

    Raises:
        IndexError: there is no such sample. Nothing was read.
        TypeError: it is no index.
    """
    if isinstance(index, slice):
        return list(read_many(np.arange(*index.indices(size))))
    if isinstance(index, np.ndarray) and index.ndim:
        if not np.issubdtype(index.dtype, np.integer):
            raise TypeError(f'samples are numbered by integers, got an array of {index.dtype}')
        return list(read_many(_all_inside(index.ravel(), size)))
    if hasattr(index, '__index__') and not isinstance(index, bool):
        return read(_inside(_integer(index), size))
    if isinstance(index, Iterable) and not isinstance(index, (str, bytes)):
        return list(read_many(np.array([_inside(_integer(item), size) for item in index], np.int64)))
    raise TypeError(f'samples are numbered by integers, got {type(index).__name__}')


def _integer(item: Any) -> int:
    if isinstance(item, bool) or not hasattr(item, '__index__'):
        raise TypeError(f'samples are numbered by integers, got {type(item).__name__}')
    return int(item.__index__())


def _all_inside(numbers: NDArray[Any], size: int) -> NDArray[np.int64]:
    outside = (numbers < -size) | (numbers >= size)
    if outside.any():
        _inside(int(numbers[outside][0]), size)
    numbers = numbers.astype(np.int64)
    return np.where(numbers < 0, numbers + size, numbers)


def _inside(number: int, size: int) -> int:
    if not -size <= number < size:
        raise IndexError(f'sample {number} of a dataset of {size}')
    return number + size if number < 0 else number
