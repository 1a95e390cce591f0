"""The plane that s3:// reads on: what it leaves to boto3, how it finds the right region and new credentials, how it says no."""

import base64
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from streaming.errors import CredentialsError, PreconditionError, StoreError
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store
from streaming.store.retry import RetryStore
from streaming.store.s3 import S3Store
from streaming.testing.store import read

KEY = {'access_key_id': 'key', 'secret_access_key': 'secret'}
DATA = b'0123456789'
# Names whose characters mean something in a URL, in XML, or to those who encode twice.
ODD = [
    'a b', 'a+b', 'a%20b', '100%', '%2F', 'x=1&y=2', '?versionId=1', '#fragment', "it's (a) *star*!", '~tilde', 'semi;colon',
    'a:b@c,d$e', '[x]{y}|z^`', '<tag attribute="1">', 'ä/ü/é', 'a\u0308', '日本', '🙂/🙂',
]  # fmt: skip


def reads_by_itself(store: Store) -> bool:
    """Whether it has found how to send what boto3 would send."""
    assert isinstance(store, RetryStore)
    assert isinstance(store.inner, S3Store)
    state = store.inner._session()._get()
    assert state.tried
    return state.plane is not None


def check_keys(store: Store, keys: list[str]) -> None:
    for number, key in enumerate(keys):
        store.put(key, f'{number}{key}'.encode())
    for number, key in enumerate(keys):
        data = f'{number}{key}'.encode()
        assert store.get(key) == data
        assert read(store, key, 1, len(data) - 1) == data[1:]
        assert store.head(key).size == len(data)
    assert reads_by_itself(store)


def test_odd_keys(s3_bucket: str) -> None:
    store = open_store(f's3://{s3_bucket}/a%20b/%C3%BC+~%2B')
    check_keys(store, ODD)
    store.close()


@dataclass
class Service:
    """What a server that stands in for S3 knows, and what came to it."""

    region: str = ''
    keys: set[str] = field(default_factory=lambda: {'key'})
    status: int = 0
    always_elsewhere: bool = False
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)
    to_proxy: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    """Lets whoever signs for the right region with a key that it knows have ten bytes."""

    protocol_version = 'HTTP/1.1'
    service: Service

    def do_GET(self) -> None:
        service = self.service
        scope = self.headers.get('authorization', 'Credential=//').partition('Credential=')[2].partition('/aws4_request')[0]
        who, _, region = scope.split('/')[:3]
        by = 'boto3' if 'amz-sdk-invocation-id' in self.headers else 'us'
        with service.lock:
            service.seen.append((self.command, by, who, region))
            service.to_proxy.append(self.headers['proxy-authorization'])
        if service.always_elsewhere and by == 'us':
            self.refuse(307, 'TemporaryRedirect')
        elif service.region and region != service.region:
            self.refuse(service.status, 'AuthorizationHeaderMalformed' if service.status == 400 else 'PermanentRedirect')
        elif who not in service.keys:
            self.refuse(400, 'ExpiredToken')
        elif self.command == 'PUT':
            self.answer(200, b'', {'etag': '"1"'})
        else:
            first, _, last = self.headers.get('range', 'bytes=0-').removeprefix('bytes=').partition('-')
            body = DATA[int(first) : int(last or 9) + 1]
            self.answer(206, body, {'content-range': f'bytes {first}-{last or 9}/10', 'etag': '"1"'})

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers['content-length']))
        self.do_GET()

    def refuse(self, status: int, code: str) -> None:
        region = f'<Region>{self.service.region}</Region>' if self.service.region else ''
        headers = {'x-amz-bucket-region': self.service.region} if self.service.region else {}
        headers['x-amz-request-id'] = 'its-id'
        self.answer(status, f'<Error><Code>{code}</Code><Message>no</Message>{region}</Error>'.encode(), headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, 'content-length': str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope='module')
def server(serve: Callable[[type], str]) -> tuple[str, type[Handler]]:
    kind = type('Own', (Handler,), {'service': Service()})
    return serve(kind), kind


