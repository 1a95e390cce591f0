"""The fault table for S3: moto behind a proxy that fails as it is told. Its rows are those of docs/stores.md."""

import http.client
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from streaming.errors import CredentialsError, DeniedError, StoreError, ThrottledError, UnavailableError
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store
from streaming.testing.store import pattern, read
from tests.store.closing import seconds_to_close

PART = 5 << 20  # the least that S3 takes, but for the last one
SIZE = PART + 1000
DATA = pattern(SIZE)
LOGIN: dict[str, object] = {'access_key_id': 'key', 'secret_access_key': 'secret'}
OPTIONS = {**LOGIN, 'single_put_bytes': '1mb', 'part_bytes': PART, 'timeout_s': 0.5}


# Far more than time-outs and tries take, far less than a stall or a deadline: machines that test are busy.
PATIENCE_S = 30


@dataclass
class Rule:
    """What to do wrong, with which requests, how often (None: always)."""

    kind: str
    method: str
    path: str
    times: int | None = 1
    status: int = 503
    code: str = 'InternalError'
    offset: int = 1000
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hits(self, method: str, path: str) -> bool:
        with self.lock:
            if self.method != method or not re.search(self.path, path) or self.times == 0:
                return False
            if self.times is not None:
                self.times -= 1
            return True


