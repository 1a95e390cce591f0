"""First batch and cold epoch from an object store at 30 ms, beside mosaicml-streaming, litData and bare parallel GETs.

Token samples are written as MDS and by litData, plain and with zstd, and served from a loopback S3 server that lets every request
wait 30 ms and gives a connection 80 MB/s. Each package reads an epoch into an empty cache with 2 workers, in order and shuffled,
in a process of its own. A contender whose epoch has not every sample fails. The limit is parallel GETs of the same bytes to disk.
At full size only we read shuffled: the others take four minutes each. Before each epoch, memory for the copies is taken from the
host of a virtual machine and freed again: what nothing uses for a second goes back there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Bench, call
from harness.process import BENCHMARKS

_READERS = {'ours': 'mds', 'mosaicml': 'mds', 'litdata': 'litdata'}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, str(BENCHMARKS / 'harness' / 's3_server.py'), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def main() -> None:
    with Bench('stream', __doc__, workloads=('plain', 'zstd')) as bench:
        count = bench.by_size(512, 64_000, 320_000)
        shard_bytes = bench.by_size(1 << 19, 1 << 24, 1 << 26)
        data = bench.folder / 'served' / 'data'
        data.mkdir(parents=True)
        with served(data.parent) as url:
            for codec in bench.workloads:
                written = {'workload': 'tokens', 'count': count, 'size_limit': shard_bytes}
                if codec == 'zstd':
                    written |= {'compression': 'zstd', 'hashes': ['xxh64']}
                bench.prepare('ours', call('contenders.mds:write', folder=data / f'mds-{codec}', **written))
                if bench.has('litdata'):
                    bench.prepare('litdata', call('contenders.litdata:write', folder=data / f'litdata-{codec}', **written))
                os.sync()  # nobody's epoch shall wait for what others wrote
                size = sum(file.stat().st_size for file in (data / f'mds-{codec}').iterdir())
                for shuffle in (False, True) if codec == 'plain' else (False,):
                    reading = {'url': url, 'shuffle': shuffle, 'workers': 2, 'size': 3 * size // 2}
                    calls = {
                        contender: call(
                            f'contenders.epoch:{reader}',
                            dataset=f'{reader}-{codec}',
                            local=bench.folder / f'cache-{contender}',
                            **reading,
                        )
                        for contender, reader in _READERS.items()
                        if contender == 'ours' or not (shuffle and bench.size == 'full')
                    }
                    bare = call(
                        'contenders.epoch:bare_gets',
                        dataset=f'mds-{codec}',
                        url=url,
                        local=bench.folder / 'cache-limit',
                        size=reading['size'],
                    )
                    bench.compare(
                        'stream/epoch',
                        f'tokens {codec}, {"shuffled" if shuffle else "in order"}',
                        's',
                        {'limit': bare, **calls},
                        parts={'first_s': ('stream/first_batch', 's')},
                        same=('samples', 'sum'),
                        fresh=True,
                        limit_s=400,
                    )


if __name__ == '__main__':
    main()
