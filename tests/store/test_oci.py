"""oci:// against the stand-in, over TCP and with signatures checked."""

import base64
import hashlib
import logging
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streaming.errors import (
    ArgumentError,
    CredentialsError,
    DeniedError,
    NotFoundError,
    UnavailableError,
)
from streaming.store import RetryPolicy, open_store
from streaming.store.oci import OCIOptions, OCIStore
from streaming.store.protocol import Store
from streaming.store.retry import RetryStore
from streaming.testing.oci import OCIServer
from streaming.testing.store import StoreTests, pattern, read

PARTS = {'single_put_bytes': '6mb', 'part_bytes': '5mb'}


class TestOCIStore(StoreTests):
    large_bytes = (11 << 20) + 3
    page = 20
    examples = 4

    @pytest.fixture
    def store(self, oci_url: str) -> Iterator[Store]:
        store = open_store(oci_url, PARTS)
        oci_of(store).page = 7
        yield store
        store.close()


def oci_of(store: Store) -> OCIStore:
    assert isinstance(store, RetryStore)
    assert isinstance(store.inner, OCIStore)
    return store.inner


def requests_of(server: OCIServer) -> int:
    return sum(server.stats()['requests'].values())


def plain(url: str) -> str:
    return url.partition('?')[0]


def config_text(server: OCIServer) -> str:
    return Path(server.config_file).read_text()


# Round trips


def test_one_round_trip_a_get(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url)
    store.put('key', pattern(1000))
    oci.reset_stats()
    for start in range(10):
        assert read(store, 'key', start, 100) == pattern(1000)[start : start + 100]
    assert store.get('key') == pattern(1000)
    assert store.head('key').size == 1000
    assert requests_of(oci) == 12
    store.close()


def test_the_namespace_is_asked_for_once(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url.replace(f'@{oci.namespace}', ''))
    store.put('key', b'x')
    for copy in (store, pickle.loads(pickle.dumps(store))):
        assert copy.get('key') == b'x'
        copy.close()
    requests = oci.stats()['requests']
    assert sum(count for name, count in requests.items() if name.rstrip('/').endswith('/n')) == 1


def test_readers_never_import_the_sdk(oci_url: str) -> None:
    open_store(oci_url).put('key', b'value')
    code = f"""
import sys
from streaming.store import open_store
store = open_store({oci_url!r})
assert 'oci' not in sys.modules and 'cryptography' not in sys.modules and 'urllib3' in sys.modules
assert store.get('key') == b'value'
assert [info.key for info in store.list()] == ['key']
print('oci' in sys.modules)
"""
    result = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, timeout=100)
    assert result.stdout.strip() == 'False'


def test_it_pickles_small_and_without_a_key(oci_url: str) -> None:
    store = open_store(oci_url)
    store.put('key', b'x')
    data = pickle.dumps(store)
    assert len(data) < 2000
    assert b'PRIVATE' not in data
    store.close()


def test_an_upload_that_fails_leaves_nothing(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url, PARTS)
    oci.add_fault('status', method='PUT', path='/u/', after=2, status=403, times=None)
    with pytest.raises(DeniedError, match=r'part \d.*403'):
        store.put('large', bytes(21 << 20))
    oci.clear_faults()
    assert list(store.list()) == []
    assert oci.stats()['requests'][f'DELETE /n/{oci.namespace}/b/{oci_of(store).options.bucket}/u/some/prefix/large'] == 1
    store.close()


def test_a_part_that_failed_is_put_again_alone(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url, PARTS)
    oci.add_fault('status', method='PUT', path='/u/', after=1, times=2, retry_after=0)
    oci.add_fault('reset', method='PUT', path='/u/', after=3)
    oci.add_fault('status', method='POST', path='/u/some', times=1)
    data = pattern(21 << 20)
    store.put('large', data)
    assert oci.unspent_faults() == 0
    assert store.get('large') == data
    puts = sum(count for name, count in oci.stats()['requests'].items() if name.startswith('PUT') and '/u/' in name)
    assert puts == 5 + 3
    store.close()


# What goes wrong


