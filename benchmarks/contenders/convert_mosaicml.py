"""mosaicml-streaming, for `convert.py`: a loop over an MDSWriter, and its recipe for many processes."""

import os
import shutil
from itertools import chain
from multiprocessing import Pool
from typing import Any

import streaming
from contenders.convert_input import Watch, inputs
from contenders.convert_input import records as records_of
from streaming.base.util import merge_index

__all__ = ['convert', 'convert_in_processes']

_COLUMNS = {'jpeg': {'image': 'jpeg', 'label': 'int'}}
_TEXT = {'id': 'int', 'text': 'str'}


def convert(source: str, workload: str, out: str, records: int, workers: int) -> dict[str, Any]:
    """Records converted a second by one writer in one process, as its guide does it."""
    shutil.rmtree(out, ignore_errors=True)
    watch = Watch()
    _write(out, workload, inputs(source, workload))
    return watch.result(records, streaming.__version__)


def convert_in_processes(source: str, workload: str, out: str, records: int, workers: int) -> dict[str, Any]:
    """Records converted a second by a writer in each of some processes, whose indices are merged: its parallel recipe."""
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    watch = Watch()
    paths = inputs(source, workload)
    shares = [paths[len(paths) * number // workers : len(paths) * (number + 1) // workers] for number in range(workers)]
    with Pool(workers) as pool:
        pool.starmap(_write, [(f'{out}/{number}', workload, share) for number, share in enumerate(shares)])
    merge_index(out, keep_local=True)
    return watch.result(records, streaming.__version__)


def _write(out: str, workload: str, paths: list[str]) -> None:
    with streaming.MDSWriter(out=out, columns=_COLUMNS.get(workload, _TEXT)) as writer:
        for record in chain.from_iterable(records_of(path, workload) for path in paths):
            writer.write(record)
