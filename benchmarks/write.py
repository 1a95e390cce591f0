"""Writing a dataset to the local disk with one writer: without compression, and with zstd and xxh64 of every file.

The limit is the codec with its hashes alone, on as many cores, over the same shards in memory. litData and webdataset know no
hashes, and webdataset no zstd, so that it is left out there.
"""

import os

from harness import Bench, call
from harness.datasets import MODULES, calls
from harness.workloads import WORKLOADS

# So many shards, whatever the size: a writer that packs them side by side has something to do.
_SHARDS = 16


def main() -> None:
    with Bench('write', __doc__, workloads=tuple(WORKLOADS)) as bench:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        for workload in bench.workloads:
            kind = WORKLOADS[workload]
            count = kind.counts[bench.size]
            folders = {contender: bench.folder / f'{workload}-{contender}' for contender in MODULES}
            arguments = {'workload': workload, 'count': count, 'size_limit': max(1 << 16, count * kind.sample_bytes // _SHARDS)}
            bench.compare('write/none', workload, 'samples/s', calls(folders, 'write', **arguments))
            raw = bench.folder / f'{workload}-raw'
            bench.prepare('ours', call('contenders.mds:write', folder=raw, **arguments))
            bench.compare(
                'write/zstd+xxh64',
                workload,
                'samples/s',
                {
                    'limit': call('contenders.limit:codec', folder=raw, cores=cores),
                    **calls(folders, 'write', without=['webdataset'], compression='zstd', hashes=['xxh64'], **arguments),
                },
            )


if __name__ == '__main__':
    main()
