"""The state file of a cache folder, under real processes: sums, leases, and what becomes of it when it is lost or torn."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streaming.cache.book import FETCHED, FOUND, Book, CacheCounters
from streaming.cache.ledger import Ledger
from streaming.errors import DeadlineError, StaleCacheError

SHARDS = 7
HASH = 'ab' * 32


def nothing_here() -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    return np.zeros(SHARDS, np.int64), np.full(SHARDS, FETCHED, np.uint8)


def two_here() -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    held, marks = nothing_here()
    held[2], held[5] = 100, 200
    marks[[2, 5]] = FOUND
    return held, marks


def open_ledger(folder: Path, index_hash: str = HASH) -> Ledger:
    return Ledger(folder, SHARDS, index_hash, nothing_here)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = open_ledger(tmp_path / 'hidden')
    yield ledger
    ledger.close()


def run(script: str, *arguments: object) -> 'subprocess.Popen[str]':
    head = f"""
import sys, os
from pathlib import Path
import numpy as np
from streaming.cache.ledger import Ledger
folder = Path(sys.argv[1])
def open_ledger():
    return Ledger(folder, {SHARDS}, '{HASH}', lambda: (np.zeros({SHARDS}, np.int64), np.zeros({SHARDS}, np.uint8)))
"""
    command = [sys.executable, '-c', head + script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def is_closed(book: Book) -> bool:
    return book.is_closed


def test_a_forgotten_ledger_waits_for_no_thread(ledger: Ledger, tmp_path: Path) -> None:
    # The collector may come to it in a thread that the holder of the folder is waiting for.
    other = open_ledger(tmp_path / 'other')
    book = other.book
    assert book is not None
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger.locked():
            held.set()
            assert go_on.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    ended = threading.Thread(target=other.close)
    ended.start()
    ended.join(20)
    stuck = ended.is_alive()
    closed_meanwhile = is_closed(book)
    go_on.set()
    holder.join(60)
    assert not stuck
    assert not closed_meanwhile
    assert is_closed(book)


def test_a_forgotten_ledger_does_not_disturb_who_holds_a_folder(ledger: Ledger, tmp_path: Path) -> None:
    other = open_ledger(tmp_path / 'other')
    book = other.book
    assert book is not None
    with ledger.locked(), ledger.locked():
        del other
        gc.collect()
        assert not is_closed(book)
    assert is_closed(book)


def test_sums_survive_their_process(ledger: Ledger) -> None:
    ledger.add(fetched_bytes=10, fetched_shards=1)
    ledger.add(failed_fetches=2)
    ledger.close()
    again = open_ledger(ledger.folder)
    assert again.counters() == CacheCounters(10, 1, 2)
    again.close()


@pytest.mark.parametrize('content', [b'', b'torn', b'x' * 56, b'y' * 100_000])
def test_a_torn_ledger_is_begun_anew_from_a_listing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'ledger'
    path.write_bytes(content)
    ledger = Ledger(tmp_path, SHARDS, HASH, two_here)
    with ledger.locked() as book:
        assert book.held.tolist() == [0, 0, 100, 0, 0, 200, 0]
        assert book.marks[[2, 5]].tolist() == [FOUND, FOUND]
    assert ledger.counters() == CacheCounters()
    ledger.close()


def test_a_ledger_that_is_lost_under_way_is_begun_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / 'hidden', SHARDS, HASH, two_here)
    with ledger.locked() as book:
        book.held[0] = 5
    ledger.path.unlink()
    with ledger.locked() as book:
        assert book.held.tolist() == [0, 0, 100, 0, 0, 200, 0]
        book.held[1] = 7
    os.rename(ledger.folder, tmp_path / 'moved')
    with ledger.locked() as book:
        assert book.held.tolist() == [0, 0, 100, 0, 0, 200, 0]
    ledger.close()


def test_another_version_is_refused_while_this_one_is_read(ledger: Ledger) -> None:
    with pytest.raises(StaleCacheError, match='another version'):
        open_ledger(ledger.folder, 'cd' * 32)
    ledger.close()
    other = open_ledger(ledger.folder, 'cd' * 32)
    assert run('open_ledger()', ledger.folder).wait() != 0
    other.close()
    assert run('open_ledger()', ledger.folder).wait() == 0


def test_processes_lose_no_addition(tmp_path: Path) -> None:
    script = """
