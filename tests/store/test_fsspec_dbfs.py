"""dbfs:/ by fsspec's client, against a stand-in for the DBFS API, written from its documentation. It speaks HTTPS only."""

import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from streaming.errors import DeniedError, ThrottledError, UnavailableError
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store
from streaming.testing.store import StoreTests, pattern, read
from tests.store.closing import seconds_to_close

TOKEN = 'dapi-secret'
BLOCK = 1 << 20  # the most that is read or added at a time


class Refused(Exception):
    """Status, code and message of an answer."""


class DBFS(BaseHTTPRequestHandler):
    """Files and folders by path; the most harmless failures to come first; and whether it is silent."""

    protocol_version = 'HTTP/1.1'
    files: dict[str, bytes]
    folders: set[str]
    handles: dict[int, tuple[str, bytearray]]
    failures: list[tuple[int, str]]
    reads: list[int]
    hush: threading.Event
    lock: threading.Lock

    def do(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get('content-length') or 0)) or b'{}')
        name = self.path.removeprefix('/api/2.0/dbfs/').replace('-', '_')
        try:
            if self.headers['authorization'] != f'Bearer {TOKEN}':
                raise Refused(403, '403', 'Invalid access token.')
            if self.failures:
                raise Refused(*self.failures.pop(0), 'for now')
            if self.hush.is_set() and name == 'read':
                self.reads.append(-1)
                while self.hush.is_set():
                    time.sleep(0.02)
            with self.lock:
                answer = getattr(self, f'api_{name}')(**asked)
        except Refused as error:
            status, code, message = error.args
            return self.reply(status, {'error_code': code, 'message': message})
        return self.reply(200, answer or {})

    do_GET = do_POST = do

    def entry(self, path: str) -> dict[str, Any]:
        if path in self.folders:
            return {'path': path, 'is_dir': True, 'file_size': 0}
        if path not in self.files:
            raise Refused(404, 'RESOURCE_DOES_NOT_EXIST', f'No file or directory exists on path {path}.')
        return {'path': path, 'is_dir': False, 'file_size': len(self.files[path])}

    def api_list(self, path: str) -> dict[str, Any]:
        if not self.entry(path)['is_dir']:
            return {'files': [self.entry(path)]}
        below = [name for name in (*self.files, *self.folders) if name.rpartition('/')[0] == path.rstrip('/') and name != path]
        return {'files': [self.entry(name) for name in below]} if below else {}

    def api_read(self, path: str, offset: int, length: int) -> dict[str, Any]:
        if length > BLOCK:
            raise Refused(400, 'MAX_READ_SIZE_EXCEEDED', 'too much at a time')
        if self.entry(path)['is_dir']:
            raise Refused(400, 'INVALID_PARAMETER_VALUE', 'Cannot read a directory.')
        data = self.files[path][offset : offset + length]
        self.reads.append(length)
        return {'bytes_read': len(data), 'data': base64.b64encode(data).decode()}

    def api_create(self, path: str, overwrite: bool = False) -> dict[str, Any]:
        if path in self.files and not overwrite:
            raise Refused(400, 'RESOURCE_ALREADY_EXISTS', 'A file exists.')
        handle = len(self.handles)
        self.handles[handle] = path, bytearray()
        return {'handle': handle}

    def api_add_block(self, handle: int, data: str) -> None:
        block = base64.b64decode(data)
        if len(block) > BLOCK:
            raise Refused(400, 'MAX_BLOCK_SIZE_EXCEEDED', 'too much at a time')
        self.handles[handle][1].extend(block)

    def api_close(self, handle: int) -> None:
        path, data = self.handles[handle]
        self.files[path] = bytes(data)

    def api_mkdirs(self, path: str) -> None:
        while path != '/' and path not in self.folders:
            if path in self.files:
                raise Refused(400, 'RESOURCE_ALREADY_EXISTS', 'A file is there.')
            self.folders.add(path)
            path = path.rpartition('/')[0] or '/'

    def api_move(self, source_path: str, destination_path: str) -> None:
        self.entry(source_path)
        if destination_path in self.files or destination_path in self.folders:
            raise Refused(400, 'RESOURCE_ALREADY_EXISTS', 'Something is there.')
        self.files[destination_path] = self.files.pop(source_path)

    def api_delete(self, path: str, recursive: bool = False) -> None:
        self.files.pop(path, None)

    def reply(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module')
def dbfs(serve: Callable[..., str], certificate: tuple[Path, Path]) -> type[DBFS]:
    """The server, at ``dbfs.host``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    state = {'files': {}, 'folders': {'/'}, 'handles': {}, 'failures': [], 'reads': []}
    own = type('Own', (DBFS,), {**state, 'hush': threading.Event(), 'lock': threading.Lock()})
    own.host = serve(own, context).removeprefix('https://')  # type: ignore[attr-defined]
    return own


@pytest.fixture(autouse=True)
def environment(dbfs: Any, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('DATABRICKS_HOST', f'https://{dbfs.host}')
    monkeypatch.setenv('DATABRICKS_TOKEN', TOKEN)
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(certificate[0]))


@pytest.fixture
def store() -> Iterator[Store]:
    store = open_store(f'dbfs:/data/{uuid.uuid4().hex}')
    yield store
    store.close()


class TestDBFS(StoreTests):
    conditional_put = False
    has_etag = False
    folders = True
    examples = 1

    @pytest.fixture
    def store(self, store: Store) -> Store:
        return store

    def test_readers_see_one_version_or_the_other(self, store: Store) -> None:
        pytest.skip('nothing is replaced there: what was is removed before what shall be is moved')


def test_a_range_brings_its_bytes_and_no_more(dbfs: type[DBFS], store: Store) -> None:
    data = pattern(3 << 20)
    store.put('key', data)
    for start, size in ((0, 10), (1000, 1), (100, (1 << 20) + 5)):
        dbfs.reads.clear()
        assert read(store, 'key', start, size) == data[start : start + size]
        assert sum(dbfs.reads) == size
    assert store.get('key') == data


def test_who_may_not_read() -> None:
    wrong = open_store('dbfs:/data/x', {'token': 'dapi-wrong'})
    with pytest.raises(DeniedError, match=r'dbfs:/+data/x/key: Invalid access token') as error:
        wrong.get('key')
    assert 'dapi-wrong' not in str(error.value)
    wrong.close()


def test_what_passes_and_what_stays(dbfs: type[DBFS], store: Store) -> None:
    store.put('key', b'value')
    dbfs.failures += [(429, 'RESOURCE_EXHAUSTED'), (503, 'TEMPORARILY_UNAVAILABLE')]
    assert store.get('key') == b'value'
    assert dbfs.failures == []
    for status, code, kind in ((500, 'INTERNAL_ERROR', UnavailableError), (429, 'RESOURCE_EXHAUSTED', ThrottledError)):
        dbfs.failures += [(status, code)] * 2
        impatient = open_store('dbfs:/data/x', retry=RetryPolicy(tries=2))
        with pytest.raises(kind, match=r'dbfs:/+data/x/key: for now \(gave up after 2 tries'):
            impatient.get('key')
        assert dbfs.failures == [], 'each is one request'
        impatient.close()


def test_closing_cancels_within_a_second(
    dbfs: type[DBFS], store: Store, within: Callable[[float, Callable[[], float]], None]
) -> None:
    store.put('key', b'value')

    def attempt() -> float:
        dbfs.reads.clear()
        dbfs.hush.set()
        try:
            calls = (lambda: store.get('key'), lambda: read(store, 'key', 1, 2))
            return seconds_to_close(store, calls, lambda: len(dbfs.reads) == 2)
        finally:
            dbfs.hush.clear()

    within(1.0, attempt)
    assert store.get('key') == b'value'
