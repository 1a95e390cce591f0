"""The node's sums, under real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from streaming.cache.ledger import CacheCounters, Ledger


def test_sums_survive_their_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / 'hidden' / 'ledger')
    ledger.add(fetched_bytes=10, fetched_shards=1)
    ledger.add(failed_fetches=2)
    ledger.close()
    again = Ledger(tmp_path / 'hidden' / 'ledger')
    assert again.counters() == CacheCounters(10, 1, 2)
    again.close()


@pytest.mark.parametrize('content', [b'', b'torn', b'x' * 56, b'y' * 10_000])
def test_a_torn_ledger_starts_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'ledger'
    path.write_bytes(content)
    ledger = Ledger(path)
    assert ledger.counters() == CacheCounters()
    ledger.add(fetched_bytes=1)
    assert ledger.counters().fetched_bytes == 1
    ledger.close()


def test_processes_lose_no_addition(tmp_path: Path) -> None:
    path = tmp_path / 'ledger'
    script = """
import os, sys
from pathlib import Path
from streaming.cache.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
children = [os.fork() for _ in range(2)]
for _ in range(500):
    ledger.add(fetched_bytes=1)
if 0 in children:
    os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""
    processes = [subprocess.Popen([sys.executable, '-c', script, str(path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    ledger = Ledger(path)
    # Each process forks twice, and so does its first child: four of each.
    assert ledger.counters().fetched_bytes == 2 * 4 * 500
    ledger.close()
