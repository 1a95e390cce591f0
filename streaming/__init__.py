"""Datasets in object storage, streamed to training jobs: write shards, read them, iterate them in a fixed order, resume anywhere.

The public names load on first use: ``import streaming`` imports neither torch nor a cloud's SDK, and a machine that only writes
datasets does not need torch at all.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.dataset import StreamingDataset
    from streaming.loader import StreamingDataLoader
    from streaming.local import LocalDataset
    from streaming.stream import Stream
    from streaming.world import World
    from streaming.writers.convert import convert
    from streaming.writers.jsonl import JSONWriter
    from streaming.writers.mds import MDSWriter
    from streaming.writers.merge import merge_index
    from streaming.writers.xsv import CSVWriter, TSVWriter, XSVWriter

__version__ = '0.1.0'

__all__ = [
    'CSVWriter',
    'JSONWriter',
    'LocalDataset',
    'MDSWriter',
    'Stream',
    'StreamingDataLoader',
    'StreamingDataset',
    'TSVWriter',
    'World',
    'XSVWriter',
    '__version__',
    'convert',
    'merge_index',
]

# Name -> the module that has it.
_HOMES = {
    'CSVWriter': 'streaming.writers.xsv',
    'JSONWriter': 'streaming.writers.jsonl',
    'LocalDataset': 'streaming.local',
    'MDSWriter': 'streaming.writers.mds',
    'Stream': 'streaming.stream',
    'StreamingDataLoader': 'streaming.loader',
    'StreamingDataset': 'streaming.dataset',
    'TSVWriter': 'streaming.writers.xsv',
    'World': 'streaming.world',
    'XSVWriter': 'streaming.writers.xsv',
    'convert': 'streaming.writers.convert',
    'merge_index': 'streaming.writers.merge',
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
