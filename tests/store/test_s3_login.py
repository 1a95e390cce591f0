"""What s3:// sends: as whom, where to, with which headers. Against a server that writes requests down and says yes."""

import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from streaming.store import open_store
from streaming.testing.store import read

LISTING = b'<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
BEGUN = b'<InitiateMultipartUploadResult><UploadId>upload</UploadId></InitiateMultipartUploadResult>'
DONE = b'<CompleteMultipartUploadResult><ETag>"x-2"</ETag></CompleteMultipartUploadResult>'


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def who(self) -> str:
        """The access key that signed it; empty where nobody did."""
        return self.headers.get('authorization', '').partition('Credential=')[2].partition('/')[0]


class Recorder(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    seen: list[Seen]

    def do(self) -> None:
        body = self.rfile.read(int(self.headers['content-length'] or 0))
        self.seen.append(Seen(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, answer = 200, {'ETag': f'"{hashlib.md5(body).hexdigest()}"'}, b''
        if 'list-type=2' in self.path:
            answer = LISTING
        elif self.command == 'POST':
            answer = BEGUN if self.path.endswith('?uploads') else DONE
        elif self.command == 'GET' and 'range' in self.headers:
            first, last = self.headers['range'].removeprefix('bytes=').split('-')
            answer = b'x' * ((int(last) if last else 9) - int(first) + 1)
            status, headers = 206, {'Content-Range': f'bytes {first}-{last or 9}/10'}
        self.send_response(status)
        size = 11 << 20 if self.command == 'HEAD' else len(answer)
        for name, value in {**headers, 'Content-Length': str(size)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module')
def recorder(serve: Callable[[type], str]) -> tuple[str, list[Seen]]:
    """Endpoint, and what came to it."""
    seen: list[Seen] = []
    return serve(type('Own', (Recorder,), {'seen': seen})), seen


@pytest.fixture
def seen(recorder: tuple[str, list[Seen]], monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """What comes from now on; the endpoint is in the environment, as in mosaicml-streaming."""
    monkeypatch.setenv('S3_ENDPOINT_URL', recorder[0])
    recorder[1].clear()
    return recorder[1]


def use(url: str, **options: object) -> None:
    """Every kind of request once."""
    store = open_store(url, {'single_put_bytes': '6mb', 'part_bytes': '5mb', **options})
    assert read(store, 'key', 2, 5) == b'xxxxx'
    assert store.get('key') == b'x' * 10
    store.put('key', b'value')
    store.put('large', bytes(11 << 20))
    assert list(store.list()) == []
    store.delete('key')
    store.close()


KEY = {'access_key_id': 'own', 'secret_access_key': 'secret'}


@pytest.mark.parametrize('variable', ['S3_ENDPOINT_URL', 'AWS_ENDPOINT_URL', 'AWS_ENDPOINT_URL_S3'])
def test_endpoints(seen: list[Seen], variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = os.environ['S3_ENDPOINT_URL']
    monkeypatch.delenv('S3_ENDPOINT_URL')
    monkeypatch.setenv(variable, endpoint)
    use('s3://bucket/prefix', **KEY)
    # The bucket's name is in the path wherever there is an endpoint.
    assert {request.path.split('/')[1].partition('?')[0] for request in seen} == {'bucket'}
    monkeypatch.setenv(variable, 'http://127.0.0.1:1')
    use(f's3://bucket/prefix?endpoint={endpoint}', **KEY)


def test_the_bucket_in_the_path_or_in_the_host(seen: list[Seen]) -> None:
    from streaming.store.s3.client import log_in
    from streaming.store.s3.options import S3Options

    for query, style in (('', 'path'), ('?path_style=true', 'path'), ('?path_style=false', 'auto')):
        client = log_in(S3Options.parse(f's3://bucket{query}', {}), unsigned=True).client
        assert client.meta.config.s3['addressing_style'] == style
        client.close()


def test_requester_pays(seen: list[Seen], monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> set[str | None]:
        found = {request.headers.get('x-amz-request-payer') for request in seen}
        assert len(seen) == 11  # 2 GET, PUT, POST, 3 parts, POST, HEAD, LIST, DELETE
        seen.clear()
        return found

    use('s3://bucket/prefix', **KEY)
    assert asked() == {None}
    use('s3://bucket/prefix?requester_pays=true', **KEY)
    assert asked() == {'requester'}
    monkeypatch.setenv('MOSAICML_STREAMING_AWS_REQUESTER_PAYS', 'other,bucket')
    use('s3://bucket/prefix', **KEY)
    assert asked() == {'requester'}


def test_nobody(seen: list[Seen]) -> None:
    use('s3://bucket/prefix?unsigned=true', **KEY)
    assert {request.who for request in seen} == {''}


def test_what_is_put_has_its_md5(seen: list[Seen]) -> None:
    use('s3://bucket/prefix', **KEY)
    puts = [request for request in seen if request.method == 'PUT']
    assert len(puts) == 4
    assert puts[0].headers['content-md5'] == base64.b64encode(hashlib.md5(b'value').digest()).decode()
    for request in puts:
        assert 'content-md5' in request.headers
        # Not every service that speaks S3 takes the newer ones.
        assert not [
            name for name in request.headers if name.startswith(('x-amz-checksum', 'x-amz-sdk-checksum', 'x-amz-trailer'))
        ]


def test_boto3s_chain(seen: list[Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given goes before the variables, these before the profile, and that may name a program that knows."""

    def who(url: str = 's3://bucket/prefix', **options: object) -> str:
        seen.clear()
        use(url, **options)
        (found,) = {request.who for request in seen}
        return found

    (tmp_path / 'credentials').write_text(
        '[default]\naws_access_key_id=of-default\naws_secret_access_key=s\n'
        '[team]\naws_access_key_id=of-team\naws_secret_access_key=s\n'
    )
    (tmp_path / 'program.py').write_text(
        f'print({json.dumps(json.dumps({"Version": 1, "AccessKeyId": "of-program", "SecretAccessKey": "s"}))})'
    )
    (tmp_path / 'config').write_text(f'[profile asks]\ncredential_process={sys.executable} {tmp_path}/program.py\n')
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'credentials'))
    monkeypatch.setenv('AWS_CONFIG_FILE', str(tmp_path / 'config'))
    assert who() == 'of-default'
    assert who('s3://bucket/prefix?profile=team') == 'of-team'
    assert who(profile='asks') == 'of-program'
    monkeypatch.setenv('AWS_PROFILE', 'team')
    assert who() == 'of-team'
    monkeypatch.delenv('AWS_PROFILE')
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'of-variables')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 's')
    assert who() == 'of-variables'
    assert who(**KEY) == 'own'


def test_a_session_token_and_a_key_of_kms(seen: list[Seen]) -> None:
    use('s3://bucket/prefix', **KEY, session_token='token', kms_key_id='managed')
    assert {request.headers.get('x-amz-security-token') for request in seen} == {'token'}
    managed = [request for request in seen if request.headers.get('x-amz-server-side-encryption-aws-kms-key-id') == 'managed']
    assert [request.method for request in managed] == ['PUT', 'POST']