def test_a_wrong_bucket(oci: OCIServer) -> None:
    store = open_store(oci.url('no-such-bucket/prefix'))
    for call in (
        lambda: store.get('key'),
        lambda: store.put('key', b''),
        lambda: list(store.list()),
        lambda: store.delete('key'),
        lambda: read(store, 'key', 0, 1),
    ):
        with pytest.raises(NotFoundError, match=rf'oci://no-such-bucket@{oci.namespace}/prefix.*404 BucketNotFound'):
            call()
    with pytest.raises(NotFoundError):
        store.head('key')
    assert requests_of(oci) == 6, 'nothing is tried again'
    store.close()


Within = Callable[[float, Callable[[], float]], None]


def test_a_wrong_namespace(oci: OCIServer, oci_url: str, within: Within) -> None:
    def seconds_to_fail() -> float:
        store = open_store(oci_url.replace(f'@{oci.namespace}', '@someone-else'), PARTS)
        oci.reset_stats()
        began = time.monotonic()
        for call in (
            lambda: store.get('key'),
            lambda: read(store, 'key', 0, 1),
            lambda: store.put('key', b''),
            lambda: store.put('large', bytes(11 << 20)),
            lambda: store.head('key'),
            lambda: list(store.list()),
        ):
            with pytest.raises(NotFoundError, match='@someone-else'):
                call()
        spent = time.monotonic() - began
        assert requests_of(oci) == 6, 'nothing is tried again'
        store.close()
        return spent

    within(5, seconds_to_fail)


def test_a_wrong_key(oci: OCIServer, oci_url: str, tmp_path: Path, within: Within) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / 'other.pem').write_bytes(pem)
    lines = [line for line in config_text(oci).splitlines() if not line.startswith('key_file')]
    (tmp_path / 'config').write_text('\n'.join([*lines, f'key_file={tmp_path / "other.pem"}\n']))

    def seconds_to_fail() -> float:
        store = open_store(oci_url.replace(oci.config_file, str(tmp_path / 'config')))
        oci.reset_stats()
        began = time.monotonic()
        for call in (
            lambda: store.get('key'),
            lambda: store.put('key', b''),
            lambda: store.head('key'),
            lambda: list(store.list()),
        ):
            with pytest.raises(CredentialsError, match='401') as error:
                call()
            assert f'{tmp_path}/config, profile DEFAULT' in str(error.value)
            assert 'PRIVATE' not in str(error.value)
        spent = time.monotonic() - began
        assert requests_of(oci) == 4
        store.close()
        return spent

    within(5, seconds_to_fail)


def test_a_wrong_tenancy(oci: OCIServer, oci_url: str, tmp_path: Path, within: Within) -> None:
    (tmp_path / 'config').write_text(re.sub('tenancy=.*', 'tenancy=ocid1.tenancy.oc1..another', config_text(oci)))

    def seconds_to_fail() -> float:
        store = open_store(oci_url.replace(oci.config_file, str(tmp_path / 'config')), PARTS)
        began = time.monotonic()
        for call in (
            lambda: store.get('key'),
            lambda: read(store, 'key', 0, 1),
            lambda: store.put('key', b''),
            lambda: store.put('large', bytes(11 << 20)),
            lambda: list(store.list()),
        ):
            with pytest.raises(CredentialsError, match=r'401.*the key is not known.*config, profile DEFAULT'):
                call()
        with pytest.raises(CredentialsError, match=r'401.*config, profile DEFAULT'):
            store.head('key')  # whose answer has no message
        spent = time.monotonic() - began
        store.close()
        return spent

    within(5, seconds_to_fail)


def test_no_network(oci_url: str, oci: OCIServer, free_port: int, within: Within) -> None:
    def seconds_to_fail(endpoint: str, what: str) -> float:
        store = open_store(oci_url.replace(oci.endpoint, endpoint))
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r'oci://.*key.*(refused|resolution|not known)'):
            store.get('key') if what == 'get' else store.put('key', b'x')
        store.close()
        return time.monotonic() - began

    nobody, nowhere = f'http://127.0.0.1:{free_port}', 'https://no-such-host.invalid'

    def longest() -> float:
        with ThreadPoolExecutor(4) as pool:
            return max(pool.map(seconds_to_fail, [nobody, nobody, nowhere, nowhere], ['get', 'put'] * 2))

    within(5, longest)


