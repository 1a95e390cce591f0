"""A bad network, over real sockets: the epoch completes with the right bytes, or fails with a clear error in time."""

import hashlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming import LocalDataset, MDSWriter, StreamingDataLoader, StreamingDataset, World
from streaming.errors import CorruptError, StreamingError
from streaming.testing.oci import OCIServer

BATCH = 8
SAMPLES = 400
SHARDS = r'shard\.\d+'


def sample(number: int) -> dict[str, Any]:
    return {'id': number, 'data': np.random.default_rng(number).integers(0, 50, 2000, np.uint8).tobytes()}


@pytest.fixture(scope='module')
def server() -> Iterator[OCIServer]:
    with OCIServer(buckets=['data']) as server:
        for name, compression in (('raw', None), ('zstd', 'zstd')):
            with MDSWriter(
                out=server.url(f'data/{name}'),
                columns={'id': 'int', 'data': 'bytes'},
                compression=compression,
                hashes=['xxh64'],
                size_limit=100_000,
            ) as writer:
                for number in range(SAMPLES):
                    writer.write(sample(number))
        yield server


@pytest.fixture(autouse=True)
def no_faults(server: OCIServer) -> Iterator[None]:
    yield
    server.clear_faults()


def open_dataset(server: OCIServer, local: Path, name: str = 'raw', **options: Any) -> StreamingDataset:
    options = {'download_timeout': 6, 'batch_size': BATCH, 'world': World(), **options}
    return StreamingDataset(remote=server.url(f'data/{name}'), local=str(local), **options)


def check_epoch(dataset: StreamingDataset, local: Path, workers: int = 0) -> None:
    """Every sample once, with the right bytes; and then a cache that is a dataset itself, without anything half done."""
    digests = {}
    for batch in StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers):
        for number, data in zip(batch['id'].tolist(), batch['data'], strict=True):
            assert number not in digests
            digests[number] = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    expected = {number: hashlib.sha1(sample(number)['data'], usedforsecurity=False).hexdigest() for number in range(SAMPLES)}
    assert digests == expected
    assert [found['id'] for found in LocalDataset(local)] == list(range(SAMPLES))
    assert not list(local.glob('.streaming/fetching/*'))


PASSING = {
    '503': {'kind': 'status', 'status': 503, 'times': 5},
    '429 with Retry-After': {'kind': 'status', 'status': 429, 'retry_after': 0.5, 'times': 3},
    '503 with Retry-After': {'kind': 'status', 'status': 503, 'retry_after': 0.5, 'times': 3},
    '500': {'kind': 'status', 'status': 500, 'times': 3},
    'reset before the headers': {'kind': 'reset', 'times': 4},
    'reset in the body': {'kind': 'reset', 'offset': 30_000, 'times': 4},
    'truncated': {'kind': 'truncate', 'offset': 50_000, 'times': 4},
    'short': {'kind': 'short', 'offset': 1000, 'times': 4},
    'corrupt': {'kind': 'corrupt', 'offset': 20_000, 'times': 2},
    'stalled before the headers': {'kind': 'stall', 'seconds': 60, 'times': 2},
    'stalled in the body': {'kind': 'stall', 'offset': 40_000, 'seconds': 60, 'times': 2},
    'dripping': {'kind': 'drip', 'bytes_per_s': 500, 'times': 2},
    '5 % random errors': {'kind': 'status', 'status': 503, 'times': None, 'chance': 0.05},
    '5 % random resets': {'kind': 'reset', 'offset': 10_000, 'times': None, 'chance': 0.05},
}


@pytest.mark.parametrize(('name', 'fault'), list(zip(cycle(['raw', 'zstd']), PASSING.values(), strict=False)), ids=PASSING.keys())
def test_what_passes_is_not_noticed(server: OCIServer, tmp_path: Path, fault: dict[str, Any], name: str) -> None:
    server.add_fault(path=SHARDS, **fault)
    check_epoch(open_dataset(server, tmp_path, name), tmp_path)
    assert not server.unspent_faults()


def test_workers_share_a_bad_network(server: OCIServer, tmp_path: Path) -> None:
    for fault in (PASSING['5 % random errors'], PASSING['reset in the body'], PASSING['corrupt']):
        server.add_fault(path=SHARDS, **fault)
    check_epoch(open_dataset(server, tmp_path, 'zstd'), tmp_path, workers=2)


