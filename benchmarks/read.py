"""Samples of a dataset on the local disk, one at a time and without workers: by index all over it, and one after the other.

The limit is a bare loop over the same files: map, slice, decode.
"""

from harness import Bench, call
from harness.workloads import WORKLOADS


def main() -> None:
    with Bench('read', __doc__, workloads=tuple(WORKLOADS)) as bench:
        seconds = bench.by_size(0.05, 1.0, 3.0)
        for workload in bench.workloads:
            count = WORKLOADS[workload].counts[bench.size]
            mds, lit, tar = (bench.folder / f'{workload}-{name}' for name in ('mds', 'litdata', 'tar'))
            bench.prepare('ours', call('contenders.mds:write', folder=mds, workload=workload, count=count))
            if bench.has('litdata'):
                bench.prepare('litdata', call('contenders.litdata:write', folder=lit, workload=workload, count=count))
            if bench.has('webdataset'):
                bench.prepare('webdataset', call('contenders.webdataset:write', folder=tar, workload=workload, count=count))
            bench.compare(
                'read/random',
                workload,
                'samples/s',
                {
                    'ours': call('contenders.mds:random_access', folder=mds, seconds=seconds),
                    'limit': call('contenders.limit:random_access', folder=mds, workload=workload, seconds=seconds),
                    'mosaicml': call('contenders.mds:random_access', folder=mds, seconds=seconds),
                    'litdata': call('contenders.litdata:random_access', folder=lit, seconds=seconds),
                },
            )
            bench.compare(
                'read/iterate',
                workload,
                'samples/s',
                {
                    'ours': call('contenders.mds:iterate', folder=mds, seconds=seconds),
                    'ours LocalDataset': call('contenders.mds:iterate_local', folder=mds, seconds=seconds),
                    'limit': call('contenders.limit:iterate', folder=mds, workload=workload, seconds=seconds),
                    'mosaicml': call('contenders.mds:iterate', folder=mds, seconds=seconds),
                    'litdata': call('contenders.litdata:iterate', folder=lit, seconds=seconds),
                    'webdataset': call('contenders.webdataset:iterate', folder=tar, seconds=seconds),
                },
            )
            bench.remove(mds, lit, tar)


if __name__ == '__main__':
    main()
