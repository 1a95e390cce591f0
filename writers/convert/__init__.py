"""What people have -> a dataset: planned purely, done in parts by whatever has cores, committed once.

`convert` does all of it on this machine. What does it elsewhere takes the same steps: `prepare` says what is to be done, as a
value that pickles; `run` does it on an engine, which calls `convert_part` with each part anywhere; `plan_parts`, `convert_part`
and `finish` are the steps one by one.
"""

import sys
from types import ModuleType
from typing import Any

from streaming.writers.convert.job import Job, Part, PartResult
from streaming.writers.convert.parts import convert_part, write_records
from streaming.writers.convert.plan import JobOptions, plan_parts, prepare
from streaming.writers.convert.progress import ConvertSummary, Progress
from streaming.writers.convert.run import Engine, convert, finish, run
from streaming.writers.convert.shuffle import gather_parts
from streaming.writers.convert.sources import Source, get_source_kinds, open_source, register_source
from streaming.writers.convert.tokens import Tokenizing

__all__ = [
    'ConvertSummary',
    'Engine',
    'Job',
    'JobOptions',
    'Part',
    'PartResult',
    'Progress',
    'Source',
    'Tokenizing',
    'convert',
    'convert_part',
    'finish',
    'gather_parts',
    'get_source_kinds',
    'open_source',
    'plan_parts',
    'prepare',
    'register_source',
    'run',
    'write_records',
]


class _Callable(ModuleType):
    """Lets `streaming.writers.convert` be called: the function has the name of its package."""

    def __call__(self, *args: Any, **options: Any) -> ConvertSummary:
        return convert(*args, **options)


sys.modules[__name__].__class__ = _Callable
