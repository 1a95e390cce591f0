"""Writing a dataset to the local disk with one writer: without compression, and with zstd and xxh64 of every file.

The limit is the codec with its hashes alone, on as many cores, over the same shards in memory; ``limit with files`` writes what
it packed to files as well. litData and webdataset know no hashes, and webdataset no zstd, so that it is left out there. Everybody
has written a little before, as what is imported at first use is not writing, and has memory for the files at hand.
"""

import os

from harness import Bench, call
from harness.bench import Call
from harness.datasets import MODULES, calls
from harness.workloads import WORKLOADS

# So many shards, whatever the size: a writer that packs them side by side has something to do.
_SHARDS = 16

# Where a dataset is packed in a tenth of a second, more samples, so that this is not the time of taking memory.
_TIMES = {'text': 4, 'tokens': 4}


def main() -> None:
    with Bench('write', __doc__, workloads=tuple(WORKLOADS)) as bench:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        for workload in bench.workloads:
            kind = WORKLOADS[workload]
            count = kind.counts[bench.size] * bench.by_size(1, _TIMES.get(workload, 1), 1)
            folders = {contender: bench.folder / f'{workload}-{contender}' for contender in MODULES}
            arguments = {'workload': workload, 'count': count, 'size_limit': max(1 << 16, count * kind.sample_bytes // _SHARDS)}
            compare(bench, 'write/none', workload, calls(folders, 'write', **arguments))
            raw = bench.folder / f'{workload}-raw'
            bench.prepare('ours', call('contenders.mds:write', folder=raw, **arguments))
            packing = {
                'limit': call('contenders.limit:codec', folder=raw, cores=cores),
                'limit with files': call(
                    'contenders.limit:codec', folder=raw, cores=cores, out=bench.folder / f'{workload}-packed'
                ),
                **calls(folders, 'write', without=['webdataset'], compression='zstd', hashes=['xxh64'], **arguments),
            }
            compare(bench, 'write/zstd+xxh64', workload, packing)


def compare(bench: Bench, name: str, workload: str, contenders: dict[str, Call]) -> None:
    """Compare writers that have written some samples before."""
    for contender, (function, arguments) in contenders.items():
        if bench.has(contender):
            few = {'folder': bench.folder / 'few', 'count': 256} if 'count' in arguments else {}
            bench.prepare(contender, (function, {**arguments, **few}))
    bench.remove(bench.folder / 'few')
    bench.compare(name, workload, 'samples/s', contenders)


if __name__ == '__main__':
    main()
