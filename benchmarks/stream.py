"""First batch and cold epoch from an object store at 30 ms, beside mosaicml-streaming, litData and bare parallel GETs.

    python benchmarks/stream.py [--peers FOLDER] [--samples 320000 --shard-mb 64] [--compression zstd] [--rounds 3]

Token samples (uint16[2048]) are written twice, as MDS and by litData, and served from a loopback S3 server that lets every
request wait 30 ms and gives a connection 80 MB/s. Each library reads an epoch into an empty cache with 2 workers, in order and
shuffled. What is compared runs in turn, round by round, so that a busy machine is unfair to nobody. ``--peers`` is the folder of
the virtual environments ``mosaicml`` and ``litdata`` (default: .bench, made by ``make bench-setup``). Those that are not there
are left out, and so are epochs in which a peer fails: mosaicml-streaming does where another of its runs shares its names.

Prints a line of JSON for each measurement, and one for each ratio of medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import urllib3

HERE = Path(__file__).parent
TOKENS = 2048
RANGE_BYTES = 8 << 20

# Bare GETs keep as many connections busy as two of our workers do.
BARE_CONNECTIONS = 24


def write_tokens(path: Path, samples: int) -> None:
    """Token ids whose distribution is skewed like that of words, so that zstd has something to do."""
    tokens = np.lib.format.open_memmap(path, 'w+', np.uint16, (samples, TOKENS))
    rng = np.random.default_rng(0)
    for start in range(0, samples, 4096):
        part = tokens[start : start + 4096]
        part[:] = rng.random(part.shape, np.float32) ** 4 * 32000
    tokens.flush()


def write_mds(tokens: Path, out: Path, shard_bytes: int, compression: str | None) -> None:
    from streaming import MDSWriter

    columns = {'number': 'int', 'tokens': f'ndarray:uint16:{TOKENS}'}
    with MDSWriter(out=str(out), columns=columns, compression=compression, hashes=['xxh64'], size_limit=shard_bytes) as writer:
        for number, row in enumerate(np.load(tokens, mmap_mode='r')):
            writer.write({'number': number, 'tokens': np.asarray(row)})


@contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, str(HERE / 's3_server.py'), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def get_all(url: str, folder: Path, local: Path) -> dict[str, Any]:
    """Bare parallel GETs of a dataset's shards, by ranges, each to its place in a file."""
    pool = urllib3.HTTPConnectionPool(urlsplit(url).hostname or '', urlsplit(url).port, maxsize=BARE_CONNECTIONS)
    local.mkdir(parents=True)
    buffers = threading.local()
    files = sorted(path for path in folder.iterdir() if path.name != 'index.json')

    def get(job: tuple[Path, int, int]) -> int:
        path, start, stop = job
        if not hasattr(buffers, 'buffer'):
            buffers.buffer = memoryview(bytearray(RANGE_BYTES))
        headers = {'range': f'bytes={start}-{stop - 1}'}
        answer = pool.request('GET', f'/data/{folder.name}/{path.name}', headers=headers, preload_content=False)
        done = 0
        while done < stop - start:
            done += answer.readinto(buffers.buffer[done : stop - start])
        answer.release_conn()
        descriptor = os.open(local / path.name, os.O_WRONLY | os.O_CREAT)
        os.pwrite(descriptor, buffers.buffer[:done], start)
        os.close(descriptor)
        return done

    began = time.monotonic()
    jobs = [
        (path, start, min(start + RANGE_BYTES, path.stat().st_size))
        for path in files
        for start in range(0, path.stat().st_size, RANGE_BYTES)
    ]
    with ThreadPoolExecutor(BARE_CONNECTIONS) as threads:
        total = sum(threads.map(get, jobs))
    return {'epoch_s': time.monotonic() - began, 'bytes': total}


