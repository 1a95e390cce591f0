"""Seconds from the constructor to the first batch, and the memory it takes: a shuffled local dataset of very many shards.

Each shard is another name of one file, so that 100,000 of them fit anywhere; indices are whole. Each start has a process of its
own, whose imports are not counted. webdataset has no index, shuffles a thousand samples at a time, and so has nothing to plan.
"""

from harness import Bench, call
from harness.datasets import MODULES, calls

_SAMPLES = 1000


def main() -> None:
    with Bench('start', __doc__) as bench:
        shards = bench.by_size(20, 100_000, 100_000)
        folders = {}
        for contender, kind in (('ours', 'mds'), ('litdata', 'litdata'), ('webdataset', 'tar')):
            if contender == 'ours' or bench.has(contender):
                one, many = bench.folder / f'one-{kind}', bench.folder / f'many-{kind}'
                bench.prepare(contender, call(f'{MODULES[contender]}:write', folder=one, workload='ints', count=_SAMPLES))
                bench.prepare('ours', call(f'contenders.many:multiply_{kind}', folder=one, into=many, count=shards))
                folders[contender] = many
        folders['mosaicml'] = folders['ours']
        bench.compare(
            'start/first_batch',
            f'ints, {shards} shards, {shards * _SAMPLES:.0e} samples',
            's',
            calls(folders, 'start', shuffle=True),
            fresh=True,
            limit_s=400,
        )


if __name__ == '__main__':
    main()