LASTING = {
    '503': ({'kind': 'status', 'status': 503}, 'gave up after'),
    'reset': ({'kind': 'reset'}, 'gave up after'),
    'truncated': ({'kind': 'truncate', 'offset': 0}, 'gave up after'),
    'stalled': ({'kind': 'stall', 'seconds': 60}, 'no byte came'),
    'corrupt': ({'kind': 'corrupt'}, 'its xxh64 is'),
    'gone': ({'kind': 'status', 'status': 404}, 'NotAuthorizedOrNotFound'),
    'denied': ({'kind': 'status', 'status': 403}, '403'),
}


@pytest.mark.parametrize(('fault', 'says'), LASTING.values(), ids=LASTING.keys())
def test_what_lasts_is_an_error_that_names_the_shard(server: OCIServer, tmp_path: Path, fault: dict[str, Any], says: str) -> None:
    dataset = open_dataset(server, tmp_path, download_timeout=1.5)
    server.add_fault(path=r'shard\.00003', times=None, **fault)
    began = time.monotonic()
    with pytest.raises(StreamingError, match=r'shard\.00003') as error:
        check_epoch(dataset, tmp_path, workers=2)
    assert says in str(error.value)
    assert time.monotonic() - began < 50  # what stalls does so for a minute
    assert not list(tmp_path.glob('shard.00003*'))
    # Once the cause is gone, the same process goes on.
    server.clear_faults()
    dataset.next_epoch = 0
    check_epoch(dataset, tmp_path)


def test_a_corrupt_file_is_never_accepted(server: OCIServer, tmp_path: Path) -> None:
    server.add_fault(kind='corrupt', path=r'shard\.00000', offset=60_000, times=None)
    for _ in range(3):
        with pytest.raises(CorruptError, match=r'shard\.00000'):
            next(iter(open_dataset(server, tmp_path)))
        assert not (tmp_path / 'shard.00000.mds').exists()


class Gate:
    """A way to the server that can be shut: connections break, new ones are refused, as when a server is down."""

    def __init__(self, endpoint: str) -> None:
        self._to = ('127.0.0.1', int(endpoint.rsplit(':', 1)[1]))
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._port = 0
        self.open()
        self.endpoint = f'http://127.0.0.1:{self._port}'

    def open(self) -> None:
        self._listener = socket.create_server(('127.0.0.1', self._port))
        self._port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def shut(self) -> None:
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        self._sockets.clear()

    def _start(self, run: Any, *args: Any) -> None:
        self._threads.append(threading.Thread(target=run, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(self._to)
                self._sockets |= {here, there}
                self._start(self._pump, here, there)
                self._start(self._pump, there, here)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_a_server_that_is_down_for_a_while(server: OCIServer, tmp_path: Path) -> None:
    gate = Gate(server.endpoint)
    url = server.url('data/zstd').replace(server.endpoint, gate.endpoint)
    dataset = StreamingDataset(remote=url, local=str(tmp_path), download_timeout=30, batch_size=BATCH, world=World())
    gate.shut()
    # A longer outage only adds more of the same waits, up to two thirds of download_timeout.
    opener = threading.Timer(6.5, gate.open)
    opener.start()
    try:
        check_epoch(dataset, tmp_path, workers=2)
    finally:
        opener.join()
        gate.shut()


def test_a_server_that_stays_down(server: OCIServer, tmp_path: Path) -> None:
    gate = Gate(server.endpoint)
    url = server.url('data/zstd').replace(server.endpoint, gate.endpoint)
    dataset = StreamingDataset(remote=url, local=str(tmp_path), download_timeout=3, batch_size=BATCH, world=World())
    gate.shut()
    with pytest.raises(StreamingError, match=r'shard\.00000.*gave up after \d+ tries in ([2-9]|1\d)\.\d s'):
        check_epoch(dataset, tmp_path, workers=2)


RANK = """
import sys
from streaming import StreamingDataLoader, StreamingDataset, World
url, local, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
world = World(rank=rank, num_ranks=3, ranks_per_node=3)
dataset = StreamingDataset(remote=url, local=local, batch_size=8, download_timeout=6, world=world)
for batch in StreamingDataLoader(dataset, batch_size=8, num_workers=2):
    pass
"""


def test_every_rank_that_needs_a_shard_learns_that_it_cannot_be_had(server: OCIServer, tmp_path: Path) -> None:
    server.add_fault(kind='status', status=503, path=SHARDS, times=None)
    server.reset_stats()
    command = [sys.executable, '-c', RANK, server.url('data/raw'), str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(3)]
    for process in ranks:
        _, complaints = process.communicate(timeout=110)
        assert process.returncode == 1
        assert re.search(r'Error: GET oci://.*shard\.\d+\.mds.*503', complaints), complaints
    assert not list(tmp_path.glob('shard.*'))
    assert not list(tmp_path.glob('.streaming/fetching/*.part'))