@pytest.fixture
def service(server: tuple[str, type[Handler]]) -> Service:
    """A new one."""
    server[1].service = Service()
    return server[1].service


@pytest.fixture
def url(server: tuple[str, type[Handler]], service: Service) -> str:
    return f's3://bucket/prefix?endpoint={server[0]}&region=us-east-1'


def test_a_request_for_a_read(service: Service, url: str) -> None:
    """One round trip each, and none to find the way."""
    store = open_store(url, KEY)
    assert read(store, 'a', 2, 5) == DATA[2:7]
    assert store.get('a') == DATA
    assert store.head('a').size == 10
    assert [(method, by) for method, by, *_ in service.seen] == [('GET', 'us'), ('GET', 'us'), ('HEAD', 'us')]
    store.close()


@pytest.mark.parametrize('status', [301, 307, 400])
def test_a_bucket_in_another_region(service: Service, url: str, status: int) -> None:
    """boto3 follows, once, and we go straight there from then on."""
    service.region, service.status = 'eu-west-1', status
    store = open_store(url, KEY)
    for _ in range(3):
        assert read(store, 'a', 2, 5) == DATA[2:7]
    assert [seen[1::2] for seen in service.seen] == [
        ('us', 'us-east-1'), ('boto3', 'us-east-1'), ('boto3', 'eu-west-1'), ('us', 'eu-west-1'), ('us', 'eu-west-1'),
    ]  # fmt: skip
    store.close()


@pytest.mark.parametrize('status', [301, 400])
def test_a_head_in_another_region(service: Service, url: str, status: int) -> None:
    service.region, service.status = 'eu-west-1', status
    store = open_store(url, KEY)
    assert store.head('a').size == 10
    assert store.head('a').size == 10
    assert [seen[1::2] for seen in service.seen][-2:] == [('boto3', 'eu-west-1'), ('us', 'eu-west-1')]
    store.close()


@pytest.mark.parametrize('is_named', [True, False])
def test_sent_elsewhere_without_end(
    service: Service, url: str, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest, is_named: bool
) -> None:
    """Where only boto3 gets through, it reads."""
    if not is_named:
        request.getfixturevalue('asks_boto3')
    service.always_elsewhere, service.region = True, 'us-east-1'
    store = open_store(url, KEY)
    with caplog.at_level(logging.DEBUG, 'streaming.store.s3'):
        for _ in range(3):
            assert store.get('a') == DATA
    assert [by for _, by, *_ in service.seen] == ['us', 'boto3', 'boto3', 'boto3']
    assert 's3://bucket/prefix: boto3 reads' in caplog.text
    assert not reads_by_itself(store)
    store.close()


@pytest.fixture
def asks_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where options name all that there is to know."""
    monkeypatch.setattr('streaming.store.s3.session.named_route', lambda options: None)


@pytest.mark.usefixtures('asks_boto3')
def test_what_we_cannot_sign_boto3_reads(
    service: Service, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr('streaming.store.s3.signing.ALGORITHM', 'AWS4-OTHER')
    store = open_store(url, KEY)
    with caplog.at_level(logging.DEBUG, 'streaming.store.s3'):
        assert read(store, 'a', 2, 5) == DATA[2:7]
        assert store.get('a') == DATA
        assert store.head('a').size == 10
    assert [(method, by) for method, by, *_ in service.seen] == [('GET', 'boto3'), ('GET', 'boto3'), ('HEAD', 'boto3')]
    assert 'it signs for s3 in us-east-1 as we do not' in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    store.close()


MOCKED = """
import boto3, moto
from streaming.store import open_store
with moto.mock_aws():
    boto3.client('s3').create_bucket(Bucket='bucket')
    store = open_store('s3://bucket/prefix')
    store.put('a', b'0123456789')
    buffer = bytearray(5)
    store.read_into('a', 2, memoryview(buffer))
    print(store.get('a'), bytes(buffer), store.head('a').size)
    store.close()
