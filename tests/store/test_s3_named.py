"""Where options and environment name all, reads go as boto3 would send them, without boto3; in all other cases it is asked."""

import os
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.store.s3.client import log_in
from streaming.store.s3.named import named_route
from streaming.store.s3.options import S3Options
from streaming.store.s3.route import find_route
from streaming.store.s3.signing import Signer

ENDPOINT = 'http://127.0.0.1:9000'
KEYS = {'AWS_ACCESS_KEY_ID': 'who', 'AWS_SECRET_ACCESS_KEY': 'proof'}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable and no file of boto3's, but for the home that the test fills."""
    for name in list(os.environ):
        if name.startswith(('AWS_', 'BOTO_', 'S3_', 'MOSAICML_')) or name.endswith('_CA_BUNDLE'):
            monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


def check_is_boto3s(options: S3Options) -> None:
    found = named_route(options)
    assert found is not None
    route, credentials, bundle = found
    login = log_in(options, unsigned=False)
    boto3s = find_route(login.client, login.freeze, {'Bucket': options.bucket})
    assert route.leads_where(boto3s)
    assert route.headers == {name: value for name, value in boto3s.headers.items() if name != 'user-agent'}
    frozen = login.freeze()
    assert credentials == (frozen.access_key, frozen.secret_key, frozen.token)
    assert bundle == login.ca_bundle
    assert route.region is not None
    headers = {'host': route.host, 'x-amz-date': '20261126T000000Z', **route.headers}
    assert Signer(route.region).authorize('GET', '/a', headers, credentials) == Signer(route.region).authorize(
        'GET', '/a', headers, frozen
    )
    assert 'proof' not in repr(credentials)


