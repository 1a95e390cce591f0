"""Samples of a dataset on the local disk, one at a time and without workers: by index all over it, and one after the other.

The limit is a bare loop over the same files: map, slice, decode.
"""

from harness import Bench, call
from harness.datasets import calls, write_datasets
from harness.workloads import WORKLOADS


def main() -> None:
    with Bench('read', __doc__, workloads=tuple(WORKLOADS)) as bench:
        seconds = bench.by_size(0.05, 0.8, 3.0)
        for workload in bench.workloads:
            folders = write_datasets(bench, workload)
            mds = folders['ours']
            bench.compare(
                'read/random',
                workload,
                'samples/s',
                {
                    'limit': call('contenders.limit:random_access', folder=mds, workload=workload, seconds=seconds),
                    **calls(folders, 'random_access', without=['webdataset'], seconds=seconds),
                },
            )
            bench.compare(
                'read/iterate',
                workload,
                'samples/s',
                {
                    'limit': call('contenders.limit:iterate', folder=mds, workload=workload, seconds=seconds),
                    'ours LocalDataset': call('contenders.mds:iterate_local', folder=mds, seconds=seconds),
                    **calls(folders, 'iterate', seconds=seconds),
                },
            )


if __name__ == '__main__':
    main()
