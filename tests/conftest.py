"""What every test is held to: it leaves no thread, no child process and nothing in shared memory behind. And stores by URL."""

import datetime
import gc
import ipaddress
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from streaming.store import register_store
from streaming.store.protocol import Store

# A shell starts what is to run in the background with SIGINT ignored, which tests of Ctrl-C would pass on to their processes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile('no deadline', deadline=None)
settings.load_profile('no deadline')

# What has been told to end may need a moment (torch gives the workers of a broken iterator five seconds); what needs more than
# this was not told.
GRACE_S = 15.0
# Nearly all of it has ended after this, and a collection takes as long where many libraries are loaded.
MOMENT_S = 0.25
SHM = Path('/dev/shm')

# Threads that libraries start once, on first use, and keep for the process.
KEPT_THREADS = ('pytest_timeout', 'execnet', 'tqdm', 'pydevd', 'asyncio_', 'Thread-MainEventLoop', 'fsspecIO', 'Dask-Offload')

# Whose tests start processes and wait for them: few in a file, and long. And single files like that.
LONG = ('benchmarks/', 'cache/', 'cli/', 'faults/', 'fuzz/', 'properties/', 'test_package.py', 'test_world.py')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, by whole files: long files first, so that none is left with one at the end.

    xdist's own order is by the number of a file's tests, which puts the file last whose one test takes the longest.
    """
    if not hasattr(config, 'workerinput'):
        return
    counts = Counter(item.path for item in items)
    long = {item.path for item in items if item.get_closest_marker('slow') or _is_long(item.path)}
    items.sort(key=lambda item: (item.path not in long, -counts[item.path]))


def _is_long(path: Path) -> bool:
    return path.relative_to(Path(__file__).parent).as_posix().startswith(LONG)


def threads() -> set[Any]:
    return {thread for thread in threading.enumerate() if thread.is_alive() and not _kept(thread)}


def _kept(thread: threading.Thread) -> bool:
    return thread is threading.main_thread() or any(name in f'{thread.name} {type(thread).__name__}' for name in KEPT_THREADS)


def children() -> set[Any]:
    """Child processes of this one, by pid and command; empty where /proc does not tell."""
    found: set[Any] = set()
    for task in Path('/proc/self/task').glob('*/children'):
        try:
            pids = task.read_text().split()
        except OSError:  # the thread ended between the two
            continue
        for pid in pids:
            try:
                command = Path(f'/proc/{pid}/cmdline').read_bytes().replace(b'\0', b' ').decode(errors='replace').strip()
            except OSError:
                continue
            if 'resource_tracker' not in command and 'forkserver' not in command:  # multiprocessing keeps one of each
                found.add((int(pid), command))
    return found


def shared_memory() -> set[Any]:
    """Names in /dev/shm that belong to this user; other programs of the machine come and go there under other names."""
    if not SHM.is_dir():
        return set()
    found: set[Any] = set()
    for path in SHM.iterdir():
        try:
            if path.stat().st_uid == os.getuid() and _of_this_process(path.name):
                found.add(path.name)
        except FileNotFoundError:
            continue
    return found


def _of_this_process(name: str) -> bool:
    """Whether a test of this process can have made it: torch puts its pid into the name. Test processes run side by side."""
    if name.startswith('torch_'):
        return name.split('_')[1] in {str(os.getpid()), *(str(pid) for pid, _ in children())}
    # Digits and an underscore: mosaicml-streaming's, whom benchmarks let run beside us.
    return not name.startswith(('sem.mp-', 'pym-')) and re.match(r'\d{6}_', name) is None


PROBES: dict[str, Callable[[], set[Any]]] = {
    'threads': threads,
    'child processes': children,
    'names in /dev/shm': shared_memory,
}


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something running. What fixtures of a wider scope start is there before, so does not count."""
    for name in request.fixturenames:  # a module's server starts before the count, not within the first test that uses it
        if name != 'nothing_left_behind' and _is_wide(request, name):
            request.getfixturevalue(name)
    before = {what: probe() for what, probe in PROBES.items()}
    yield
    deadline = time.monotonic() + MOMENT_S
    collected = False
    while left := {what: more for what, probe in PROBES.items() if (more := probe() - before[what])}:
        if time.monotonic() <= deadline:
            time.sleep(0.01)
        elif not collected:
            _end_forgotten_loaders({pid for pid, _ in left.get('child processes', ())}, left.get('threads', set()))
            gc.collect()
            collected = True
            deadline = time.monotonic() + GRACE_S
        else:
            pytest.fail('left behind: ' + '; '.join(f'{what}: {sorted(map(str, more))}' for what, more in left.items()))


def _end_forgotten_loaders(pids: set[int], left: set[Any]) -> None:
    """End DataLoader iterators that an exception's traceback keeps: left to the collector, torch waits 5 s for each worker.

    They are known by their workers, or, where these are a forkserver's children and not ours, by the threads that feed them.
    """
    if 'torch' not in sys.modules:
        return
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    for thing in gc.get_objects():
        if type(thing) is _MultiProcessingDataLoaderIter and (
            pids & {worker.pid for worker in thing._workers} or left & {queue._thread for queue in thing._index_queues}
        ):
            thing._shutdown_workers()


def _is_wide(request: pytest.FixtureRequest, name: str) -> bool:
    definitions = request._fixturemanager.getfixturedefs(name, request.node)
    return bool(definitions) and definitions[-1].scope != 'function'


@pytest.fixture(scope='session')
def serve() -> Callable[[Store], str]:
    """Give a store a URL, under which every ``open_store`` finds it."""
    served: dict[str, Store] = {}

    class Served:
        @staticmethod
        def open(url: str, options: Mapping[str, object]) -> Store:
            return served[url.removeprefix('served://')]

    register_store('served', Served)

    def add(store: Store) -> str:
        name = str(len(served))
        served[name] = store
        return f'served://{name}'

    return add


@pytest.fixture(scope='session')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a certificate for 127.0.0.1 that signs itself, and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp('certificate')
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'loopback')])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / 'ca.pem').write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / 'key.pem').write_bytes(pem)
    return folder / 'ca.pem', folder / 'key.pem'