@pytest.mark.parametrize(
    ('url', 'options', 'environ'),
    [
        ('s3://bucket/prefix', {'endpoint': ENDPOINT}, KEYS),
        ('s3://bucket', {'endpoint': 'https://store.example.com/', 'region': 'eu-west-3'}, KEYS),
        ('s3://b.uck-et', {'endpoint': 'https://store.example.com:443', 'path_style': True, 'unsigned': False}, KEYS),
        ('s3://bucket', {'endpoint': 'http://store:80'}, {**KEYS, 'AWS_SESSION_TOKEN': 'token'}),
        ('s3://bucket', {}, {**KEYS, 'AWS_ENDPOINT_URL': ENDPOINT, 'AWS_DEFAULT_REGION': 'ap-south-1', 'AWS_REGION': 'other-1'}),
        ('s3://bucket', {}, {**KEYS, 'AWS_ENDPOINT_URL': 'http://other', 'AWS_ENDPOINT_URL_S3': ENDPOINT, 'AWS_REGION': 'x-1'}),
        ('s3://bucket', {}, {**KEYS, 'S3_ENDPOINT_URL': ENDPOINT, 'AWS_ENDPOINT_URL': 'http://other'}),
        ('s3://bucket', {'endpoint': ENDPOINT, 'access_key_id': 'me', 'secret_access_key': 'own'}, KEYS),
        (
            's3://bucket',
            {'endpoint': ENDPOINT, 'access_key_id': 'me', 'secret_access_key': 'own', 'session_token': 'mine'},
            {'AWS_SESSION_TOKEN': 'theirs', 'AWS_EC2_METADATA_DISABLED': 'true'},
        ),
        (
            's3://bucket',
            {'endpoint': ENDPOINT, 'access_key_id': 'me', 'secret_access_key': 'own'},
            {'AWS_SESSION_TOKEN': 'theirs'},
        ),
        ('s3://bucket', {'endpoint': ENDPOINT}, {**KEYS, 'AWS_CA_BUNDLE': '/etc/ssl/certs/ca-certificates.crt'}),
    ],
)
def test_what_is_named_is_what_boto3_would_do(
    url: str, options: dict[str, object], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if not Path(environ.get('AWS_CA_BUNDLE', '/')).exists():
        pytest.skip('no such file of certificates here')
    check_is_boto3s(S3Options.parse(url, options))


_LABEL = st.from_regex(r'[a-z0-9][a-z0-9-]{0,8}[a-z0-9]', fullmatch=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(_LABEL, min_size=1, max_size=3).map('.'.join).filter(lambda name: len(name) > 2),
    st.sampled_from(['http', 'https']),
    st.lists(_LABEL, min_size=1, max_size=3).map('.'.join),
    st.none() | st.integers(1, 65535),
    st.sampled_from([None, 'us-east-1', 'cn-north-1', 'us-gov-west-1', 'auto', 'ap-7']),
)
def test_any_bucket_anywhere(bucket: str, scheme: str, host: str, port: int | None, region: str | None) -> None:
    endpoint = f'{scheme}://{host}' + (f':{port}' if port else '')
    keys = {'access_key_id': 'who', 'secret_access_key': 'proof'}
    options = S3Options.parse(f's3://{bucket}', {'endpoint': endpoint, 'region': region, **keys})
    if '--' in bucket:
        assert named_route(options) is None
    else:
        check_is_boto3s(options)


@pytest.mark.parametrize(
    ('bucket', 'options', 'environ'),
    [
        ('bucket', {}, {}),  # no endpoint: Amazon's rules
        ('bucket', {'endpoint': 'https://s3.eu-west-1.amazonaws.com'}, {}),
        ('bucket', {'endpoint': 'https://store.example.com/base'}, {}),
        ('bucket', {'endpoint': 'https://Store.example.com'}, {}),
        ('bucket', {'endpoint': 'http://[::1]:9000'}, {}),
        ('bucket', {'endpoint': 'http://store:99999'}, {}),
        ('bucket', {'endpoint': 'http://-store'}, {}),
        ('bucket', {'endpoint': ENDPOINT, 'profile': 'other'}, {}),
        ('bucket', {'endpoint': ENDPOINT, 'unsigned': True}, {}),
        ('bucket', {'endpoint': ENDPOINT, 'path_style': False}, {}),
        ('bucket', {'endpoint': ENDPOINT, 'requester_pays': True}, {}),
        ('bucket', {'endpoint': ENDPOINT, 'sse_customer_key': 'A' * 43 + '='}, {}),
        ('bucket', {'endpoint': ENDPOINT, 'region': 'eu west'}, {}),
        ('bucket', {'endpoint': ENDPOINT, 'session_token': 'alone'}, {}),
        ('data--use1-az4--x-s3', {'endpoint': ENDPOINT}, {}),
        ('Bucket_of_old', {'endpoint': ENDPOINT}, {}),
        ('arn:aws:s3:us-east-1:1:accesspoint:a', {'endpoint': ENDPOINT}, {}),
        ('bucket', {'endpoint': ENDPOINT}, {'AWS_PROFILE': 'other'}),
        ('bucket', {'endpoint': ENDPOINT}, {'AWS_IGNORE_CONFIGURED_ENDPOINT_URLS': 'true'}),
        ('bucket', {'endpoint': ENDPOINT}, {'AWS_USE_FIPS_ENDPOINT': 'true'}),
        ('bucket', {'endpoint': ENDPOINT}, {'AWS_CONFIG_FILE': '/somewhere'}),
        ('bucket', {'endpoint': ENDPOINT}, {'AWS_ACCESS_KEY_ID': ''}),
        ('bucket', {'endpoint': ENDPOINT}, {'AWS_SECRET_ACCESS_KEY': ''}),
    ],
)
def test_all_else_is_left_to_boto3(
    bucket: str, options: dict[str, object], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**KEYS, **environ}.items():
        monkeypatch.setenv(name, value)
    parsed = S3Options.parse('s3://bucket', options)
    object.__setattr__(parsed, 'bucket', bucket)
    assert named_route(parsed) is None


@pytest.mark.parametrize('name', ['config', 'credentials', 'models/s3'])
def test_a_file_of_boto3s_is_left_to_it(clean: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in KEYS.items():
        monkeypatch.setenv(variable, value)
    options = S3Options.parse('s3://bucket', {'endpoint': ENDPOINT})
    assert named_route(options) is not None
    path = clean / '.aws' / name
    path.parent.mkdir(parents=True)
    path.touch()
    assert named_route(options) is None


def test_a_folder_that_may_not_be_looked_into_is_left_to_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, 'Permission denied', str(path))

    for variable, value in KEYS.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(Path, 'exists', refuse)  # a superuser may look anywhere
    assert named_route(S3Options.parse('s3://bucket', {'endpoint': ENDPOINT})) is None


class Ten(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        assert self.headers['authorization'].startswith('AWS4-HMAC-SHA256 Credential=who/')
        self.send_response(206)
        for name, value in {'content-length': '10', 'content-range': 'bytes 0-9/10', 'etag': '"x"'}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b'0123456789')

    def log_message(self, *_: object) -> None:
        pass


READ = """
import sys
from streaming.store import open_store
store = open_store('s3://bucket/prefix')
buffer = bytearray(10)
store.read_into('a', 0, memoryview(buffer))
print(store.get('a'), bytes(buffer), sorted({'boto3', 'botocore'} & set(sys.modules)))
"""


@pytest.fixture(scope='module')
def server(serve: Callable[[type], str]) -> str:
    return serve(Ten)


def test_nothing_of_boto3_is_imported(server: str, clean: Path) -> None:
    environ = {**os.environ, **KEYS, 'AWS_ENDPOINT_URL': server, 'HOME': str(clean)}
    run = subprocess.run([sys.executable, '-c', READ], env=environ, check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout == "b'0123456789' b'0123456789' []\n"