"""


def test_a_mock_of_boto3_stays_one() -> None:
    """moto's answers in the service's place, and so nothing of ours may go out. In a process of its own: it mocks all of it."""
    environment = {**os.environ, 'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b', 'AWS_DEFAULT_REGION': 'us-east-1'}
    run = subprocess.run([sys.executable, '-c', MOCKED], env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout == "b'0123456789' b'23456' 10\n"


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the credentials that boto3 finds: those of a program, as tools for single sign-on have them."""
    monkeypatch.setenv('AWS_CONFIG_FILE', str(tmp_path / 'config'))
    (tmp_path / 'config').write_text(f'[default]\ncredential_process={sys.executable} {tmp_path}/program.py\n')

    def write(who: str) -> None:
        found = {
            'Version': 1,
            'AccessKeyId': who,
            'SecretAccessKey': 's',
            'SessionToken': 't',
            'Expiration': '2999-01-01T00:00:00Z',
        }
        (tmp_path / 'program.py').write_text(f'print({json.dumps(json.dumps(found))})')

    return write


def test_a_token_that_expires(
    service: Service, url: str, credentials: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Credentials that are refused before their time are looked for anew, once for all threads."""
    service.keys = {'first'}
    credentials('first')
    store = open_store(url)
    assert store.get('a') == DATA
    credentials('second')
    service.keys = {'second'}
    with caplog.at_level(logging.INFO, 'streaming.store.s3'), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(store.get, 'a' * 16)) == [DATA] * 16
    assert caplog.text.count('the credentials were refused, and others found') == 1
    assert service.seen[-1] == ('GET', 'us', 'second', 'us-east-1')
    # The answer to a HEAD does not say why; boto3 looks whether the bucket is elsewhere, too.
    credentials('third')
    service.keys = {'third'}
    assert store.head('a').size == 10
    assert service.seen[-1][2] == 'third'
    store.put('a', DATA)
    store.close()


def in_a_fork(function: Callable[[], object]) -> object:
    """What a function returns in a forked process; the text of what it raises."""
    with ProcessPoolExecutor(1, multiprocessing.get_context('fork'), _remember, (function,)) as pool:
        return pool.submit(_call).result(60)


_function: Callable[[], object]


def _remember(function: Callable[[], object]) -> None:
    global _function
    _function = function


def _call() -> object:
    try:
        return _function()
    except Exception as error:
        return f'{type(error).__name__}: {error}'


def test_a_fork_knows_the_way(service: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads without a client of boto3, over connections of its own; it makes one where only that will do."""
    store = open_store(url, KEY)
    assert store.get('a') == DATA

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError('it logged in')

    def reads() -> object:
        monkeypatch.setattr('streaming.store.s3.session.log_in', refuse)
        found = store.get('a'), read(store, 'a', 2, 5), store.head('a').size
        store.close()
        return found

    assert in_a_fork(reads) == (DATA, DATA[2:7], 10)
    assert [by for _, by, *_ in service.seen] == ['us'] * 4

    def reads_by_threads() -> object:
        monkeypatch.setattr('streaming.store.s3.session.log_in', refuse)
        with ThreadPoolExecutor(8) as pool:
            return set(pool.map(store.get, 'a' * 32))

    assert in_a_fork(reads_by_threads) == {DATA}
    service.seen.clear()

    def writes() -> object:
        store.put('a', DATA)
        return store.get('a')

    assert in_a_fork(writes) == DATA
    assert [by for _, by, *_ in service.seen] == ['boto3', 'us']
    assert store.get('a') == DATA
    store.close()


def test_a_fork_whose_bucket_has_moved(service: Service, url: str) -> None:
    store = open_store(url, KEY)
    assert store.get('a') == DATA
    service.region, service.status = 'eu-west-1', 301
    assert in_a_fork(lambda: (store.get('a'), store.get('a'))) == (DATA, DATA)
    assert [seen[1::2] for seen in service.seen[1:]] == [
        ('us', 'us-east-1'), ('boto3', 'us-east-1'), ('boto3', 'eu-west-1'), ('us', 'eu-west-1'),
    ]  # fmt: skip
    store.close()


def test_a_fork_whose_credentials_are_refused(
    service: Service, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They came from a file, which a tool has written anew meanwhile."""
    monkeypatch.delenv('AWS_ACCESS_KEY_ID', raising=False)
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'credentials'))

    def write(who: str) -> None:
        (tmp_path / 'credentials').write_text(f'[default]\naws_access_key_id={who}\naws_secret_access_key=s\n')
        service.keys = {who}

    write('first')
    store = open_store(url)
    assert store.get('a') == DATA
    write('second')
    assert in_a_fork(lambda: store.get('a')) == DATA
    assert [who for *_, who, _ in service.seen] == ['first', 'first', 'second']
    store.close()


def test_a_fork_renews_credentials_that_expire_by_itself(service: Service, url: str, credentials: Callable[[str], None]) -> None:
    """They come with threads and locks, which are not for a fork to use."""
    service.keys = {'first', 'second'}
    credentials('first')
    store = open_store(url)
    assert store.get('a') == DATA
    credentials('second')
    assert in_a_fork(lambda: store.get('a')) == DATA
    assert [who for *_, who, _ in service.seen] == ['first', 'second']
    store.close()


def test_a_fork_without_credentials(service: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service.keys = {''}
    store = open_store(f'{url}&unsigned=true')
    assert store.get('a') == DATA
    assert in_a_fork(lambda: store.get('a')) == DATA
    assert [who for *_, who, _ in service.seen] == ['', '']
    store.close()


def test_a_token_that_has_expired_for_good(service: Service, url: str, credentials: Callable[[str], None]) -> None:
    credentials('nobody')
    store = open_store(url)
    with pytest.raises(
        CredentialsError, match=r's3://bucket/prefix/a: 400 ExpiredToken \(no\) \[request id its-id\].*profile default'
    ):
        store.get('a')
    assert len(service.seen) == 1
    store.close()


def test_a_proxy_with_a_password(service: Service, server: tuple[str, type[Handler]]) -> None:
    proxy = server[0].replace('http://', 'http://me:p%40ss@')
    store = open_store('s3://bucket?endpoint=http://store.invalid&region=x', {**KEY, 'proxy': proxy})
    store.put('a', DATA)
    assert store.get('a') == DATA
    assert [(method, by) for method, by, *_ in service.seen] == [('PUT', 'boto3'), ('GET', 'us')]
    assert service.to_proxy == [f'Basic {base64.b64encode(b"me:p@ss").decode()}'] * 2
    store.close()


@pytest.mark.parametrize('call', ['get', 'head', 'range', 'condition', 'bucket', 'denied'])
def test_errors_are_boto3s(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """To the letter, but for the id of the request."""

    def fail(bucket: str, key: str = 'missing', **options: object) -> StoreError | Any:
        store = open_store(f's3://{bucket}', {**options}, retry=RetryPolicy(tries=1))
        try:
            with pytest.raises(Exception, match=r's3://') as error:
                if call == 'head':
                    store.head(key)
                elif call == 'range':
                    store.read_into('there', 7, memoryview(bytearray(9)))
                elif call == 'condition':
                    store.read_into('there', 0, memoryview(bytearray(1)), if_match='"other"')
                else:
                    store.get(key)
            return reads_by_itself(store), type(error.value), vars(error.value), str(error.value).partition(' [request id')[0]
        finally:
            store.close()

    open_store(f's3://{s3_bucket}').put('there', DATA)
    options: dict[str, object] = {'unsigned': True} if call == 'denied' else {}
    bucket, key = 'no-such-bucket' if call == 'bucket' else s3_bucket, 'there' if call == 'denied' else 'missing'
    named = fail(bucket, key, **options)
    monkeypatch.setattr('streaming.store.s3.session.named_route', lambda options: None)
    ours = fail(bucket, key, **options)
    monkeypatch.setattr('streaming.store.s3.session.find_route', _unlike)
    boto3s = fail(bucket, key, **options)
    assert (named[0], ours[0], boto3s[0]) == (True, True, False)
    assert named[1:] == ours[1:] == boto3s[1:]
    if call == 'condition':
        assert ours[1] is PreconditionError


def _unlike(*_: object) -> None:
    from streaming.store.s3.route import UnlikeError

    raise UnlikeError('it is told to')
