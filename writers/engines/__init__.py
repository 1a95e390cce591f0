"""Parts of a conversion as tasks of a cluster that people already have: Ray, Spark or Dask, each an extra.

An engine is handed to `convert(engine=...)`. It calls one function with every part, anywhere; shards go from there straight to
the store, and only what the index says of them comes back.
"""

import importlib
from typing import Any

from streaming.errors import ArgumentError
from streaming.writers.convert.run import Engine

__all__ = ['get_engine', 'get_engines']

_engines = {
    'dask': 'streaming.writers.engines.dask:DaskEngine',
    'ray': 'streaming.writers.engines.ray:RayEngine',
    'spark': 'streaming.writers.engines.spark:SparkEngine',
}


def get_engines() -> list[str]:
    """The names of all engines, sorted."""
    return sorted(_engines)


def get_engine(name: str, **options: Any) -> Engine:
    """An engine by its name, with options of its own.

    Raises:
        ArgumentError: there is none of that name.
        MissingExtraError: its package is not installed.
    """
    if name not in _engines:
        raise ArgumentError(f'no engine named {name!r}; there are {", ".join(get_engines())}')
    module, _, attribute = _engines[name].partition(':')
    engine: Engine = getattr(importlib.import_module(module), attribute)(**options)
    return engine
