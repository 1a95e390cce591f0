"""Ours, for `convert.py`: the function that people call."""

import shutil
from typing import Any

from contenders.convert_input import Watch

__all__ = ['convert']


def convert(source: str, workload: str, out: str, records: int, workers: int) -> dict[str, Any]:
    """Records converted a second, from the call to its return."""
    import streaming

    shutil.rmtree(out, ignore_errors=True)
    watch = Watch()
    select = ['image', 'label'] if workload == 'jpeg' else ['id', 'text']
    summary = streaming.convert(source, out, workers=workers, select=select)
    result = watch.result(records, streaming.__version__)
    if summary.samples != records:
        raise ValueError(f'{summary.samples} of {records} records')
    return result
