"""hf:// by the Hub's own client, against as much of the Hub as reading takes: repositories, trees in pages, files by range."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import pytest

from streaming.errors import CorruptError, CredentialsError, DeniedError, NotFoundError, UnavailableError
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store
from streaming.testing.store import pattern, read
from tests.store.closing import seconds_to_close

TOKEN = 'hf_secret'
DATA = pattern(300_000)
FILES = {
    'data/index.json': b'{}',
    'data/key': DATA,
    'data/with space+#?.x': b'odd',
    'data/deep/er/key': b'deeper',
    **{f'data/many/{number:02d}': b'x' * number for number in range(25)},
    'other': b'',
}
PAGE = 10


class Hub(BaseHTTPRequestHandler):
    """The dataset org/name, whose files are FILES; org/gated, which asks for more; and a list of failures to come first."""

    protocol_version = 'HTTP/1.1'
    failures: list[int]
    sent: list[tuple[str, int]]
    hush: threading.Event

    def do(self) -> None:
        path, _, query = self.path.partition('?')
        path = unquote(path)
        if self.headers['authorization'] not in (None, f'Bearer {TOKEN}'):
            return self.fail(401, '', 'Invalid credentials in Authorization header')
        if match := re.fullmatch(r'/api/datasets/(\w+/\w+)(?:/revision/(\w+))?', path):
            return self.repository(match[1], match[2] or 'main')
        if match := re.fullmatch(r'/api/datasets/org/name/tree/main/?(.*)', path):
            return self.tree(match[1], {name: values[0] for name, values in parse_qs(query).items()})
        if match := re.fullmatch(r'/datasets/org/name/resolve/main/(.+)', path):
            return self.file(match[1])
        return self.fail(404, 'RepoNotFound', 'no such thing')

    do_GET = do_HEAD = do

    def repository(self, name: str, revision: str) -> None:
        if name == 'org/gated':
            return self.fail(403, 'GatedRepo', 'ask for access')
        if name != 'org/name':
            return self.fail(401, 'RepoNotFound', 'no such repository')
        if revision != 'main':
            return self.fail(404, 'RevisionNotFound', 'no such revision')
        return self.reply(200, json.dumps({'id': name, 'sha': '0' * 40, 'siblings': [], 'tags': []}).encode())

    def tree(self, folder: str, options: dict[str, str]) -> None:
        below = f'{folder}/' if folder else ''
        found: dict[str, dict[str, Any]] = {}
        for name, data in sorted(FILES.items()):
            if name.startswith(below):
                first, deeper, _ = name[len(below) :].partition('/')
                kind = 'directory' if deeper else 'file'
                found[first] = {'type': kind, 'path': below + first, 'size': 0 if deeper else len(data), 'oid': f'{hash(data):x}'}
        if not found:
            return self.fail(404, 'EntryNotFound', 'no such folder')
        begin = int(options.get('cursor', '0'))
        headers = {}
        if begin + PAGE < len(found):
            url = f'http://{self.headers["host"]}/api/datasets/org/name/tree/main/{quote(folder)}?cursor={begin + PAGE}'
            headers['link'] = f'<{url}>; rel="next"'
        return self.reply(200, json.dumps(list(found.values())[begin : begin + PAGE]).encode(), headers)

    def file(self, name: str) -> None:
        if name not in FILES:
            return self.fail(404, 'EntryNotFound', 'no such file')
        if self.failures:
            return self.fail(self.failures.pop(0), '', 'for now')
        if self.hush.is_set():
            self.sent.append((name, -1))
            while self.hush.is_set():
                time.sleep(0.02)
        data = FILES[name]
        match = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers['range'] or '')
        if match is None:
            return self.reply(200, data)
        first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return self.fail(416, '', 'beyond the end')
        self.sent.append((name, last + 1 - first))
        return self.reply(206, data[first : last + 1], {'content-range': f'bytes {first}-{last}/{len(data)}'})

    def fail(self, status: int, code: str, message: str) -> None:
        self.reply(status, json.dumps({'error': message}).encode(), {'x-error-code': code, 'x-error-message': message})

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), 'content-length': str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module')
def hub(serve: Callable[[type], str]) -> Iterator[type[Hub]]:
    """The server, at ``hub.url``."""
    pytest.importorskip('huggingface_hub')
    own = type('Own', (Hub,), {'failures': [], 'sent': [], 'hush': threading.Event()})
    own.url = serve(own)  # type: ignore[attr-defined]
    yield own
    own.hush.clear()


@pytest.fixture(autouse=True)
def no_connections(hub: type[Hub]) -> Iterator[None]:
    """The client keeps them for the process, and the server a thread for each. Calls that were given up end before."""
    yield
    deadline = time.monotonic() + 30
    while any(thread.name.startswith('fsspec-') for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.02)
    import huggingface_hub

    huggingface_hub.close_session()


def open_hub(hub: Any, path: str = 'datasets/org/name/data', retry: RetryPolicy | None = None, **options: object) -> Store:
    return open_store(f'hf://{path}', {'endpoint': hub.url, 'token': TOKEN, **options}, **({'retry': retry} if retry else {}))


@pytest.fixture
def store(hub: type[Hub]) -> Iterator[Store]:
    hub.sent.clear()
    store = open_hub(hub)
    yield store
    store.close()


def test_reading(hub: type[Hub], store: Store) -> None:
    assert store.get('key') == DATA
    assert store.head('key').size == len(DATA)
    assert store.get('with space+#?.x') == b'odd'
    assert store.get('many/00') == b''
    with pytest.raises(CorruptError):
        store.get('key', limit_bytes=1000)


def test_a_range_brings_its_bytes_and_no_more(hub: type[Hub], store: Store) -> None:
    for start, size in ((0, 10), (1000, 1), (299_990, 10), (5, 200_000)):
        hub.sent.clear()
        assert read(store, 'key', start, size) == DATA[start : start + size]
        assert hub.sent == [('data/key', size)]
    with pytest.raises(CorruptError, match='300000 bytes'):
        read(store, 'key', 299_999, 2)
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(lambda number: read(store, 'key', number * 3000, 3000), range(100))
        assert b''.join(parts) == DATA


def test_listing(store: Store) -> None:
    keys = sorted(name.removeprefix('data/') for name in FILES if name.startswith('data/'))
    assert [(info.key, info.size) for info in store.list()] == [(key, len(FILES[f'data/{key}'])) for key in keys]
    assert [info.key for info in store.list('many/1')] == [f'many/{number}' for number in range(10, 20)]
    assert [info.key for info in store.list(after='many/22')] == ['many/23', 'many/24', 'with space+#?.x']
    assert list(store.list('nothing/')) == []


def test_what_is_not_there(hub: type[Hub], store: Store) -> None:
    for call in (lambda: store.get('no'), lambda: store.head('no/such'), lambda: read(store, 'no', 0, 1)):
        with pytest.raises(NotFoundError, match='hf://datasets/org/name/data/no'):
            call()
    for path in ('datasets/org/missing/x', 'datasets/org/name@other/x'):
        other = open_hub(hub, path)
        with pytest.raises(NotFoundError, match=f'hf://{path}/key'):
            other.get('key')
        other.close()


def test_who_may_not_read(hub: type[Hub]) -> None:
    gated = open_hub(hub, 'datasets/org/gated/x')
    with pytest.raises(DeniedError, match='hf://datasets/org/gated/x/key'):
        gated.get('key')
    gated.close()
    wrong = open_hub(hub, token='hf_wrong')
    with pytest.raises(CredentialsError, match='hf://datasets/org/name/data/key') as error:
        wrong.get('key')
    assert 'hf_wrong' not in str(error.value)
    wrong.close()


def test_what_passes(hub: type[Hub], store: Store) -> None:
    hub.failures += [503]
    assert store.get('key') == DATA
    assert hub.failures == []


def test_closing_cancels_within_a_second(hub: type[Hub], within: Callable[[float, Callable[[], float]], None]) -> None:
    store = open_hub(hub)
    assert store.head('key').size == len(DATA)

    def attempt() -> float:
        hub.sent.clear()
        hub.hush.set()
        try:
            calls = (lambda: store.get('key'), lambda: read(store, 'key', 10, 10))
            return seconds_to_close(store, calls, lambda: len(hub.sent) == 2)
        finally:
            hub.hush.clear()

    within(1.0, attempt)


def test_silence_has_an_end(hub: type[Hub]) -> None:
    impatient = open_hub(hub, retry=RetryPolicy(tries=1), timeout_s=1.0)
    assert impatient.head('key').size == len(DATA)
    hub.hush.set()
    try:
        with pytest.raises(UnavailableError, match=r'GET hf://.*no answer within'):
            read(impatient, 'key', 0, 10)
    finally:
        hub.hush.clear()
    impatient.close()
