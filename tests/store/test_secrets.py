"""No secret reaches a log line, an error, or the causes that are printed with it, whatever fails."""

import base64
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming.errors import CredentialsError, StoreError
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store
from streaming.testing.oci import OCIServer

QUICK = RetryPolicy(tries=3, first_wait_s=0.01, contact_s=0.1)
SSE_KEY = base64.b64encode(b'0123456789abcdef' * 2).decode()

CALLS: dict[str, Callable[[Store], object]] = {
    'get': lambda store: store.get('key'),
    'head': lambda store: store.head('key'),
    'range': lambda store: store.read_into('key', 0, memoryview(bytearray(1))),
    'put': lambda store: store.put('key', b'x'),
    'parts': lambda store: store.put('key', bytes(11 << 20)),
    'list': lambda store: list(store.list()),
    'delete': lambda store: store.delete('key'),
}


def what_is_said(store: Store, caplog: pytest.LogCaptureFixture) -> str:
    """All that each kind of request leaves behind: log lines, and errors as Python prints them."""
    said = [repr(store), str(store.url), store.url_of('key')]
    with caplog.at_level(logging.DEBUG, 'streaming'):
        for call in CALLS.values():
            try:
                call(store)
            except StoreError as error:
                said.append(''.join(traceback.format_exception(error)))
    store.close()
    return '\n'.join([*said, caplog.text])


def faults(oci: OCIServer) -> None:
    """One of each kind for every request."""
    for fault in ({'kind': 'status', 'status': 500}, {'kind': 'reset'}, {'kind': 'skew', 'seconds': 900}):
        oci.add_fault(**fault, times=60)  # type: ignore[arg-type]


@pytest.mark.parametrize('where', ['there', 'nobody', 'nowhere'])
def test_oci(oci: OCIServer, oci_url: str, caplog: pytest.LogCaptureFixture, free_port: int, where: str) -> None:
    lines = Path(oci.config_file).read_text().splitlines()
    entries = dict(line.split('=', 1) for line in lines if '=' in line)
    pem = Path(entries.pop('key_file')).read_text()
    endpoint = {'there': oci.endpoint, 'nobody': f'http://127.0.0.1:{free_port}', 'nowhere': 'https://no-such-host.invalid'}[
        where
    ]
    config = {**entries, 'key_content': pem, 'pass_phrase': 'open-sesame'}
    options = {'config': config, 'sse_customer_key': SSE_KEY, 'proxy': '', 'single_put_bytes': '6mb', 'part_bytes': '5mb'}
    store = open_store(f'{oci_url.partition("?")[0]}?endpoint={endpoint}', options, retry=QUICK)
    faults(oci)
    said = what_is_said(store, caplog)
    assert 'failed' in said
    for secret in (SSE_KEY, 'open-sesame', 'signature="', *pem.splitlines()[1:-1]):
        assert secret not in said


@pytest.mark.parametrize('where', ['there', 'nobody'])
def test_a_pre_authenticated_request(oci: OCIServer, caplog: pytest.LogCaptureFixture, free_port: int, where: str) -> None:
    endpoint = oci.endpoint if where == 'there' else f'http://127.0.0.1:{free_port}'
    store = open_store(f'{endpoint}/p/its-secret/n/{oci.namespace}/b/no-such-bucket/o/', {'proxy': ''}, retry=QUICK)
    said = what_is_said(store, caplog)
    assert 'no-such-bucket' in said
    assert 'its-secret' not in said


@pytest.mark.parametrize('where', ['there', 'nobody'])
def test_s3(s3_bucket: str, caplog: pytest.LogCaptureFixture, free_port: int, where: str) -> None:
    options = {
        'access_key_id': 'name',
        'secret_access_key': 'its-secret',
        'session_token': 'its-token',
        'sse_customer_key': SSE_KEY,
    }
    endpoint = '' if where == 'there' else f'?endpoint=http://127.0.0.1:{free_port}'
    store = open_store(f's3://no-such-bucket{endpoint}', {**options, 'sse_customer_key': SSE_KEY}, retry=QUICK)
    said = what_is_said(store, caplog)
    assert 'no-such-bucket' in said
    for secret in ('its-secret', 'its-token', SSE_KEY):
        assert secret not in said


def test_web_servers_and_proxies(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    address = f'127.0.0.1:{free_port}'
    options = {'headers': {'authorization': 'Bearer its-token'}, 'proxy': f'http://me:its-password@{address}'}
    store = open_store(f'http://user:its-secret@{address}/data?sig=its-signature', options, retry=QUICK)
    said = what_is_said(store, caplog)
    assert address in said
    for secret in ('its-secret', 'its-signature', 'its-token', 'its-password'):
        assert secret not in said


def test_a_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / 'key.pem').write_text('-----BEGIN PRIVATE KEY-----\nits-secret\n-----END PRIVATE KEY-----\n')
    config = {'user': 'u', 'tenancy': 't', 'fingerprint': 'f', 'region': 'eu-frankfurt-1', 'key_file': str(tmp_path / 'key.pem')}
    with pytest.raises(CredentialsError) as error:
        open_store('oci://bucket@ns', {'config': config}).get('key')
    assert isinstance(error.value, StoreError)
    assert 'its-secret' not in ''.join(traceback.format_exception(error.value))