@pytest.mark.parametrize('seconds', [-3600.0, 900.0])
def test_a_clock_that_is_off(oci: OCIServer, oci_url: str, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time
    for call in (
        lambda store: store.put('key', b'x'),
        lambda store: store.get('key'),
        lambda store: store.put('large', bytes(11 << 20)),
    ):
        store = open_store(oci_url, PARTS)
        monkeypatch.setattr(time, 'time', lambda: now() + seconds)
        call(store)
        monkeypatch.undo()
        store.close()


# Answers that are wrong or late


def test_a_cut_body_is_taken_up_where_it_stopped(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url)
    data = pattern(5 << 20)
    store.put('key', data)
    for kind in ('reset', 'truncate', 'short'):
        oci.reset_stats()
        oci.add_fault(kind, method='GET', offset=2 << 20)
        oci.add_fault('reset', method='GET')
        assert read(store, 'key', 0, len(data)) == data
        # What came before a reset may be lost on the way, what came before an end in good order is not.
        served = sum(oci.stats()['bytes'].values())
        assert served <= len(data) + (2 << 20 if kind == 'reset' else 0)
        assert oci.unspent_faults() == 0
    store.close()


@pytest.mark.parametrize(('status', 'seconds'), [(429, 0.0), (503, 0.3), (500, 0.0)])
def test_statuses_that_pass(oci: OCIServer, oci_url: str, status: int, seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(oci_url)
    for method, call in (
        ('PUT', lambda: store.put('key', b'x')),
        ('GET', lambda: store.get('key')),
        ('GET', lambda: read(store, 'key', 0, 1)),
        ('GET', lambda: list(store.list())),
        ('HEAD', lambda: store.head('key')),
        ('DELETE', lambda: store.delete('key')),
    ):
        oci.add_fault('status', method=method, status=status, retry_after=seconds or None)
        caplog.clear()
        with caplog.at_level(logging.INFO, 'streaming'):
            call()
        assert oci.unspent_faults() == 0
        (waited,) = re.findall(r'try 2 of 8 in (\d+\.\d+) s', caplog.text)
        assert float(waited) >= seconds
    store.close()


def test_a_stall_and_a_drip(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url, {'timeout_s': 0.5})
    data = pattern(1 << 20)
    store.put('key', data)
    for fault in ({'kind': 'stall', 'seconds': 60}, {'kind': 'stall', 'seconds': 60, 'offset': 1000}, {'kind': 'drip'}):
        oci.add_fault(method='GET', **fault)  # type: ignore[arg-type]
        began = time.monotonic()
        assert read(store, 'key', 0, len(data)) == data
        assert time.monotonic() - began < 20  # the stall takes a minute, the drip a quarter of an hour
    store.close()
    impatient = open_store(oci_url, {'timeout_s': 0.3}, retry=RetryPolicy(tries=2))
    oci.add_fault('drip', method='GET', times=None)
    with pytest.raises(UnavailableError, match='gave up after 2 tries'):
        read(impatient, 'key', 0, len(data))
    impatient.close()


def test_a_corrupt_whole_get_is_noticed(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url)
    store.put('key', pattern(10_000))
    oci.add_fault('corrupt', method='GET', offset=5000)
    assert store.get('key') == pattern(10_000)
    assert oci.unspent_faults() == 0
    store.close()


def test_threads_that_meet_an_outage_all_succeed(oci: OCIServer, oci_url: str) -> None:
    store = open_store(oci_url)
    store.put('key', pattern(1000))
    oci.add_fault('status', method='GET', status=503, times=32)
    oci.reset_stats()
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda _: store.get('key'), range(32))) == [pattern(1000)] * 32
    assert requests_of(oci) == 64, 'each refusal is one further request, and nobody is shut out'
    store.close()


