"""The fault table: every way in which the network or the service fails, met by every operation.

The right bytes or one clear error before the deadline; nothing half-written. The rows are docs/stores.md's.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path

import pytest

from streaming.errors import CorruptError, CredentialsError, StoreError, ThrottledError, UnavailableError
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store
from streaming.store.retry import RetryStore
from streaming.testing.oci import OCIServer
from streaming.testing.store import pattern, read
from tests.store.closing import seconds_to_close

SIZE = 2 << 20
DATA = pattern(SIZE)
PARTS = {'single_put_bytes': '1mb', 'part_bytes': '512kb', 'timeout_s': 0.5}

# Far more than time-outs and tries take, far less than a stall or a deadline: machines that test are busy.
PATIENCE_S = 30

FAULTS: dict[str, dict[str, object]] = {
    'status 429': {'kind': 'status', 'status': 429, 'retry_after': 0.1},
    'status 500': {'kind': 'status', 'status': 500},
    'status 503': {'kind': 'status', 'status': 503},
    'reset before headers': {'kind': 'reset'},
    'answer lost': {'kind': 'lose'},
    'reset in body': {'kind': 'reset', 'offset': SIZE // 2},
    'truncated': {'kind': 'truncate', 'offset': SIZE // 2},
    'short but consistent': {'kind': 'short', 'offset': SIZE // 2},
    'corrupt': {'kind': 'corrupt', 'offset': SIZE // 2},
    'drip': {'kind': 'drip'},
    'stall before headers': {'kind': 'stall', 'seconds': 60},
    'stall in body': {'kind': 'stall', 'seconds': 60, 'offset': SIZE // 2},
    'skew': {'kind': 'skew', 'seconds': 1800},
}
WRITES = {'put', 'begin', 'part', 'commit'}
# What has a body of an object to break.
IN_BODY = {'reset in body', 'truncated', 'short but consistent', 'corrupt', 'drip', 'stall in body'}


@pytest.fixture
def store(oci_url: str) -> Iterator[Store]:
    whole = open_store(oci_url)
    whole.put('key', DATA)
    whole.close()
    store = open_store(oci_url, PARTS)
    yield store
    store.close()


def get(store: Store) -> None:
    assert store.get('key') == DATA


def get_range(store: Store) -> None:
    assert read(store, 'key', 1, SIZE - 1) == DATA[1:]


def put(store: Store) -> None:
    store.put('new', DATA[: 1 << 20])
    assert store.get('new') == DATA[: 1 << 20]


def put_in_parts(store: Store) -> None:
    store.put('new', DATA)
    assert store.get('new') == DATA


def list_all(store: Store) -> None:
    assert [(info.key, info.size) for info in store.list()] == [('key', SIZE)]


def head(store: Store) -> None:
    assert store.head('key').size == SIZE


OPERATIONS: dict[str, tuple[Callable[[Store], None], dict[str, object]]] = {
    'get range': (get_range, {'method': 'GET', 'path': '/o/some/prefix/key'}),
    'whole get': (get, {'method': 'GET', 'path': '/o/some/prefix/key'}),
    'put': (put, {'method': 'PUT', 'path': '/o/'}),
    'begin': (put_in_parts, {'method': 'POST', 'path': '/u$'}),
    'part': (put_in_parts, {'method': 'PUT', 'path': '/u/'}),
    'commit': (put_in_parts, {'method': 'POST', 'path': '/u/.'}),
    'list': (list_all, {'method': 'GET', 'path': '/o$'}),
    'head': (head, {'method': 'HEAD'}),
}


def meets(fault: str, operation: str) -> bool:
    if fault == 'answer lost':
        return operation in WRITES
    return fault not in IN_BODY or operation in ('get range', 'whole get')


def read_table() -> dict[tuple[str, str], str]:
    """What docs/stores.md promises, by fault and operation."""
    lines = (Path(__file__).parents[2] / 'docs' / 'stores.md').read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith('| fault |'))
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in takewhile(str.strip, lines[begin:])]
    return {(row[0], operation): word for row in rows[2:] for operation, word in zip(rows[0][1:], row[1:], strict=True) if word}


CELLS = [(fault, operation) for fault in FAULTS for operation in OPERATIONS if meets(fault, operation)]
PROMISED = read_table()


def test_the_table_in_the_docs_is_whole() -> None:
    assert set(PROMISED) == {*CELLS, *(('name does not resolve', operation) for operation in OPERATIONS)}
    assert set(PROMISED.values()) == {'again', 'goes on', 'found', 'not seen'}


@pytest.mark.parametrize(('fault', 'operation'), CELLS)
def test_once(oci: OCIServer, store: Store, fault: str, operation: str) -> None:
    """One failure is not noticed, but for the time that it takes."""
    run, where = OPERATIONS[operation]
    oci.add_fault(**FAULTS[fault], **where)  # type: ignore[arg-type]
    began = time.monotonic()
    if PROMISED[fault, operation] == 'not seen':
        with pytest.raises(AssertionError):
            run(store)
    else:
        run(store)
    assert time.monotonic() - began < PATIENCE_S
    assert oci.unspent_faults() == 0
    # A reset, and whoever is left in the middle, may take bytes along that had been sent.
    if PROMISED[fault, operation] == 'goes on' and fault in ('truncated', 'short but consistent'):
        served = [count for path, count in oci.stats()['bytes'].items() if path.endswith('/key')]
        assert served == [SIZE - 1]


@pytest.mark.slow
@pytest.mark.parametrize(('fault', 'operation'), [cell for cell in CELLS if cell[0] not in ('answer lost', 'corrupt', 'skew')])
def test_for_ever(oci: OCIServer, oci_url: str, store: Store, fault: str, operation: str) -> None:
    """A failure that stays is one clear error before the deadline, and nothing is half-written."""
    run, where = OPERATIONS[operation]
    impatient = open_store(oci_url, PARTS, retry=RetryPolicy(tries=3, first_wait_s=0.05))
    oci.add_fault(**FAULTS[fault], **where, times=None)  # type: ignore[arg-type]
    began = time.monotonic()
    if fault in ('truncated', 'short but consistent', 'stall in body') and operation == 'get range':
        run(impatient)  # each try brings half of what was missing, or all of it
    elif (fault, operation) == ('reset in body', 'get range'):
        # A reset may take with it what the kernel has received and we have not read: there is progress or there is none.
        with suppress(UnavailableError):
            run(impatient)
    else:
        with pytest.raises(StoreError, match=r'oci://.*(gave up after 3 tries)') as error:
            run(impatient)
        assert isinstance(error.value, (UnavailableError, ThrottledError))
    assert time.monotonic() - began < PATIENCE_S
    oci.clear_faults()
    list_all(store)
    impatient.close()


def test_a_clock_that_is_off_under_many_threads(
    oci: OCIServer, oci_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are refused at the same time, and each goes on with what the first one learned."""
    store.put('key', DATA)
    real = time.time
    monkeypatch.setattr(time, 'time', lambda: real() - 1800)
    for _ in range(3):
        late = open_store(oci_url, PARTS, retry=RetryPolicy(tries=1))
        together = threading.Barrier(16)

        def read_range(number: int, late: Store = late, together: threading.Barrier = together) -> bool:
            together.wait(60)
            return read(late, 'key', number, 1000) == DATA[number : number + 1000]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(read_range, range(16)))
        late.put('new', DATA)
        assert late.get('new') == DATA
        late.close()


