"""Memory over many epochs: two ranks with two persistent workers each, from a remote through an empty cache, shuffled.

The value is by how much the process that grew the most had grown from the second epoch to the last. webdataset's epochs are those
of a plain loader, without a cache.
"""

from harness import Bench, call
from harness.datasets import MODULES, write_datasets


def main() -> None:
    with Bench('soak', __doc__) as bench:
        epochs = bench.by_size(3, 10, 50)
        folders = write_datasets(bench, 'mixed', count=bench.by_size(256, 10_000, 40_000))
        bench.compare(
            'soak/growth',
            f'mixed, {epochs} epochs',
            'MB',
            {
                contender: call(
                    'contenders.soak:soak',
                    module=MODULES[contender],
                    folder=folder,
                    cache=bench.folder / f'cache-{contender}',
                    epochs=epochs,
                    ranks=bench.by_size(1, 2, 2),
                    workers=bench.by_size(1, 2, 2),
                )
                for contender, folder in folders.items()
            },
            rounds=1,
            limit_s=500,
        )


if __name__ == '__main__':
    main()