ledger = open_ledger()
children = [os.fork() for _ in range(2)]
for _ in range(300):
    ledger.add(fetched_bytes=1)
if 0 in children:
    os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""
    processes = [run(script, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    ledger = open_ledger(tmp_path)
    # Each process forks twice, and so does its first child: four of each.
    assert ledger.counters().fetched_bytes == 2 * 4 * 300
    ledger.close()


HOLDER = """
ledger = open_ledger()
leases = [ledger.lease(int(shard)) for shard in sys.argv[2:]]
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.read()
"""

TRY_TO_CLAIM = """
with open_ledger().locked() as book:
    sys.exit(not book.leases.try_claim(3))
"""


def test_a_lease_keeps_claims_away_until_its_process_is_gone(ledger: Ledger) -> None:
    holder = run(HOLDER, ledger.folder, 3)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    with ledger.locked() as book:
        assert not book.leases.try_claim(3)
        assert book.leases.try_claim(4)
        book.leases.unclaim(4)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    try:
        os.kill(child, 0)  # its child lives on, and has none of its leases
        with ledger.locked() as book:
            assert book.leases.try_claim(3)
            book.leases.unclaim(3)
    finally:
        os.kill(child, signal.SIGKILL)


def test_threads_and_ledgers_of_a_process_count_their_leases(ledger: Ledger) -> None:
    again = open_ledger(ledger.folder)
    first, second = ledger.lease(3), again.lease(3)
    with ledger.locked() as book:
        assert not book.leases.try_claim(3)
    first.release()
    first.release()
    again.close()  # leaves the other ledger's leases alone
    assert (
        run('ledger = open_ledger()\nwith ledger.locked() as book: sys.exit(book.leases.try_claim(3))', ledger.folder).wait() == 0
    )
    second.release()
    assert (
        run('ledger = open_ledger()\nwith ledger.locked() as book: sys.exit(book.leases.try_claim(3))', ledger.folder).wait() == 1
    )


def test_followers_vanish_with_their_process(ledger: Ledger) -> None:
    script = """
from streaming.cache.plans import Plans
follower = Plans(open_ledger()).follow('ab' * 8, 10)
follower.advance(4)
follower.follow_up('cd' * 8)
print('follows', flush=True)
sys.stdin.read()
"""
    process = run(script, ledger.folder)
    assert process.stdout is not None
    assert process.stdout.readline() == 'follows\n'
    with ledger.locked() as book:
        assert book.followers() == [('ab' * 8, 'cd' * 8, 10, 4)]
    process.kill()
    process.wait()
    with ledger.locked() as book:
        assert book.followers() == []


def test_a_process_that_stops_with_the_folder_in_its_hands(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error in time; and whoever waited in vain does not keep the lock when it comes at last."""
    monkeypatch.setattr('streaming.cache.ledger._PATIENCE_S', 0.3)
    holder = run("with open_ledger().locked(): print('held', flush=True); sys.stdin.read()", ledger.folder)
    assert holder.stdout is not None
    assert holder.stdout.readline() == 'held\n'
    holder.send_signal(signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(DeadlineError, match=re.escape(str(ledger.folder))):
            ledger.add(fetched_bytes=1)
    holder.kill()
    holder.communicate()
    monkeypatch.undo()
    other = run('open_ledger().add(fetched_bytes=2)', ledger.folder)
    other.communicate(timeout=60)
    ledger.add(fetched_bytes=3)
    assert ledger.counters().fetched_bytes == 5
