"""The read-only HTTP store against Python's own server, taught ranges, redirections and refusals."""

import base64
import pickle
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from streaming.errors import (
    ArgumentError,
    CorruptError,
    CredentialsError,
    DeniedError,
    NotFoundError,
    PreconditionError,
    StoreError,
    UnavailableError,
)
from streaming.store import open_store
from streaming.testing.store import pattern, read

OBJECTS = {'/data/key': pattern(300_000), '/data/a%20b/%C3%BC': b'odd', '/data/empty': b''}
DATE = 'Thu, 26 Nov 2026 04:18:46 GMT'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    elsewhere = ''

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path, _, query = self.path.partition('?')
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        if path.startswith('/status/'):
            self.reply(int(path.split('/')[2]), b'no')
        elif path.startswith('/loop/'):
            self.reply(302, b'', location=path)
        elif path.startswith('/moved/'):
            self.reply(302, b'gone', location=f'{self.elsewhere}/data/{path.split("/")[2]}')
        elif path.startswith('/private/') and self.headers['authorization'] != 'Basic ' + base64.b64encode(b'me:secret').decode():
            self.reply(401, b'who are you')
        elif path.startswith('/getonly/') and self.command == 'HEAD':
            self.reply(403, b'')
        elif path.startswith('/signed/') and query != 'sig=secret':
            self.reply(403, b'not signed')
        else:
            found = OBJECTS.get(re.sub('^/(private|signed|plain|dated|getonly)/', '/data/', path))
            if found is None:
                self.reply(404, b'not there')
            elif path.startswith('/dated/'):
                self.send_dated(found)
            else:
                self.send_object(found, ranges=not path.startswith('/plain/'))

    def send_dated(self, data: bytes) -> None:
        """An object without an ETag; of the date of its version the answers to ranges say nothing."""
        match = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers['range'] or '')
        if self.headers['if-unmodified-since'] not in (None, DATE):
            self.reply(412, b'')
        elif match is None:
            self.reply(200, data, **{'last-modified': DATE})
        else:
            first, last = int(match[1]), int(match[2])
            self.reply(206, data[first : last + 1], **{'content-range': f'bytes {first}-{last}/{len(data)}'})

    def send_object(self, data: bytes, *, ranges: bool) -> None:
        match = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers['range'] or '')
        if not match or not ranges:
            self.reply(200, data, etag='"v1"')
        elif self.headers['if-match'] not in (None, '"v1"'):
            self.reply(412, b'')
        elif int(match[1]) >= len(data):
            self.reply(416, b'')
        else:
            first, last = int(match[1]), min(int(match[2]), len(data) - 1)
            self.reply(206, data[first : last + 1], etag='"v1"', **{'content-range': f'bytes {first}-{last}/{len(data)}'})

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module')
def servers() -> Iterator[list[ThreadingHTTPServer]]:
    servers = []
    for _ in range(2):
        server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left
        server.seen = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}).start()
        servers.append(server)
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def host(servers: list[ThreadingHTTPServer]) -> str:
    for server in servers:
        server.seen.clear()  # type: ignore[attr-defined]
    Handler.elsewhere = f'http://127.0.0.1:{servers[1].server_port}'
    return f'127.0.0.1:{servers[0].server_port}'


def test_reading(host: str) -> None:
    data = OBJECTS['/data/key']
    for copy in (open_store(f'http://{host}/data/'), pickle.loads(pickle.dumps(open_store(f'http://{host}/data')))):
        info = copy.head('key')
        assert (info.size, info.etag) == (300_000, '"v1"')
        assert copy.get('key') == data
        assert copy.get('empty') == b''
        assert copy.get('a b/ü') == b'odd'
        assert read(copy, 'key', 1000, 200_000, info.etag) == data[1000:201_000]
        with pytest.raises(PreconditionError):
            read(copy, 'key', 0, 10, '"v2"')
        for start, size in ((299_999, 2), (300_000, 1)):
            with pytest.raises(CorruptError):
                read(copy, 'key', start, size)
        with pytest.raises(CorruptError):
            copy.get('key', limit_bytes=10)
        with pytest.raises(NotFoundError, match=f'http://{host}/data/missing'):
            copy.get('missing')
        copy.close()


def test_it_is_read_only(host: str) -> None:
    store = open_store(f'http://{host}/data')
    for call in (lambda: store.put('key', b''), lambda: store.delete('key')):
        with pytest.raises(DeniedError, match='only read'):
            call()
    with pytest.raises(StoreError, match='no listing'):
        list(store.list())


def test_a_server_without_ranges(host: str) -> None:
    store = open_store(f'http://{host}/plain')
    assert read(store, 'key', 0, 300_000) == OBJECTS['/data/key']
    with pytest.raises(StoreError, match='does not do ranges'):
        read(store, 'key', 10, 10)
    store.close()


def test_a_version_that_is_a_date(host: str) -> None:
    store = open_store(f'http://{host}/dated')
    info = store.head('key')
    assert info.etag == DATE
    assert read(store, 'key', 1000, 500, info.etag) == OBJECTS['/data/key'][1000:1500]
    with pytest.raises(PreconditionError):
        read(store, 'key', 1000, 500, 'Thu, 26 Nov 2026 04:18:45 GMT')
    store.close()


def test_what_may_only_be_got(host: str) -> None:
    """A URL that is signed for GET: HEAD is refused."""
    store = open_store(f'http://{host}/getonly')
    info = store.head('key')
    assert (info.size, info.etag) == (300_000, '"v1"')
    store.close()
    store = open_store(f'http://{host}/signed')
    with pytest.raises(DeniedError, match=r'HEAD .*403'):
        store.head('key')
    store.close()


def test_secrets_are_used_and_not_shown(host: str, servers: list[ThreadingHTTPServer]) -> None:
    for url in (f'http://me:secret@{host}/private', f'http://{host}/signed?sig=secret'):
        store = open_store(url)
        assert store.get('key') == OBJECTS['/data/key']
        with pytest.raises(NotFoundError) as error:
            store.get('missing')
        assert 'secret' not in str(error.value) + store.url
        store.close()
    store = open_store(f'http://{host}/private', {'headers': {'Authorization': 'wrong'}})
    with pytest.raises(CredentialsError):
        store.get('key')
    store.close()


def test_redirections(host: str, servers: list[ThreadingHTTPServer]) -> None:
    store = open_store(f'http://me:secret@{host}/moved')
    assert read(store, 'key', 5, 100) == OBJECTS['/data/key'][5:105]
    assert store.head('key').size == 300_000
    there = [headers for _, headers in servers[1].seen]  # type: ignore[attr-defined]
    assert len(there) == 2
    assert not any('authorization' in (name.lower() for name in headers) for headers in there)
    store.close()
    store = open_store(f'http://{host}/loop')
    with pytest.raises(StoreError, match='redirected more than'):
        store.get('key')
    store.close()


@pytest.mark.parametrize(
    ('status', 'kind'), [(403, DeniedError), (410, NotFoundError), (500, UnavailableError), (418, StoreError)]
)
def test_refusals(host: str, status: int, kind: type[StoreError]) -> None:
    store = open_store(f'http://{host}/status/{status}', retry=None)
    for call in (store.get, store.head):
        with pytest.raises(kind) as error:
            call('key')
        assert error.value.status == status
    store.close()


@pytest.mark.parametrize('url', ['http://', 'http:///path', 'http://host/path#x'])
def test_urls_that_cannot_work(url: str) -> None:
    with pytest.raises(ArgumentError):
        open_store(url)
    with pytest.raises(ArgumentError):
        open_store('http://host/path', {'unknown': 1})
