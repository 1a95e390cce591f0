"""webdataset, for `convert.py`: a loop over a ShardWriter."""

import os
import shutil
from pathlib import Path
from typing import Any

import webdataset

from contenders.convert_input import Watch, inputs
from contenders.convert_input import records as records_of

__all__ = ['convert']


def convert(source: str, workload: str, out: str, records: int, workers: int) -> dict[str, Any]:
    """Records converted a second by one writer in one process. Images are given as the bytes of their files."""
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    watch = Watch()
    number = 0
    with webdataset.ShardWriter(f'{out}/%06d.tar', maxsize=1 << 26, verbose=0) as writer:
        for path in inputs(source, workload):
            for record in records_of(path, workload):
                if workload == 'jpeg':
                    sample = {'jpg': Path(path).read_bytes(), 'cls': record['label']}
                else:
                    sample = {'txt': record['text'], 'cls': record['id']}
                writer.write({'__key__': f'{number:010}', **sample})
                number += 1
    return watch.result(records, webdataset.__version__)
