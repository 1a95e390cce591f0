"""Seconds until a worker knows its first batch, and the memory that this takes, by the number of samples.

``memory_mb`` is the most beyond the table of shards, which the processes of a node can map from one file. Up to 10^8 samples the
order py1e of mosaicml-streaming is measured too, by that package and by our code: it needs an array of the epoch.
"""

from typing import Any

from harness.bench import Bench, call

# Samples, shards, nodes: of 8 ranks with 8 workers each.
TINY = ((10**6, 10**2, 1),)
SMALL = (*TINY, (10**7, 10**3, 1), (10**9, 10**5, 1), (10**9, 10**5, 4096), (10**12, 10**7, 4096))
FULL = (*SMALL[:2], (10**8, 10**4, 1), *SMALL[2:])
METHODS = ('random', 'stratified', 'per_stream', 'device_per_stream')
# Above, an array of the epoch is too much.
MOST_COMPATIBLE = 10**8


def main() -> None:
    with Bench('order', __doc__) as bench:
        for samples, shards, nodes in bench.by_size(TINY, SMALL, FULL):
            for method in METHODS:
                given: dict[str, Any] = {'samples': samples, 'shards': shards, 'nodes': nodes, 'method': method}
                given.update(ranks=8, workers=8, batch_size=32)
                calls = {'ours': call('contenders.orders:first_batch', algo='windowed', **given)}
                if method == 'random' and samples <= MOST_COMPATIBLE:
                    calls['ours py1e'] = call('contenders.orders:first_batch', algo='py1e', **given)
                    calls['mosaicml py1e'] = call('contenders.orders_mosaicml:first_batch', algo='py1e', **given)
                workload = f'{samples:.0e} samples in {shards:.0e} shards, {nodes} nodes, {method}'
                bench.compare('order/first_batch', workload, 's', calls, fresh=True)


if __name__ == '__main__':
    main()
