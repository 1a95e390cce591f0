"""Packages of clusters, which are large and rarely there: loaded on use."""

import importlib
from typing import Any

from streaming.errors import MissingExtraError

__all__ = ['load_extra']


def load_extra(module: str, extra: str) -> Any:
    """A module of an optional package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition('.')[0]
        raise MissingExtraError(
            f"working on {extra} needs {error.name or package}: pip install 'streaming-dataset[{extra}]'"
        ) from error