class Proxy(BaseHTTPRequestHandler):
    """Passes one request on, takes the whole answer, and hands it out as well as the rule allows."""

    protocol_version = 'HTTP/1.1'
    backend: str
    rules: list[Rule]

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        rule = next((rule for rule in self.rules if rule.hits(self.command, self.path)), None)
        kind = '' if rule is None else rule.kind
        if kind == 'reset':
            return self.tear()
        if kind == 'stall':
            return self.stall()
        if rule is not None and kind == 'status':
            return self.reply(rule.status, {}, f'<Error><Code>{rule.code}</Code><Message>no</Message></Error>'.encode())
        connection = http.client.HTTPConnection(self.backend)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in ('connection', 'transfer-encoding')}
        if kind == 'lose':
            return self.tear()
        if rule is None or self.command != 'GET':
            return self.reply(answer.status, headers, data)
        return self.break_body(rule, answer.status, headers, data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def break_body(self, rule: Rule, status: int, headers: dict[str, str], data: bytes) -> None:
        kept = data[: rule.offset]
        if rule.kind == 'corrupt':
            return self.reply(status, headers, kept + bytes([data[rule.offset] ^ 0xFF]) + data[rule.offset + 1 :])
        if rule.kind == 'short':
            return self.reply(status, {**headers, 'Content-Length': str(len(kept))}, kept)
        self.close_connection = True
        self.reply(status, {**headers, 'Content-Length': str(len(data))}, kept)
        if rule.kind == 'reset in body':
            self.tear()
        elif rule.kind == 'stall in body':
            self.stall()
        elif rule.kind == 'drip':
            with suppress(OSError):
                for at in range(rule.offset, len(data), 20):
                    self.wfile.write(data[at : at + 20])
                    time.sleep(0.02)

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if 'content-length' not in {name.lower() for name in headers}:
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def stall(self) -> None:
        """Do nothing until the client leaves."""
        self.close_connection = True
        select.select([self.connection], [], [], 60)

    def tear(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module')
def proxy(moto_endpoint: str, serve: Callable[[type], str]) -> tuple[str, list[Rule]]:
    """Endpoint, and the rules in force."""
    rules: list[Rule] = []
    return serve(type('Own', (Proxy,), {'backend': moto_endpoint.removeprefix('http://'), 'rules': rules})), rules


@pytest.fixture
def rules(proxy: tuple[str, list[Rule]]) -> Iterator[list[Rule]]:
    yield proxy[1]
    proxy[1].clear()


@pytest.fixture(scope='module')
def filled(proxy: tuple[str, list[Rule]], moto_endpoint: str) -> str:
    """The URL of a prefix with one object."""
    import boto3

    login = {'aws_access_key_id': 'key', 'aws_secret_access_key': 'secret', 'region_name': 'us-east-1'}
    client = boto3.client('s3', endpoint_url=moto_endpoint, **login)
    client.create_bucket(Bucket='faults')
    client.put_object(Bucket='faults', Key='prefix/key', Body=DATA)
    client.close()
    return f's3://faults/prefix?endpoint={proxy[0]}'


@pytest.fixture
def url(filled: str, rules: list[Rule]) -> Iterator[str]:
    """The same, and what a test puts is gone after it."""
    yield filled
    rules.clear()
    store = open_store(filled, LOGIN)
    for info in store.list():
        if info.key != 'key':
            store.delete(info.key)
    store.close()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, OPTIONS)
    yield store
    store.close()


def get(store: Store) -> None:
    assert store.get('key') == DATA


def get_range(store: Store) -> None:
    assert read(store, 'key', 1, SIZE - 1) == DATA[1:]


def put(store: Store) -> None:
    store.put('new', DATA[:1000])
    assert store.get('new') == DATA[:1000]


def put_in_parts(store: Store) -> None:
    store.put('new', DATA)
    assert store.get('new') == DATA


def list_all(store: Store) -> None:
    assert [(info.key, info.size) for info in store.list()] == [('key', SIZE)]


def head(store: Store) -> None:
    assert store.head('key').size == SIZE


FAULTS: dict[str, dict[str, Any]] = {
    'status 429': {'kind': 'status', 'status': 429, 'code': 'TooManyRequests'},
    'status 500': {'kind': 'status', 'status': 500},
    'status 503': {'kind': 'status', 'status': 503, 'code': 'SlowDown'},
    'reset before headers': {'kind': 'reset'},
    'answer lost': {'kind': 'lose'},
    'reset in body': {'kind': 'reset in body'},
    'truncated': {'kind': 'truncate'},
    'short but consistent': {'kind': 'short'},
    'corrupt': {'kind': 'corrupt'},
    'drip': {'kind': 'drip'},
    'stall before headers': {'kind': 'stall'},
    'stall in body': {'kind': 'stall in body'},
}
IN_BODY = {'reset in body', 'truncated', 'short but consistent', 'corrupt', 'drip', 'stall in body'}
OPERATIONS: dict[str, tuple[Callable[[Store], None], dict[str, str]]] = {
    'get range': (get_range, {'method': 'GET', 'path': '/prefix/key'}),
    'whole get': (get, {'method': 'GET', 'path': '/prefix/key'}),
    'put': (put, {'method': 'PUT', 'path': '/prefix/new$'}),
    'begin': (put_in_parts, {'method': 'POST', 'path': r'\?uploads'}),
    'part': (put_in_parts, {'method': 'PUT', 'path': 'partNumber'}),
    'commit': (put_in_parts, {'method': 'POST', 'path': 'uploadId'}),
    'list': (list_all, {'method': 'GET', 'path': 'list-type=2'}),
    'head': (head, {'method': 'HEAD', 'path': '/prefix/key'}),
}
CELLS = [
    (fault, operation)
    for fault in FAULTS
    for operation in OPERATIONS
    if (fault not in IN_BODY or operation in ('get range', 'whole get'))
    and (fault != 'answer lost' or operation in ('put', 'begin', 'part', 'commit'))
]


@pytest.mark.parametrize(('fault', 'operation'), CELLS)
def test_once(rules: list[Rule], store: Store, fault: str, operation: str) -> None:
    """One failure is not noticed, but for the time that it takes."""
    run, where = OPERATIONS[operation]
    rule = Rule(**FAULTS[fault], **where)
    rules.append(rule)
    began = time.monotonic()
    if (fault, operation) == ('corrupt', 'get range'):
        # A range has no checksum of its own: the shard's hash catches it, one layer up.
        with pytest.raises(AssertionError):
            run(store)
    else:
        run(store)
    assert time.monotonic() - began < PATIENCE_S
    assert rule.times == 0


@pytest.mark.parametrize(
    ('fault', 'operation'), [cell for cell in CELLS if cell[0] in ('status 503', 'reset before headers', 'stall before headers')]
)
def test_for_ever(rules: list[Rule], url: str, store: Store, fault: str, operation: str) -> None:
    """A failure that stays is one clear error before the deadline, and nothing is half-written."""
    run, where = OPERATIONS[operation]
    impatient = open_store(url, OPTIONS, retry=RetryPolicy(tries=3, first_wait_s=0.05))
    rules.append(Rule(**FAULTS[fault], **where, times=None))
    began = time.monotonic()
    with pytest.raises(StoreError, match=r's3://.*(gave up after 3 tries)') as error:
        run(impatient)
    assert isinstance(error.value, (UnavailableError, ThrottledError))
    assert time.monotonic() - began < PATIENCE_S
    rules.clear()
    list_all(store)
    impatient.close()


def test_a_clock_that_is_off(rules: list[Rule], store: Store) -> None:
    """One error: as with boto3, no clock is set by the answer."""
    for operation, (run, where) in OPERATIONS.items():
        rules.append(Rule('status', **where, status=403, code='RequestTimeTooSkewed', times=None))
        began = time.monotonic()
        # The answer to a HEAD does not say why.
        with pytest.raises(DeniedError if operation == 'head' else CredentialsError, match=r's3://.*403'):
            run(store)
        assert time.monotonic() - began < PATIENCE_S, operation
        rules.clear()


def test_closing_cancels_within_a_second(
    rules: list[Rule], url: str, within: Callable[[float, Callable[[], float]], None]
) -> None:
    patient = open_store(url, {**OPTIONS, 'timeout_s': 60})

    def attempt() -> float:
        rules[:] = waiting = [Rule(FAULTS[name]['kind'], **OPERATIONS[operation][1], times=times) for name, operation, times in (
            ('stall before headers', 'get range', 2),
            ('stall in body', 'get range', 2),
            ('stall before headers', 'put', 1),
            ('stall before headers', 'part', 2),
            ('stall before headers', 'list', 1),
            ('stall before headers', 'head', 1),
        )]  # fmt: skip
        calls = [partial(call, patient) for call in (*[get_range] * 4, put, put_in_parts, list_all, head)]

        def all_wait() -> bool:
            if any(rule.times for rule in waiting):
                return False
            threading.Event().wait(0.2)  # until the bodies have come as far as they come
            return True

        return seconds_to_close(patient, calls, all_wait)

    within(1.0, attempt)
    rules.clear()
    get_range(patient)
    patient.close()
