"""Kernel locks between real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from streaming.cache.locks import try_lock, wait_for_lock
from streaming.errors import CorruptError, DeadlineError

HOLDER = """
import sys, time
from pathlib import Path
from streaming.cache.locks import try_lock
lock = try_lock(Path(sys.argv[1]))
assert lock is not None
print('held', flush=True)
for line in sys.stdin:
    if line.strip() == 'beat':
        lock.beat()
        print('beaten', flush=True)
    else:
        break
lock.release()
"""


class Holder:
    """Another process that holds a lock until told otherwise."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, '-c', HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self.stdout, self.stdin = self.process.stdout, self.process.stdin
        assert self.stdout.readline() == 'held\n'

    def say(self, word: str) -> None:
        self.stdin.write(word + '\n')
        self.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()
        self.stdin.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'deep' / 'thing.lock'


def test_one_holder_at_a_time(path: Path) -> None:
    lock = try_lock(path)
    assert lock is not None
    assert try_lock(path) is None, 'threads of one process keep each other out too'
    lock.release()
    assert not path.exists(), 'a released lock leaves nothing'
    again = try_lock(path)
    assert again is not None
    again.release()


def test_release_twice_is_harmless(path: Path) -> None:
    first = try_lock(path)
    assert first is not None
    first.release()
    second = try_lock(path)
    assert second is not None
    first.release()
    assert try_lock(path) is None
    second.release()


def test_other_process_keeps_us_out_and_its_death_lets_us_in(path: Path) -> None:
    holder = Holder(path)
    try:
        assert try_lock(path) is None
        threading.Timer(0.2, lambda: os.kill(holder.process.pid, signal.SIGKILL)).start()
        with wait_for_lock(path, 30, 'the thing'):
            assert holder.process.wait() == -signal.SIGKILL
    finally:
        holder.end()
    assert not path.exists()


def test_waiter_is_woken_by_release(path: Path) -> None:
    holder = Holder(path)
    try:
        threading.Timer(0.2, lambda: holder.say('release')).start()
        wait_for_lock(path, 30, 'the thing').release()
    finally:
        holder.end()


def test_deadline_names_what_was_waited_for(path: Path) -> None:
    lock = try_lock(path)
    assert lock is not None
    with pytest.raises(DeadlineError, match=r'waited 0\.2 s for shard 7'):
        wait_for_lock(path, 0.2, 'shard 7')
    lock.release()
    # The thread that was left behind got the lock, and gave it back.
    wait_for_lock(path, 10, 'shard 7').release()


def test_beats_extend_the_deadline(path: Path) -> None:
    holder = Holder(path)
    stop = threading.Event()

    since = time.monotonic()

    def keep_beating() -> None:
        # Released only when whoever waits has done so for longer than its deadline, which a beat takes anew.
        while time.monotonic() - since < 5 and not stop.wait(0.2):
            holder.say('beat')
        holder.say('release')

    beating = threading.Thread(target=keep_beating)
    try:
        beating.start()
        wait_for_lock(path, 3, 'the thing').release()
    finally:
        stop.set()
        beating.join()
        holder.end()


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(path: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from streaming.cache.locks import try_lock
lock = try_lock(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(30)
    os._exit(0)
print(child, flush=True)
time.sleep(30)
"""
    parent = subprocess.Popen([sys.executable, '-c', script, str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert try_lock(path) is None
        parent.kill()
        parent.wait()
        os.kill(child, 0)
        lock = wait_for_lock(path, 20, 'the thing')  # the child lives for thirty seconds
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_who_has_waited_learns_why_the_holder_failed(path: Path) -> None:
    holder = try_lock(path)
    assert holder is not None
    heard: list[str] = []

    def wait() -> None:
        with pytest.raises(CorruptError) as error:
            wait_for_lock(path, 30, 'the thing')
        heard.append(str(error.value))

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while sum('lock-waiter' in thread.name for thread in threading.enumerate()) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    holder.fail(CorruptError('oci://bucket/shard is bad'))
    holder.release()
    for thread in threads:
        thread.join(10)
    assert len(heard) == 5
    assert all(message.startswith('oci://bucket/shard is bad (found by another') for message in heard)
    # Who comes later finds out anew.
    wait_for_lock(path, 1, 'the thing').release()


def test_what_a_killed_holder_said_is_forgotten(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text('CorruptError\nlong ago')
    holder = try_lock(path)
    assert holder is not None
    waiting = threading.Thread(target=lambda: wait_for_lock(path, 10, 'the thing').release())
    waiting.start()
    time.sleep(0.1)
    holder.release()
    waiting.join(10)
    assert not path.exists()


def test_many_threads_exclude_each_other(path: Path) -> None:
    inside, most, entries = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, entries
        for _ in range(20):
            with wait_for_lock(path, 30, 'the thing'):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1
                    entries += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entries) == (1, 120)
    assert not path.exists()
