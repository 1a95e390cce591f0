"""The same samples in each package's own format, and the calls that read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.bench import Bench, Call, call
from harness.workloads import WORKLOADS

__all__ = ['MODULES', 'calls', 'write_datasets']

# Contender -> the module of what it runs. Ours and mosaicml-streaming read and write one format by one interface.
MODULES = {
    'ours': 'contenders.mds',
    'mosaicml': 'contenders.mds',
    'litdata': 'contenders.litdata',
    'webdataset': 'contenders.webdataset',
}


_MOST_TAR = 10_000


def write_datasets(bench: Bench, workload: str, count: int | None = None) -> dict[str, Path]:
    """Write a workload once for each contender that takes part.

    Returns:
        Contender -> its dataset. Ours and mosaicml-streaming have one together, which is there in any case: the limit reads it.
    """
    count = count or WORKLOADS[workload].counts[bench.size]
    arguments: dict[str, Any] = {'workload': workload, 'count': count}
    mds = bench.folder / f'{workload}-mds'
    bench.prepare('ours', call('contenders.mds:write', folder=mds, **arguments))
    folders = {'ours': mds, 'mosaicml': mds}
    for contender in ('litdata', 'webdataset'):
        if bench.has(contender):
            folders[contender] = bench.folder / f'{workload}-{contender}'
            if contender == 'webdataset':
                # At a few thousand samples a second more are never read, and tar pads each to kilobytes. A shard for each worker.
                count = min(count, _MOST_TAR)
                arguments |= {'count': count, 'size_limit': count * WORKLOADS[workload].sample_bytes // 8}
            bench.prepare(contender, call(f'{MODULES[contender]}:write', folder=folders[contender], **arguments))
    return folders


def calls(folders: dict[str, Path], function: str, *, without: Sequence[str] = (), **arguments: Any) -> dict[str, Call]:
    """For each contender a call of its module's ``function`` on its dataset."""
    return {
        contender: call(f'{MODULES[contender]}:{function}', folder=folder, **arguments)
        for contender, folder in folders.items()
        if contender not in without
    }
