"""Processes that fetch, hold, release and die on one cache folder with a limit, against a model of what must be true."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from streaming import MDSWriter
from streaming.cache.fetch import FetchPolicy
from streaming.cache.folder import CacheFolder
from streaming.cache.room import Room
from streaming.cache.shards import ShardCache, Tried
from streaming.format.index import ShardTable
from streaming.store import open_store

PROCESSES = 3
SHARDS = 7
FITTING = 3
TIMEOUT_S = 20

processes = st.integers(0, PROCESSES - 1)
shards = st.integers(0, SHARDS - 1)


def open_cache(remote: Path, local: Path) -> ShardCache:
    index = (remote / 'index.json').read_bytes()
    table = ShardTable.from_json(index, 'index')
    store = open_store(str(remote))
    return ShardCache(store, CacheFolder(local), table, hashlib.sha256(index).hexdigest(), FetchPolicy(), TIMEOUT_S)


def limit_of(cache: ShardCache) -> int:
    return FITTING * cache.largest_footprint() + cache.overhead_bytes() + 1000


def serve(remote: Path, local: Path, limit: int, commands: Connection) -> None:
    """A process of the node: does as it is told."""
    cache = open_cache(remote, local)
    cache.room = Room([cache], limit, TIMEOUT_S)
    leases: dict[int, Any] = {}
    while True:
        command, shard = commands.recv()
        answer: object = None
        try:
            if command == 'hold':
                leases[shard] = cache.hold(shard)
            elif command == 'release':
                leases.pop(shard).release()
            elif command == 'try':
                answer = cache.try_fetch(shard)
        except Exception as error:
            answer = error
        commands.send(answer)


class Node(RuleBasedStateMachine):
    """Processes, the shards that each holds, and the folder that they share."""

    remote: Path

    @initialize()
    def begin(self) -> None:
        self.local = Path(tempfile.mkdtemp(prefix='model-'))
        shutil.copy(self.remote / 'index.json', self.local)
        self.cache = open_cache(self.remote, self.local)
        self.sizes = [int(size) for size in self.cache._table.raw_bytes]
        self.limit = limit_of(self.cache)
        self.pipes: list[Connection] = []
        self.pids: list[Any] = []
        self.held: list[set[int]] = []
        for number in range(PROCESSES):
            self._start(number)

    def _start(self, number: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context('fork').Process(
            target=serve, args=(self.remote, self.local, self.limit, theirs), daemon=True
        )
        process.start()
        theirs.close()
        self.pipes[number : number + 1] = [ours]
        self.pids[number : number + 1] = [process]
        self.held[number : number + 1] = [set()]

    def _tell(self, process: int, command: str, shard: int) -> Any:
        self.pipes[process].send((command, shard))
        assert self.pipes[process].poll(TIMEOUT_S * 2), f'{command} {shard} hangs'
        answer = self.pipes[process].recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def in_use(self) -> set[int]:
        return set().union(*self.held)

    @rule(process=processes, shard=shards)
    def hold(self, process: int, shard: int) -> None:
        if shard not in self.held[process] and len(self.in_use | {shard}) <= FITTING:
            self._tell(process, 'hold', shard)
            self.held[process].add(shard)

    @rule(process=processes)
    def release(self, process: int) -> None:
        if self.held[process]:
            self._tell(process, 'release', self.held[process].pop())

    @rule(process=processes, shard=shards)
    def fetch_ahead(self, process: int, shard: int) -> None:
        was_here = self.cache.has(shard)
        tried = self._tell(process, 'try', shard)
        assert tried in ((Tried.HERE,) if was_here else (Tried.HERE, Tried.NO_ROOM))
        assert self.cache.has(shard) == (tried is Tried.HERE)

    @rule(process=processes)
    def kill(self, process: int) -> None:
        os.kill(self.pids[process].pid, signal.SIGKILL)
        self.pids[process].join()
        self.pipes[process].close()
        self._start(process)

    @precondition(lambda self: not self.in_use)
    @rule(what=st.sampled_from(['ledger', 'torn', 'all']))
    def lose_the_state(self, what: str) -> None:
        path = self.local / '.streaming' / 'ledger'
        if what == 'torn':
            # In a new file, as an editor or a restored backup has it: who maps a file that is cut dies of it.
            (self.local / 'torn').write_bytes(path.read_bytes()[:100])
            (self.local / 'torn').replace(path)
        elif what == 'ledger':
            path.unlink()
        else:
            shutil.rmtree(self.local / '.streaming')

    @invariant()
    def what_is_held_is_here_and_whole(self) -> None:
        for shard in self.in_use if hasattr(self, 'held') else ():
            name = self.cache._table[shard].raw_data.basename
            assert (self.local / name).read_bytes() == (self.remote / name).read_bytes()

    @invariant()
    def the_books_are_right_and_within_the_limit(self) -> None:
        if hasattr(self, 'held'):
            with self.cache.ledger.locked() as book:
                on_disk = [size if self.cache.has(shard) else 0 for shard, size in enumerate(self.sizes)]
                assert book.held.tolist() == on_disk
                assert sum(on_disk) + self.cache.overhead_bytes() <= self.limit
                claimed = {shard for shard in range(SHARDS) if not book.leases.try_claim(shard)}
                for shard in set(range(SHARDS)) - claimed:
                    book.leases.unclaim(shard)
            assert claimed == self.in_use

    def teardown(self) -> None:
        if hasattr(self, 'held'):
            for process, pipe in zip(self.pids, self.pipes, strict=True):
                process.kill()
                process.join()
                pipe.close()
            self.cache.close()
            shutil.rmtree(self.local)


@pytest.mark.slow
def test_processes_agree(tmp_path: Path) -> None:
    remote = tmp_path / 'remote'
    with MDSWriter(out=str(remote), columns={'data': 'bytes'}, hashes=['xxh64'], size_limit=1200) as writer:
        for number in range(SHARDS):
            writer.write({'data': bytes([number]) * 1000})
    Node.remote = remote
    run_state_machine_as_test(
        Node,
        settings=settings(
            max_examples=8,
            stateful_step_count=40,
            deadline=None,
            database=None,
            # Each step of a smaller example takes as long as one of the first; whatever fails is short enough.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
