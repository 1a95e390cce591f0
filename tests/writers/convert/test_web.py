"""Sources on a web server: each file is named, as there is no listing; what a user reads where that was not done."""

import gzip
import json
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streaming import LocalDataset
from streaming.errors import FormatError, NotFoundError
from streaming.writers.convert import convert

ROWS = [{'id': number, 'text': f'row {number} ✓'} for number in range(900)]
LINES = ''.join(json.dumps(row) + '\n' for row in ROWS).encode()


class Handler(BaseHTTPRequestHandler):
    """Files of a folder, by range; those below ``signed/`` only to who has the signature, and only by GET."""

    protocol_version = 'HTTP/1.1'
    root: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _, query = unquote(self.path).partition('?')
        file = self.root / path.removeprefix('/signed').lstrip('/')
        if path.startswith('/signed') and (query != 'sig=SECRET' or self.command == 'HEAD'):
            self.reply(403, b'')
        elif not file.is_file():
            self.reply(404, b'')
        else:
            data = file.read_bytes()
            match = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers['range'] or '')
            if match is None:
                self.reply(200, data)
            else:
                first, last = int(match[1]), min(int(match[2]), len(data) - 1)
                self.reply(206, data[first : last + 1], f'bytes {first}-{last}/{len(data)}')

    def reply(self, status: int, body: bytes, content_range: str = '') -> None:
        self.send_response(status)
        self.send_header('content-length', str(len(body)))
        if content_range:
            self.send_header('content-range', content_range)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module', params=['http', 'https'])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[str]:
    """The URL of a server, with a certificate of our own authority where it has one, and files on it."""
    folder = tmp_path_factory.mktemp('site')
    (folder / 'a b ü.jsonl').write_bytes(LINES)
    (folder / 'a.jsonl.gz').write_bytes(gzip.compress(LINES))
    (folder / 'bad.jsonl').write_bytes(LINES + b'no json')
    pq.write_table(pa.Table.from_pylist(ROWS), folder / 'a.parquet', row_group_size=300)
    convert(folder / 'a.parquet', folder / 'dataset', workers=1, size_limit='4kb')
    server = ThreadingHTTPServer(('127.0.0.1', 0), type('Handler', (Handler,), {'root': folder}))
    server.daemon_threads = True
    with pytest.MonkeyPatch.context() as patch:
        if request.param == 'https':
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            for name in ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'):
                patch.delenv(name, raising=False)
            patch.setenv('SSL_CERT_FILE', str(certificate[0]))
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
        thread.start()
        yield f'{request.param}://127.0.0.1:{server.server_port}'
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    'path',
    [
        'a%20b%20%C3%BC.jsonl',
        'a b ü.jsonl',
        'a.jsonl.gz',
        'a.parquet',
        'signed/a.parquet?sig=SECRET',
        'dataset',
        'dataset/index.json',
    ],
)
def test_a_file_or_a_dataset_by_its_name(site: str, path: str, tmp_path: Path) -> None:
    summary = convert(f'{site}/{path}', tmp_path / 'out', workers=1, part_bytes='8kb')
    assert summary.samples == len(ROWS)
    assert list(LocalDataset(tmp_path / 'out')) == ROWS
    assert not any(b'SECRET' in file.read_bytes() for file in tmp_path.rglob('*') if file.is_file())


def test_several_files(site: str, tmp_path: Path) -> None:
    convert([f'{site}/a.jsonl.gz', f'{site}/a b ü.jsonl'], tmp_path / 'out', workers=2, part_bytes='8kb')
    assert list(LocalDataset(tmp_path / 'out')) == ROWS * 2


@pytest.mark.parametrize(
    ('path', 'said'),
    [
        ('none.jsonl', r'no file at http.*/none\.jsonl, and no index\.json below it; .* no listing of folders: name each file'),
        ('', 'no file at http.*; a web server has no listing of folders: name each file'),
        ('*.parquet', 'no listing that a glob could match: name each file'),
    ],
)
def test_what_is_not_there_and_what_cannot_be_listed(site: str, path: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=said):
        convert(f'{site}/{path}', tmp_path / 'out')


def test_a_bad_record_is_named_by_its_url(site: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf'{site}/bad\.jsonl, line {len(ROWS) + 1}: it is no JSON'):
        convert(f'{site}/bad.jsonl', tmp_path / 'out', workers=1, part_bytes='8kb')
