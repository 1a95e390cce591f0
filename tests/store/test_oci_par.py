"""Pre-authenticated requests: a gate that knows a secret path, and hands what comes through it on to the stand-in."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from streaming.errors import ArgumentError, CorruptError, CredentialsError, DeniedError, NotFoundError, StoreError
from streaming.store import open_store
from streaming.store.oci.options import OCIOptions
from streaming.store.oci.par import PAR
from streaming.store.oci.sdk import SDKWriter
from streaming.store.oci.session import Session
from streaming.store.parts import Part
from streaming.store.protocol import Store
from streaming.testing.oci import OCIServer
from streaming.testing.store import StoreTests, pattern

SECRET = 'zH0rTS3cr3t'
KEPT = ('content-md5', 'range', 'if-match', 'if-none-match', 'content-type')


class Gate(BaseHTTPRequestHandler):
    """Signs what came under the secret path and passes it on."""

    protocol_version = 'HTTP/1.1'
    session: Session
    seen: list[str]

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        self.seen.append(self.path)
        prefix = f'/p/{SECRET}'
        if not self.path.startswith(f'{prefix}/n/') or 'authorization' in self.headers:
            return self.reply(404, {}, b'{"code": "NotAuthorizedOrNotFound", "message": "no such request"}')
        target, method = self.path.removeprefix(prefix), self.command
        in_parts = re.fullmatch(r'(/n/[^/]+/b/[^/]+/u)/([^/]+)/id/([^/]+)/(\d*)', target)
        try:
            if self.headers.get('opc-multipart'):
                return self.begin(target, prefix)
            if in_parts and method == 'POST':
                return self.commit(in_parts)
            if in_parts:
                base, name, upload, number = in_parts.groups()
                target = f'{base}/{name}?uploadId={upload}' + (f'&uploadPartNum={number}' if number else '')
            elif method == 'DELETE':
                return self.reply(403, {}, b'')
            headers = {name: self.headers[name] for name in KEPT if name in self.headers}
            with self.session.send(method, target, what='x', headers=headers, body=body or None) as answer:
                if method == 'HEAD':
                    answer.skip()
                    return self.reply(200, answer.headers, None)
                return self.reply(answer.status, answer.headers, answer.read())
        except CorruptError:
            self.reply(416, {}, b'')
        except StoreError as error:
            code = re.search(r'\d{3} (\w+)', str(error))
            self.reply(error.status or 500, {}, json.dumps({'code': code and code[1], 'message': ''}).encode())

    def client(self) -> Any:
        return SDKWriter(self.session)

    def begin(self, target: str, prefix: str) -> None:
        base, name = target.split('/o/')
        upload = self.client().begin(unquote(name), 'if-none-match' not in self.headers, 'x')
        self.reply(200, {}, json.dumps({'accessUri': f'{prefix}{base}/u/{name}/id/{upload}/'}).encode())

    def commit(self, in_parts: 're.Match[str]') -> None:
        base, name, upload, _ = in_parts.groups()
        with self.session.send('GET', f'{base}/{name}?uploadId={upload}', what='x') as answer:
            listed = json.loads(answer.read())
        parts = [Part(item['partNumber'], item['etag'], base64.b64decode(item['md5'])) for item in listed]
        etag = self.client().commit(unquote(name), upload, parts, 'if-none-match' not in self.headers, 'x')
        self.reply(200, {'etag': etag}, b'')

    def reply(self, status: int, headers: dict[str, str], body: bytes | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name in ('etag', 'content-range', 'content-md5', 'opc-content-md5', 'opc-multipart-md5'):
                self.send_header(name, value)
        self.send_header('content-length', headers['content-length'] if body is None else str(len(body)))
        self.end_headers()
        if body and self.command != 'HEAD':
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gate(oci: OCIServer, oci_url: str) -> Iterator[str]:
    """The URL of a pre-authenticated request for a new bucket."""
    bucket = OCIOptions.parse(oci_url, {}).bucket
    handler = type('Handler', (Gate,), {'session': Session(OCIOptions.parse(oci_url, {})), 'seen': []})
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}).start()
    yield f'http://127.0.0.1:{server.server_port}/p/{SECRET}/n/{oci.namespace}/b/{bucket}/o/'
    server.shutdown()
    server.server_close()
    handler.session.close()


@pytest.mark.slow
class TestPAR(StoreTests):
    """All but deleting, which no such request allows."""

    large_bytes = 0
    examples = 1

    @pytest.fixture
    def store(self, gate: str, oci: OCIServer, oci_url: str) -> Iterator[Store]:
        par, signed = open_store(f'{gate}some/prefix'), open_store(oci_url)
        par.delete = signed.delete  # type: ignore[method-assign]
        yield par
        par.close()
        signed.close()

    def test_pickle(self, store: Store) -> None:
        del store.delete
        super().test_pickle(store)


def test_parts(gate: str) -> None:
    store = open_store(gate, {'single_put_bytes': 0, 'part_bytes': '1mb'})
    data = pattern((3 << 20) + 5)
    store.put('a/b', data)
    assert store.get('a/b') == data
    assert store.head('a/b').size == len(data)
    store.close()


def test_by_option_and_by_environment(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    par = PAR.parse(gate)
    url = f'oci://{par.bucket}@{par.namespace}/deep'
    store = open_store(url, {'par_url': gate})
    store.put('key', b'x')
    monkeypatch.setenv('OCI_PAR_URL', gate)
    by_environment = open_store(f'{url}?auth=par')
    assert by_environment.get('key') == b'x'
    with pytest.raises(DeniedError):
        store.delete('key')
    store.close()
    by_environment.close()


def test_what_cannot_work(gate: str) -> None:
    with pytest.raises(CredentialsError, match='OCI_PAR_URL'):
        open_store('oci://bucket@ns/x?auth=par').get('key')
    with pytest.raises(ArgumentError, match='is for oci://bucket-') as error:
        open_store('oci://other@ns', {'par_url': gate}).get('key')
    assert SECRET not in str(error.value)
    with pytest.raises(ArgumentError) as error:
        open_store('oci://other@ns', {'par_url': f'https://host/{SECRET}'}).get('key')
    assert SECRET not in str(error.value)


def test_the_secret_is_never_shown(gate: str, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(gate)
    with caplog.at_level('DEBUG', 'streaming'), pytest.raises(NotFoundError) as error:
        store.get('missing')
    wrong = open_store(gate.replace(SECRET, SECRET[::-1]))
    with caplog.at_level('DEBUG', 'streaming'), pytest.raises(NotFoundError) as other:
        wrong.get('missing')
    shown = f'{error.value} {other.value} {store.url} {store.inner!r} {caplog.text}'  # type: ignore[attr-defined]
    assert SECRET not in shown
    assert SECRET[::-1] not in shown
    store.close()
    wrong.close()
