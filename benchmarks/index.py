"""Seconds to load an index, and the memory that takes: what every rank and every spawned worker does first.

``memory_mb`` is the most beyond the index's own bytes, ``kept_mb`` what stays, ``cpu_s`` the seconds in which a core was busy.
The limit is Python's json alone, which checks nothing.
"""

from harness.bench import Bench, call


def main() -> None:
    with Bench('index', __doc__) as bench:
        for shards in bench.by_size((1000,), (10_000, 100_000), (10_000, 100_000, 1_000_000)):
            path = str(bench.folder / f'index-{shards}.json')
            bench.prepare('ours', call('contenders.indices:write', path=path, shards=shards))
            calls = {
                'ours': call('contenders.indices:load_ours', path=path),
                'limit': call('contenders.indices:load_json', path=path),
                'mosaicml': call('contenders.indices:load_mosaicml', path=path),
            }
            bench.compare('index/load', f'{shards:,} shards', 's', calls, fresh=True)


if __name__ == '__main__':
    main()
