"""dbfs:/Volumes against a stand-in for the Files API, written from its documentation."""

import json
import pickle
import re
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

import pytest

from streaming.errors import ArgumentError, CredentialsError
from streaming.store import open_store
from streaming.store.databricks import DatabricksStore
from streaming.store.protocol import Store
from streaming.testing.store import StoreTests

TOKEN = 'dapi-secret'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    files: dict[str, tuple[bytes, int]]
    folders: set[str]

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        path, _, query = self.path.partition('?')
        match = re.fullmatch(r'/api/2\.0/fs/(files|directories)(/Volumes/.+)', unquote(path))
        if self.headers['authorization'] != f'Bearer {TOKEN}':
            return self.reply(401, b'{}')
        if match is None or match[2].endswith('/'):
            return self.reply(400, b'{}')
        kind, name, options = match[1], match[2], {key: values[0] for key, values in parse_qs(query).items()}
        if kind == 'directories':
            return self.make_folder(name) if self.command == 'PUT' else self.list(name, options)
        if self.command == 'PUT':
            return self.put(name, body, options['overwrite'] == 'true')
        if name not in self.files:
            return self.reply(404, b'{"error_code": "NOT_FOUND"}')
        if self.command == 'DELETE':
            del self.files[name]
            return self.reply(204, b'')
        self.send_object(*self.files[name])

    do_GET = do_HEAD = do_PUT = do_DELETE = do

    def make_folder(self, name: str) -> None:
        while name.count('/') > 1:
            self.folders.add(name)
            name = name.rpartition('/')[0]
        self.reply(204, b'')

    def put(self, name: str, body: bytes, overwrite: bool) -> None:
        if name.rpartition('/')[0] not in self.folders:
            return self.reply(404, b'{}')
        if not overwrite and name in self.files:
            return self.reply(409, b'{"error_code": "ALREADY_EXISTS"}')
        self.files[name] = body, int(time.time() * 1000)
        self.reply(204, b'')

    def list(self, folder: str, options: dict[str, str]) -> None:
        if folder not in self.folders:
            return self.reply(404, b'{}')
        found = [
            {'path': name, 'name': name.rpartition('/')[2], 'file_size': len(data), 'last_modified': ms, 'is_directory': False}
            for name, (data, ms) in self.files.items()
            if name.rpartition('/')[0] == folder
        ]
        below = [name for name in self.folders if name.rpartition('/')[0] == folder]
        found += [{'path': name, 'name': name.rpartition('/')[2], 'is_directory': True} for name in below]
        at = int(options.get('page_token', '0'))
        page = {'contents': found[at : at + 3]} | ({'next_page_token': str(at + 3)} if at + 3 < len(found) else {})
        self.reply(200, json.dumps(page).encode())

    def send_object(self, data: bytes, modified_ms: int) -> None:
        headers = {'last-modified': formatdate(modified_ms // 1000, usegmt=True)}
        match = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers['range'] or '')
        if match and int(match[1]) >= len(data):
            return self.reply(416, b'')
        if match:
            first, last = int(match[1]), min(int(match[2]), len(data) - 1)
            headers['content-range'] = f'bytes {first}-{last}/{len(data)}'
            data = data[first : last + 1]
        self.reply(206 if match else 200, data, headers)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header('content-length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host without files; it and its token are in the environment."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), type('Own', (Handler,), {'files': {}, 'folders': set()}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}).start()
    host = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setenv('DATABRICKS_HOST', host)
    monkeypatch.setenv('DATABRICKS_TOKEN', TOKEN)
    yield host
    server.shutdown()
    server.server_close()


class TestVolumes(StoreTests):
    has_etag = False  # it is a time in whole seconds
    folders = True
    examples = 2

    @pytest.fixture
    def store(self, workspace: str) -> Iterator[Store]:
        store = open_store('dbfs:/Volumes/catalog/schema/volume/data/')
        yield store
        store.close()


def test_how_to_get_in(workspace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('DATABRICKS_TOKEN')
    with pytest.raises(CredentialsError, match=r'dbfs:/Volumes/a/b/c.*DATABRICKS_TOKEN'):
        open_store('dbfs:/Volumes/a/b/c')
    store = open_store('dbfs:///Volumes/a/b/c', {'token': TOKEN, 'host': workspace})
    store.put('key', b'x')
    assert pickle.loads(pickle.dumps(store)).get('key') == b'x'
    assert store.url == 'dbfs:/Volumes/a/b/c'
    store.close()
    wrong = open_store('dbfs:/Volumes/a/b/c', {'token': 'wrong-one'})
    with pytest.raises(CredentialsError) as error:
        wrong.get('key')
    assert 'wrong-one' not in str(error.value)
    wrong.close()
    with pytest.raises(ArgumentError):
        open_store('dbfs:/Volumes/a/../b', {'token': TOKEN})
    assert not isinstance(open_store('dbfs:/plain/path', {'instance': 'x', 'token': 'y'}, retry=None), DatabricksStore)
