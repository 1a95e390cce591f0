"""litData, for `convert.py`: its `optimize`, with a worker a core."""

import shutil
from functools import partial
from importlib.metadata import version
from typing import Any

import litdata

from contenders.convert_input import Watch, inputs
from contenders.convert_input import records as records_of

__all__ = ['convert']


def convert(source: str, workload: str, out: str, records: int, workers: int) -> dict[str, Any]:
    """Records converted a second, from the call to its return."""
    shutil.rmtree(out, ignore_errors=True)
    watch = Watch()
    litdata.optimize(
        fn=partial(records_of, workload=workload),
        inputs=inputs(source, workload),
        output_dir=out,
        chunk_bytes=1 << 26,
        num_workers=workers,
        verbose=False,
    )
    return watch.result(records, version('litdata'))