def run_epoch(python: Path, library: str, dataset: str, url: str, local: Path, shuffle: bool, expected: tuple[int, int]) -> Any:
    keep = {name: value for name, value in os.environ.items() if library == 'ours' or name != 'PYTHONPATH'}
    keys = {'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b', 'AWS_REGION': 'us-east-1', 'S3_ENDPOINT_URL': url}
    command = [str(python), str(HERE / 'epoch.py'), library, dataset, str(local), *(['--shuffle'] if shuffle else [])]
    done = subprocess.run(command, env={**keep, **keys, 'AWS_ENDPOINT_URL': url}, capture_output=True, text=True, timeout=600)
    failure = done.stderr
    if not done.returncode:
        found = json.loads(done.stdout.splitlines()[-1])
        if (found['samples'], found['sum']) == expected:
            return found
        failure = f'{found["samples"]} samples with the sum {found["sum"]}, not {expected}'
    if library == 'ours':
        raise SystemExit(failure)
    return {'failed': failure.strip().splitlines()[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers', type=Path, default=Path('.bench'))
    parser.add_argument('--samples', type=int, default=32_000, help='of 4 KiB each; 320000 is the full size')
    parser.add_argument('--shard-mb', type=int, default=16)
    parser.add_argument('--compression', default=None)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only', nargs='*', default=None, help='bare, ours, mosaicml, litdata')
    args = parser.parse_args()
    pythons = {'ours': Path(sys.executable)}
    for name in ('mosaicml', 'litdata'):
        if (args.peers / name / 'bin' / 'python').exists():
            pythons[name] = args.peers / name / 'bin' / 'python'
    wanted = ['bare', *pythons] if args.only is None else args.only
    expected = args.samples, args.samples * (args.samples - 1) // 2
    with tempfile.TemporaryDirectory(prefix='stream-') as temporary:
        folder = Path(temporary)
        data = folder / 'served' / 'data'
        data.mkdir(parents=True)
        write_tokens(folder / 'tokens.npy', args.samples)
        write_mds(folder / 'tokens.npy', data / 'mds', args.shard_mb << 20, args.compression)
        if 'litdata' in wanted:
            write = [str(pythons['litdata']), str(HERE / 'write_litdata.py'), str(folder / 'tokens.npy'), str(data / 'litdata')]
            keep = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
            write += [str(args.shard_mb << 20), *([args.compression] if args.compression else [])]
            subprocess.run(write, env=keep, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        with served(data.parent) as url:
            for _ in range(args.rounds):
                for order in ('in order', 'shuffled'):
                    for library in wanted:
                        if library == 'bare' and order == 'shuffled':
                            continue
                        local = folder / 'local'
                        if library == 'bare':
                            found = get_all(url, data / 'mds', local)
                        else:
                            dataset = 'litdata' if library == 'litdata' else 'mds'
                            found = run_epoch(pythons[library], library, dataset, url, local, order == 'shuffled', expected)
                        shutil.rmtree(local, ignore_errors=True)
                        stats = json.loads(urllib3.request('GET', f'{url}/-/stats').data)
                        print(json.dumps({'library': library, 'order': order, **found, 'server': stats}), flush=True)
                        for key in ('first_s', 'epoch_s'):
                            if key in found:
                                times[library, order][key].append(found[key])
    print_ratios(times)


def print_ratios(times: dict[tuple[str, str], dict[str, list[float]]]) -> None:
    """How many times as long as ours the others take, bare GETs among them."""
    medians = {key: {name: statistics.median(values) for name, values in found.items()} for key, found in times.items()}
    for (library, order), found in medians.items():
        ours = medians.get(('ours', order))
        if library == 'ours' or ours is None:
            continue
        ratios = {name.replace('_s', ''): round(value / ours[name], 2) for name, value in found.items()}
        print(json.dumps({'ratio': f'{library} / ours', 'order': order, **ratios}))
    if ('ours', 'in order') in medians and ('ours', 'shuffled') in medians:
        ratio = medians['ours', 'shuffled']['epoch_s'] / medians['ours', 'in order']['epoch_s']
        print(json.dumps({'ratio': 'ours, shuffled / in order', 'epoch': round(ratio, 2)}))


if __name__ == '__main__':
    main()
