import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from streaming.errors import (
    ArgumentError,
    CredentialsError,
    DeniedError,
    NotFoundError,
    UnavailableError,
)
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.store.retry import RetryStore
from streaming.store.s3 import S3Options, S3Store
from streaming.testing.store import StoreTests, pattern


class TestS3Store(StoreTests):
    large_bytes = (11 << 20) + 3
    page = 20
    examples = 2

    @pytest.fixture
    def store(self, s3_bucket: str) -> Iterator[Store]:
        store = open_store(f's3://{s3_bucket}/some/prefix', {'single_put_bytes': '6mb', 'part_bytes': '5mb'})
        s3_of(store).page = 7
        yield store
        store.close()


def s3_of(store: Store) -> S3Store:
    assert isinstance(store, RetryStore)
    assert isinstance(store.inner, S3Store)
    return store.inner


def test_urls_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MOSAICML_STREAMING_AWS_REQUESTER_PAYS', 'other, paid')
    monkeypatch.setenv('S3_ENDPOINT_URL', 'http://from-environment')
    options = S3Options.parse('s3://paid/a%20b/c/?region=eu-west-1&unsigned=1&timeout_s=5', {'region': 'x', 'profile': 'p'})
    assert (options.bucket, options.prefix, options.url) == ('paid', 'a b/c/', 's3://paid/a%20b/c')
    assert (options.region, options.profile, options.unsigned, options.requester_pays) == ('eu-west-1', 'p', True, True)
    assert options.endpoint == 'http://from-environment'
    assert options.transport.timeout_s == 5.0
    assert S3Options.parse('s3://free?endpoint=http://x:1', {}).endpoint == 'http://x:1'
    assert not S3Options.parse('s3://free', {}).requester_pays


@pytest.mark.parametrize(
    ('url', 'options'),
    [
        ('s3:///key', {}),
        ('s3://bucket/a/../b', {}),
        ('s3://bucket?secret_access_key=hidden', {}),
        ('s3://bucket?endpoint=host:1', {}),
        ('s3://bucket?unsigned=perhaps', {}),
        ('s3://bucket?region=a&region=b', {}),
        ('s3://bucket', {'timeout_s': 0}),
        ('s3://bucket', {'regoin': 'x'}),
        ('s3://bucket', {'access_key_id': 'hidden'}),
    ],
)
def test_urls_that_cannot_work(url: str, options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError) as error:
        open_store(url, options)
    assert 'hidden' not in str(error.value)


def test_nothing_is_imported_before_the_first_request() -> None:
    code = "import sys; from streaming.store import open_store; open_store('s3://b/p'); print('boto3' in sys.modules)"
    result = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, timeout=100)
    assert result.stdout.strip() == 'False'


def test_it_pickles_small_and_without_secrets_in_its_repr(s3_bucket: str) -> None:
    store = open_store(f's3://{s3_bucket}', {'access_key_id': 'key', 'secret_access_key': 'hidden', 'session_token': 'hidden'})
    store.put('key', b'x')
    assert len(pickle.dumps(store)) < 2000
    assert 'hidden' not in repr(s3_of(store).options)


def test_an_interrupted_upload_leaves_nothing(s3_bucket: str, moto_endpoint: str) -> None:
    import boto3

    store = s3_of(open_store(f's3://{s3_bucket}', {'single_put_bytes': 0, 'part_bytes': '5mb'}))
    put_part = store.put_part

    def fail(key: str, upload: str, number: int, data: bytes):  # type: ignore[no-untyped-def]
        if number == 3:
            raise DeniedError('no more')
        return put_part(key, upload, number, data)

    store.put_part = fail  # type: ignore[method-assign]
    with pytest.raises(DeniedError):
        store.put('large', bytes(21 << 20))
    client = boto3.client('s3', endpoint_url=moto_endpoint)
    assert client.list_multipart_uploads(Bucket=s3_bucket).get('Uploads', []) == []
    assert list(store.list()) == []


def test_a_missing_bucket(s3_bucket: str) -> None:
    store = open_store('s3://no-such-bucket-here/prefix')
    for call in (lambda: store.get('key'), lambda: store.put('key', b''), lambda: list(store.list())):
        with pytest.raises(NotFoundError, match=r's3://no-such-bucket-here/prefix.*NoSuchBucket'):
            call()


def test_no_network(free_port: int, s3_bucket: str, within: Callable[[float, Callable[[], float]], None]) -> None:
    def seconds_to_fail(endpoint: str) -> float:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r's3://b/key.*(refused|resolution|not known)'):
            open_store(f's3://b?endpoint={endpoint}').get('key')
        return time.monotonic() - began

    def longest() -> float:
        with ThreadPoolExecutor(2) as pool:
            return max(pool.map(seconds_to_fail, [f'http://127.0.0.1:{free_port}', 'http://no-such-host.invalid']))

    within(5, longest)


@pytest.mark.parametrize('variable', [False, True])
def test_through_a_proxy(moto_endpoint: str, s3_bucket: str, relay: Any, monkeypatch: pytest.MonkeyPatch, variable: bool) -> None:
    options = {} if variable else {'proxy': relay.url}
    if variable:
        monkeypatch.setenv('http_proxy', relay.url)
    store = open_store(f's3://{s3_bucket}', options)
    store.put('key', b'value')
    assert store.get('key') == b'value'
    store.close()
    address = moto_endpoint.removeprefix('http://')
    assert relay.passed == [f'PUT {address}', f'GET {address}']


def test_no_credentials_means_asking_without(s3_bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    open_store(f's3://{s3_bucket}').put('key', b'x')
    open_store(f's3://{s3_bucket}').put('private', b'x')
    boto3.client('s3', endpoint_url=moto_endpoint).put_object_acl(Bucket=s3_bucket, Key='key', ACL='public-read')
    monkeypatch.delenv('AWS_ACCESS_KEY_ID')
    monkeypatch.delenv('AWS_SECRET_ACCESS_KEY')
    assert open_store(f's3://{s3_bucket}').get('key') == b'x'
    with pytest.raises(DeniedError, match='private'):
        open_store(f's3://{s3_bucket}').get('private')
    with pytest.raises(CredentialsError, match='boto3 looks at'):
        open_store(f's3://{s3_bucket}?unsigned=false').get('key')


def test_an_unknown_profile(s3_bucket: str) -> None:
    with pytest.raises(CredentialsError, match='no-such-profile'):
        open_store(f's3://{s3_bucket}?profile=no-such-profile').get('key')


def test_an_encrypted_object(s3_bucket: str) -> None:
    import base64

    key = base64.b64encode(b'0123456789abcdef' * 2).decode()
    store = open_store(f's3://{s3_bucket}', {'sse_customer_key': key, 'single_put_bytes': '6mb', 'part_bytes': '5mb'})
    store.put('small', b'x')
    assert store.get('small') == b'x'
    store.put('large', pattern(11 << 20))
    assert store.get('large') == pattern(11 << 20)
