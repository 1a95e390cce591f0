"""Two jobs of four ranks with four workers each on one cache folder: what a store is asked for, and what lies on disk."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming import MDSWriter
from streaming.cache.replay import Trace, farthest_by_trace, replay
from streaming.format.index import ShardTable
from streaming.store import open_store
from streaming.testing.oci import OCIServer

SHARDS, SAMPLES_PER_SHARD = 64, 32
SAMPLES = SHARDS * SAMPLES_PER_SHARD


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OCIServer]:
    folder = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    with MDSWriter(
        out=str(folder / 'set'), columns={'id': 'int', 'data': 'bytes'}, hashes=['xxh64'], size_limit=66_000
    ) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'data': rng.bytes(2000)})
    with OCIServer(['data']) as server:
        store = open_store(server.url('data/set'))
        for path in (folder / 'set').iterdir():
            store.put(path.name, path)
        store.close()
        yield server


def table_of(server: OCIServer) -> ShardTable:
    store = open_store(server.url('data/set'))
    table = ShardTable.from_json(store.get('index.json'), 'index')
    store.close()
    return table


def run(server: OCIServer, folder: Path, **options: int) -> list[dict[str, Any]]:
    (folder / 'cache').mkdir(exist_ok=True)
    (folder / 'notes').mkdir()
    server.reset_stats()
    script = Path(__file__).with_name('ranks.py')
    paths = [server.url('data/set'), str(folder / 'cache'), str(folder / 'notes')]
    arguments = [f'--{name}={value}' for name, value in options.items()]
    done = subprocess.run([sys.executable, str(script), *paths, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def served(server: OCIServer) -> dict[str, int]:
    """Bytes of each shard that went out."""
    return {path.rpartition('/')[2]: count for path, count in server.stats()['bytes'].items() if 'index' not in path}


def trace_of(folder: Path, table: ShardTable) -> Trace:
    """The shards in the order in which all workers really read them."""
    notes = np.concatenate([np.fromfile(path, np.int64).reshape(-1, 2) for path in (folder / 'notes').iterdir()])
    shards = notes[np.argsort(notes[:, 0], kind='stable'), 1]
    return Trace(shards[np.flatnonzero(np.diff(shards, prepend=-1))], table.raw_bytes)


def check_epochs(ranks: list[dict[str, Any]], jobs: int) -> None:
    """Every job has had every sample once an epoch."""
    for job in range(jobs):
        epochs = zip(*(rank['epochs'] for rank in ranks if rank['job'] == job), strict=True)
        for parts in epochs:
            assert [sum(numbers) for numbers in zip(*parts, strict=True)] == [SAMPLES, sum(range(SAMPLES))]


@pytest.mark.slow
def test_each_byte_is_fetched_once_a_node(server: OCIServer, tmp_path: Path) -> None:
    check_epochs(run(server, tmp_path, jobs=2, ranks=4, workers=4, epochs=1), jobs=2)
    table = table_of(server)
    assert served(server) == {shard.stored[0].basename: shard.stored[0].bytes for shard in table}


@pytest.mark.slow
def test_half_the_dataset_is_near_the_optimum_and_never_over_the_limit(
    server: OCIServer, tmp_path: Path, watch: Callable[[Path], Any]
) -> None:
    table = table_of(server)
    limit = int(table.raw_bytes.sum()) // 2
    (tmp_path / 'cache' / '.streaming').mkdir(parents=True)
    with watch(tmp_path / 'cache') as seen:
        ranks = run(server, tmp_path, jobs=2, ranks=4, workers=4, epochs=2, limit=limit, block=400)
    check_epochs(ranks, jobs=2)
    assert limit // 2 < seen.most <= limit
    trace = trace_of(tmp_path, table)
    best = int(replay(trace, limit, farthest_by_trace(trace)).sum())
    assert best <= sum(served(server).values()) <= 1.1 * best
