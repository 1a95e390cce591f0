"""The record that a rank shares with its workers."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

from streaming.record import SharedRecord


def _count(record: SharedRecord, times: int) -> None:
    for _ in range(times):
        with record.locked() as values:
            values['n'] = values.get('n', 0) + 1


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_processes_share_it(method: str) -> None:
    context = multiprocessing.get_context(method)
    record = SharedRecord({'n': 0})
    processes: list[Any] = [context.Process(target=_count, args=(record, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    _count(record, 100)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert record.read() == {'n': 400}


def test_an_ordinary_pickle_is_a_copy() -> None:
    record = SharedRecord({'n': 1})
    copy = pickle.loads(pickle.dumps(record))
    _count(copy, 1)
    assert (record.read(), copy.read()) == ({'n': 1}, {'n': 2})


def test_a_change_that_raises_is_not_made() -> None:
    record = SharedRecord({'n': 1})
    with pytest.raises(RuntimeError), record.locked() as values:
        values['n'] = 2
        raise RuntimeError
    assert record.read() == {'n': 1}


def test_too_large_a_record_is_refused_and_changes_nothing() -> None:
    record = SharedRecord({'n': 1})
    with pytest.raises(ValueError, match='at most'), record.locked() as values:
        values['n'] = 'x' * (5 << 20)
    assert record.read() == {'n': 1}


def test_it_has_no_name_and_its_descriptor_goes_with_it() -> None:
    before = set(os.listdir('/dev/shm')) if os.path.isdir('/dev/shm') else set()
    record = SharedRecord()
    assert (set(os.listdir('/dev/shm')) if os.path.isdir('/dev/shm') else set()) == before
    descriptor = record._descriptor
    os.fstat(descriptor)
    del record
    with pytest.raises(OSError, match='Bad file'):
        os.fstat(descriptor)


def test_a_killed_writer_leaves_the_old_values() -> None:
    script = """
import os, signal
from streaming.record import SharedRecord
record = SharedRecord({'n': 1})
child = os.fork()
if child == 0:
    with record.locked() as values:
        values['n'] = 2
        os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
assert record.read() == {'n': 1}
with record.locked() as values:
    values['n'] = 3
assert record.read() == {'n': 3}
"""
    subprocess.run([sys.executable, '-c', script], check=True, timeout=60)
