"""Functions and objects by name, as ``module:attribute``, so that a command line and other machines can say them."""

import importlib
import sys
from pathlib import Path
from typing import Any

from streaming.errors import ArgumentError

__all__ = ['load_named', 'name_of']


def load_named(what: Any, purpose: str) -> Any:
    """What is meant by a name; anything but a name is itself.

    Args:
        what: ``'module:attribute'`` (the working directory counts as a place of modules), or the thing itself.
        purpose: What it is for, for messages.

    Raises:
        ArgumentError: there is nothing of that name.
    """
    if not isinstance(what, str):
        return what
    module, colon, attribute = what.partition(':')
    if not colon or not module or not attribute:
        raise ArgumentError(f'{purpose} must be named as module:attribute, got {what!r}')
    try:
        found = _import(module)
        for name in attribute.split('.'):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ArgumentError(f'{purpose} {what!r} cannot be loaded: {error}') from error
    return found


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        here = str(Path.cwd())
        if error.name != module.partition('.')[0] or here in sys.path:
            raise
        # An installed command has its own folder there, not the one that it was called in.
        sys.path.insert(0, here)
        return importlib.import_module(module)


def name_of(what: Any) -> str | None:
    """The name of a function or object, to tell it from others; None for nothing."""
    if what is None or isinstance(what, str):
        return what
    named = what if hasattr(what, '__qualname__') and hasattr(what, '__module__') else type(what)
    return f'{named.__module__}:{named.__qualname__}'
