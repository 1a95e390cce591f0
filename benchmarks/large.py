"""Memory while an object of 10 GB is put and read, and while a million keys are listed (--size full).

The bucket is made up as it is asked for, by a thread of the same process, which `peak_rss_mb` counts in. `rss_before_mb` is what
the process had before.
"""

from harness import Bench, call


def main() -> None:
    with Bench('large', __doc__) as bench:
        gb = bench.by_size(0.1, 1, 10)
        keys = bench.by_size(10_000, 100_000, 1_000_000)
        folder = str(bench.folder)
        for name, workload, made in (
            ('upload', f'{gb} GB', call('contenders.large:upload', folder=folder, gb=gb)),
            ('download', f'{gb} GB', call('contenders.large:download', gb=gb)),
            ('list', f'{keys} keys', call('contenders.large:listing', keys=keys)),
        ):
            bench.compare(f'large/{name}', workload, 's', {'ours': made}, more_is_better=False, rounds=1, fresh=True)


if __name__ == '__main__':
    main()
