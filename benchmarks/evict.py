"""Bytes fetched per epoch by a cache of a part of the dataset: ours, least recently used, and the offline optimum as the limit.

Twice: replayed, where nothing takes time, on the shuffled order that four ranks of a node read together; and fetched, by two
workers from a folder into a cache with that ``cache_limit``, counted by the cache itself. The others are replayed on the same
order. All is counted from the second epoch on, in datasets an epoch: 1 is what it takes without a cache.
"""

from harness import Bench, call

_POLICIES = {'ours': 'ours', 'lru': 'lru', 'limit': 'optimum'}


def main() -> None:
    with Bench('evict', __doc__) as bench:
        shards, samples = bench.by_size((40, 50), (256, 500), (256, 500))
        order = {'block': bench.by_size(250, 16_000, 16_000), 'epochs': bench.by_size(2, 4, 4)}
        remote, local = bench.folder / 'remote', bench.folder / 'local'
        bench.prepare('ours', call('contenders.evict:write', remote=remote, shards=shards, samples=samples))
        # What is counted is the same in every round.
        for part in (0.25, 0.5, 0.75):
            given = {'part': part, **order}
            bench.compare(
                'evict/replayed',
                f'cache of {part:.0%}',
                'datasets/epoch',
                {
                    contender: call('contenders.evict:replayed', policy=policy, shards=shards, samples=samples, **given)
                    for contender, policy in _POLICIES.items()
                },
                rounds=1,
            )
            bench.compare(
                'evict/fetched',
                f'cache of {part:.0%}',
                'datasets/epoch',
                {
                    'ours': call('contenders.evict:fetched', remote=remote, local=local, **given),
                    **{
                        contender: call('contenders.evict:replayed_as_written', policy=policy, remote=remote, **given)
                        for contender, policy in _POLICIES.items()
                        if contender != 'ours'
                    },
                },
                rounds=1,
            )


if __name__ == '__main__':
    main()
