"""Default-collated batches of 64 samples through each package's loader, from the local disk, without workers and with two.

The limit is a NumPy gather of the same bytes, and for samples of many sizes one pass over them, in one process. Batches come in
order; those of tokens shuffled too.
"""

from harness import Bench, call
from harness.datasets import calls, write_datasets
from harness.workloads import WORKLOADS

# Where worker processes are measured too.
_WITH_WORKERS = ('text', 'blobs', 'tokens')


def main() -> None:
    with Bench('batch', __doc__, workloads=tuple(WORKLOADS)) as bench:
        seconds = bench.by_size(0.05, 0.8, 3.0)
        for workload in bench.workloads:
            folders = write_datasets(bench, workload)
            cases = [(workers, False) for workers in (0, *([2] if workload in _WITH_WORKERS else []))]
            if workload == 'tokens':
                cases.append((0, True))
            for workers, shuffle in cases:
                timing = {'seconds': seconds, 'shuffle': shuffle}
                bench.compare(
                    f'batch/{workers}_workers',
                    f'{workload} shuffled' if shuffle else workload,
                    'samples/s',
                    {
                        'limit': call('contenders.limit:batches', folder=folders['ours'], workload=workload, **timing),
                        **calls(folders, 'batches', workers=workers, **timing),
                    },
                )


if __name__ == '__main__':
    main()
