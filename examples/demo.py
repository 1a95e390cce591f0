"""The main job, end to end: write a dataset to an object store, train on it with torchrun, stop in mid-epoch, resume elsewhere.

    python examples/demo.py [--input FOLDER] [--store oci://bucket@namespace/prefix | s3://bucket/prefix | PATH]

Without --store, the store is a stand-in for OCI Object Storage on this machine's loopback, spoken to by the real SDK. Exits with
an error unless both runs together gave every sample exactly once.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import COLUMNS, source_files, standard_library, windows
from rich.console import Console
from rich.table import Table

from streaming import MDSWriter
from streaming.errors import StreamingError
from streaming.format.index import ShardTable
from streaming.store import open_store
from streaming.units import bytes_to_int, human_bytes

HERE = Path(__file__).parent
GLOBAL_BATCH = 64
RUN_LIMIT_S = 280


@dataclass(frozen=True)
class Run:
    """What the ranks of one torchrun noted."""

    name: str
    notes: list[dict[str, Any]]

    @property
    def seen(self) -> list[int]:
        return [sample for note in self.notes for sample in note['seen']]

    @property
    def fetched_by_node(self) -> dict[int, int]:
        return {note['node']: note['fetched_bytes'] for note in self.notes}

    @property
    def samples_per_s(self) -> float:
        return len(self.seen) / max(note['elapsed_s'] for note in self.notes)

    @property
    def first_batch_s(self) -> float:
        return max(float(note['first_batch_s']) for note in self.notes)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write a dataset, train on it, stop, resume; check that no sample is lost.')
    parser.add_argument('--input', type=Path, help="folder of text files (default: this Python's standard library sources)")
    parser.add_argument('--store', help='where to keep the dataset: oci://..., s3://... or a path (default: a stand-in server)')
    parser.add_argument('--limit', default='24mb', help='how much text to take (default: 24mb)')
    arguments = parser.parse_args()
    if arguments.input is not None and not (arguments.input.is_dir() and source_files(arguments.input)):
        parser.error(f'--input: {arguments.input} is not a folder with files in it')
    return arguments


@contextmanager
def store_url(given: str | None) -> Iterator[str]:
    """The dataset's URL; without one, that of a stand-in server which lives as long as the block."""
    if given is not None:
        yield given
        return
    from streaming.testing.oci import OCIServer

    with OCIServer(buckets=['demo']) as server:
        print(f'OCI stand-in at {server.endpoint}, logged in by the API key of {server.config_file}')
        yield server.url('demo/corpus')


def write(url: str, folder: Path, limit_bytes: int) -> ShardTable:
    """Write the corpus and read back what the store says of it."""
    with MDSWriter(
        out=url, columns=COLUMNS, compression='zstd', hashes=['xxh64'], size_limit='512kb', progress_bar=True
    ) as writer:
        for sample in windows(folder, limit_bytes):
            writer.write(sample)
    store = open_store(url)
    return ShardTable.from_json(store.get('index.json'), store.url_of('index.json'))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def train(name: str, nodes: int, ranks_per_node: int, url: str, work: Path, *options: str) -> Run:
    """Run torchrun on so many nodes (all on this machine, each with its cache folder) and collect the ranks' notes."""
    port = free_port()
    print(f'\n{name}: {nodes} node(s) of {ranks_per_node} ranks')
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore::FutureWarning'}
    launched = [
        subprocess.Popen(
            [
                *(sys.executable, '-m', 'torch.distributed.run'),
                *('--nnodes', str(nodes), '--node-rank', str(node), '--nproc-per-node', str(ranks_per_node)),
                *('--master-addr', '127.0.0.1', '--master-port', str(port), '--log-dir', str(work / 'logs')),
                *(str(HERE / 'train.py'), '--remote', url, '--cache', str(work / 'cache'), '--work', str(work)),
                *('--name', name, '--global-batch', str(GLOBAL_BATCH), *options),
            ],
            env=environment,
        )
        for node in range(nodes)
    ]
    try:
        codes = [process.wait(RUN_LIMIT_S) for process in launched]
    finally:
        for process in launched:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
    if any(codes):
        sys.exit(f'{name}: torchrun ended with {codes}')
    files = [work / f'{name}-rank-{rank}.json' for rank in range(nodes * ranks_per_node)]
    return Run(name, [json.loads(file.read_text()) for file in files])


def check(runs: list[Run], samples: int) -> str | None:
    """Why the runs together did not give every sample exactly once, padding aside; None if they did."""
    counts = Counter(sample for run in runs for sample in run.seen)
    missing = samples - len(counts.keys() & range(samples))
    strangers = len(counts.keys() - set(range(samples)))
    repeats = counts.total() - len(counts)
    # The epoch is padded so that all ranks take as many steps: by less than one sample a rank and canonical node.
    most_padding = 2 * max(len(run.notes) for run in runs)
    if missing or strangers or repeats > most_padding:
        return f'{missing} samples missing, {strangers} unknown, {repeats} repeated (padding explains {most_padding} at most)'
    return None


def report(table: ShardTable, runs: list[Run], problem: str | None) -> None:
    stored = int(table.stored_bytes.sum())
    rows = Table(title='The main job', show_header=False)
    rows.add_row('samples', f'{table.num_samples:,} in {len(table)} shards')
    rows.add_row('bytes written', human_bytes(int(table.raw_bytes.sum())))
    rows.add_row('bytes stored (zstd)', human_bytes(stored))
    for run in runs:
        rows.add_section()
        for node, fetched in sorted(run.fetched_by_node.items()):
            rows.add_row(
                f'{run.name}: fetched by node {node} so far', f'{human_bytes(fetched)} = {fetched / stored:.2f} of the dataset'
            )
        rows.add_row(f'{run.name}: samples', f'{len(run.seen):,} by {len(run.notes)} ranks')
        rows.add_row(f'{run.name}: samples/s, training', f'{run.samples_per_s:,.0f}')
        rows.add_row(f'{run.name}: time to first batch', f'{run.first_batch_s:.2f} s')
    rows.add_section()
    before, after = runs[0].notes[0]['losses'][0], runs[-1].notes[0]['losses'][-1]
    rows.add_row('loss before, after', f'{before:.3f}, {after:.3f} nats a byte')
    rows.add_row('every sample exactly once', 'yes' if problem is None else f'NO: {problem}')
    Console().print(rows)


def main() -> None:
    arguments = parse_arguments()
    folder = (arguments.input or standard_library()).resolve()
    with tempfile.TemporaryDirectory(prefix='streaming-demo-') as work_name, store_url(arguments.store) as url:
        work = Path(work_name)
        try:
            table = write(url, folder, bytes_to_int(arguments.limit))
        except StreamingError as error:
            sys.exit(f'{type(error).__name__}: {error}')
        half = max(1, table.num_samples // GLOBAL_BATCH // 2)
        runs = [
            train('first', 2, 2, url, work, '--stop-after', str(half)),
            train('second', 1, 2, url, work, '--resume'),
        ]
        problem = check(runs, table.num_samples)
    report(table, runs, problem)
    if problem is not None:
        sys.exit(1)


if __name__ == '__main__':
    main()