@pytest.mark.parametrize('variable', [False, True])
def test_through_a_proxy(oci: OCIServer, oci_url: str, relay: Any, monkeypatch: pytest.MonkeyPatch, variable: bool) -> None:
    """Reading and writing reach a host that only the proxy knows."""
    relay.inside = oci.endpoint.removeprefix('http://')
    options: dict[str, object] = {**PARTS}
    if variable:
        monkeypatch.setenv('http_proxy', relay.url)
    else:
        options['proxy'] = relay.url
    store = open_store(oci_url.replace(oci.endpoint, 'http://service.invalid'), options)
    store.put('key', b'value')
    store.put('large', bytes(11 << 20))
    assert store.get('key') == b'value'
    assert [info.key for info in store.list()] == ['key', 'large']
    store.close()
    assert len(relay.passed) == requests_of(oci)
    assert {line.split()[1] for line in relay.passed} == {'service.invalid'}


# Options


def test_urls_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = OCIOptions.parse(
        'oci://a%2Eb@name%20space/x/y%20z/?region=eu-frankfurt-1&profile=P&auth=api_key&timeout_s=5&connections=3',
        {'profile': 'Q', 'part_bytes': '20mb', 'min_bytes_per_s': 1},
    )
    assert (parsed.bucket, parsed.namespace, parsed.prefix) == ('a.b', 'name space', 'x/y z/')
    assert parsed.url == 'oci://a%2Eb@name%20space/x/y%20z'
    assert (parsed.region, parsed.profile, parsed.auth, parsed.part_bytes) == ('eu-frankfurt-1', 'P', 'api_key', 20 << 20)
    assert (parsed.transport.timeout_s, parsed.transport.connections, parsed.transport.min_bytes_per_s) == (5.0, 3, 1.0)
    assert OCIOptions.parse('oci://odd@bucket@ns', {}).bucket == 'odd@bucket'
    assert OCIOptions.parse('oci://bucket', {}).prefix == ''
    monkeypatch.setenv('OCI_CLI_CERT_BUNDLE', '/ca.pem')
    assert OCIOptions.parse('oci://bucket', {}).transport.ca_bundle == '/ca.pem'
    assert OCIOptions.parse('oci://bucket', {'ca_bundle': '/own.pem'}).transport.ca_bundle == '/own.pem'


@pytest.mark.parametrize(
    ('url', 'options'),
    [
        ('oci:///key', {}),
        ('oci://@ns/key', {}),
        ('oci://bucket@/key', {}),
        ('oci://bucket/a/../b', {}),
        ('oci://bucket?key_content=hidden', {}),
        ('oci://bucket?endpoint=host:1', {}),
        ('oci://bucket?auth=password', {}),
        ('oci://bucket?region=a&region=b', {}),
        ('oci://bucket#x', {}),
        ('oci://bucket', {'timeout_s': 'soon'}),
        ('oci://bucket', {'regoin': 'hidden'}),
        ('oci://bucket', {'part_bytes': 0}),
        ('oci://bucket', {'connections': 0}),
    ],
)
def test_urls_that_cannot_work(url: str, options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError) as error:
        open_store(url, options)
    assert 'hidden' not in str(error.value)


def test_secrets_are_not_shown() -> None:
    options = OCIOptions.parse(
        'oci://bucket', {'config': {'key_content': 'hidden'}, 'sse_customer_key': 'hidden', 'par_url': 'https://hidden'}
    )
    assert 'hidden' not in repr(options)


def test_the_endpoint_follows_the_region() -> None:
    from streaming.store.oci.login import endpoint_of

    assert endpoint_of('eu-frankfurt-1') == 'https://objectstorage.eu-frankfurt-1.oraclecloud.com'
    assert endpoint_of('phx') == 'https://objectstorage.us-phoenix-1.oraclecloud.com'
    assert endpoint_of('us-langley-1') == 'https://objectstorage.us-langley-1.oraclegovcloud.com'


def test_encryption_headers(oci: OCIServer, oci_url: str) -> None:
    from streaming.store.oci.headers import sse_headers

    key = base64.b64encode(b'0123456789abcdef' * 2).decode()
    store = open_store(oci_url, {'sse_customer_key': key, **PARTS})
    headers = sse_headers(oci_of(store).options)
    assert headers['opc-sse-customer-algorithm'] == 'AES256'
    assert base64.b64decode(headers['opc-sse-customer-key-sha256']) == hashlib.sha256(b'0123456789abcdef' * 2).digest()
    store.put('small', b'x')
    store.put('large', bytes(11 << 20))
    assert store.get('small') == b'x'
    store.close()