# What the store calls for each operation.
METHODS = {
    'get range': 'read_into',
    'whole get': 'get',
    'put': 'put_whole',
    'begin': 'begin_parts',
    'part': 'put_part',
    'commit': 'commit_parts',
    'list': 'list',
    'head': 'head',
}


@pytest.mark.parametrize('for_ever', [False, True])
@pytest.mark.parametrize('operation', OPERATIONS)
def test_dns_failure(oci_url: str, store: Store, operation: str, for_ever: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name does not resolve any more, just when the operation begins and all connections are gone."""
    run, _ = OPERATIONS[operation]
    impatient = open_store(oci_url, PARTS, retry=RetryPolicy(tries=3, first_wait_s=0.05))
    assert isinstance(impatient, RetryStore)
    inner, method = impatient.inner, METHODS[operation]
    list_all(impatient)
    resolve, call = socket.getaddrinfo, getattr(inner, method)
    failures = 0

    def fail(*arguments: object, **keywords: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
        return resolve(*arguments, **keywords)  # type: ignore[arg-type]

    def begin(*arguments: object, **keywords: object) -> object:
        nonlocal failures
        monkeypatch.setattr(inner, method, call)
        inner.close()
        failures = 1_000_000 if for_ever else 1
        return call(*arguments, **keywords)

    monkeypatch.setattr(socket, 'getaddrinfo', fail)
    monkeypatch.setattr(inner, method, begin)
    if not for_ever:
        run(impatient)
    else:
        with pytest.raises(UnavailableError, match=r'oci://.*Name or service not known.*gave up after 3 tries'):
            run(impatient)
    failures = 0
    impatient.close()
    if for_ever:
        list_all(store)


def test_a_clock_that_is_never_right(oci: OCIServer, store: Store) -> None:
    oci.add_fault('skew', seconds=1800, times=None)
    for operation, (run, _) in OPERATIONS.items():
        began = time.monotonic()
        with pytest.raises(CredentialsError, match=r'oci://.*: 401') as error:
            run(store)
        assert time.monotonic() - began < PATIENCE_S, operation
        if operation != 'head':  # its answer has no message
            assert 'the date is too far' in str(error.value)


def test_a_short_answer_of_an_object_in_parts(oci: OCIServer, store: Store) -> None:
    """It has no MD5 that could give it away."""
    store.put('key', DATA)
    oci.add_fault('short', method='GET', path='/key', offset=1000)
    get(store)
    assert oci.unspent_faults() == 0


def test_a_range_beyond_a_lying_size(oci: OCIServer, store: Store) -> None:
    with pytest.raises(CorruptError, match=f'{SIZE} bytes'):
        read(store, 'key', SIZE - 1, 2)


def test_closing_cancels_within_a_second(
    oci: OCIServer, oci_url: str, within: Callable[[float, Callable[[], float]], None]
) -> None:
    store = open_store(oci_url, {'single_put_bytes': '1mb', 'part_bytes': '512kb'})
    store.put('key', DATA)
    one = {'seconds': 60}
    four = {'seconds': 60, 'times': 4}

    def attempt() -> float:
        oci.add_fault('stall', method='GET', path='/key', **four)
        oci.add_fault('stall', method='GET', path='/key', **four, offset=1000)
        oci.add_fault('status', method='GET', path='/key', times=4, retry_after=20)
        oci.add_fault('stall', method='PUT', path='/o/some/prefix/small', **one)
        oci.add_fault('stall', method='PUT', path='/u/some/prefix/large', **four)
        oci.add_fault('stall', method='POST', path='/u$', **one)
        oci.add_fault('stall', method='GET', path='/o$', **one)
        oci.add_fault('stall', method='HEAD', path='/key', **one)
        oci.add_fault('stall', method='DELETE', path='/o/some/prefix/gone', **one)
        calls: list[Callable[[], object]] = [partial(call, store) for call in (*[get_range] * 12, list_all, head)]
        # The first to begin an upload is held up there, the other one in its parts.
        calls += [partial(store.put, key, data) for key, data in (('small', b'x'), ('large', DATA), ('large', DATA))]
        return seconds_to_close(store, [*calls, partial(store.delete, 'gone')], lambda: not oci.unspent_faults())

    within(1.0, attempt)
    get_range(store)
    store.close()
