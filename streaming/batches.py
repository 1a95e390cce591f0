"""Whole batches: when a loader may have them, and how they become what torch's default_collate makes of their samples."""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from streaming.dataset import StreamingDataset
from streaming.readers.gather import Column

__all__ = ['collate', 'why_not_whole']


def why_not_whole(dataset: StreamingDataset, batch_size: int | None, collate_fn: Any) -> str | None:
    """Why the batches of a loader have to be made of samples, in words; None where they need not be."""
    kind = type(dataset)
    for name in ('__getitem__', '__iter__'):
        if getattr(kind, name) is not getattr(StreamingDataset, name):
            return f'{kind.__name__} has its own {name}'
    if batch_size is None:
        return 'the loader has batch_size=None'
    if collate_fn is not default_collate:
        return 'the loader has its own collate_fn'
    if any(function.__module__ != default_collate.__module__ for function in default_collate_fn_map.values()):
        return 'default_collate has been given functions of its user'
    return None


def collate(batch: list[dict[str, Any]] | dict[str, Column]) -> dict[str, Any]:
    """What default_collate makes of the samples of a batch, which come as such or as columns."""
    if isinstance(batch, list):
        return {name: _collate_values([sample[name] for sample in batch]) for name in batch[0]}
    return {name: _collate_column(column) for name, column in batch.items()}


def _collate_values(values: list[Any]) -> Any:
    first = values[0]
    if type(first) is not np.ndarray or not first.ndim:
        return default_collate(values)
    dtype, shape = first.dtype, first.shape
    if not all(type(value) is np.ndarray and value.dtype == dtype and value.shape == shape for value in values):
        return default_collate(values)  # says what is wrong with them
    # A tensor of each, as default_collate makes them, takes most of its time.
    return torch.from_numpy(np.stack(values))


def _collate_column(column: Column) -> Any:
    if isinstance(column, list):
        # Of text and bytes default_collate makes nothing else.
        return column if type(column[0]) in (str, bytes) else default_collate(column)
    if column.ndim > 1:
        return torch.from_numpy(column)
    dtype = _dtype_of_numbers(column.dtype)
    return default_collate(list(column)) if dtype is None else torch.from_numpy(column).to(dtype)


@cache
def _dtype_of_numbers(dtype: np.dtype[Any]) -> torch.dtype | None:
    """The dtype in which default_collate puts numbers of a dtype of NumPy; None if it does not take them."""
    try:
        found: NDArray[Any] | torch.Tensor = default_collate([dtype.type(1)])
    except (TypeError, RuntimeError):
        return None
    return found.dtype if isinstance(found, torch.Tensor) else None
