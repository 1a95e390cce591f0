"""Signature version 4: the examples that AWS prints, botocore's own signer, and what boto3 makes of configurations and keys."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streaming.store.s3 import S3Options, route
from streaming.store.s3.client import LogIn, log_in
from streaming.store.s3.route import Route, UnlikeError, find_route, quote_key
from streaming.store.s3.signing import Signer, timestamp

EMPTY = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
PRINTED = SimpleNamespace(access_key='AKIAIOSFODNN7EXAMPLE', secret_key='wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY')


@pytest.mark.parametrize(
    ('method', 'target', 'headers', 'signature'),
    [
        ('GET', '/test.txt', {'range': 'bytes=0-9'}, 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41'),
        (
            'PUT',
            '/test%24file.text',
            {
                'date': 'Fri, 24 May 2013 00:00:00 GMT',
                'x-amz-storage-class': 'REDUCED_REDUNDANCY',
                'x-amz-content-sha256': '44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072',
            },
            '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
        ),
        ('GET', '/?lifecycle', {}, 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'),
        ('GET', '/?max-keys=2&prefix=J', {}, '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7'),
    ],
)
def test_the_examples_of_the_documentation(method: str, target: str, headers: dict[str, str], signature: str) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    common = {'host': 'examplebucket.s3.amazonaws.com', 'x-amz-date': '20130524T000000Z', 'x-amz-content-sha256': EMPTY}
    sent = {**common, **headers}
    assert Signer('us-east-1').authorize(method, target, sent, PRINTED) == (
        'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, '
        f'SignedHeaders={";".join(sorted(sent))}, Signature={signature}'
    )


KEYS = st.text(st.characters(codec='utf-8', exclude_characters='\0\\'), min_size=1, max_size=30).filter(
    lambda key: all(part not in ('', '.', '..') for part in key.split('/'))
)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30).map(str.strip).filter(bool)
HEADERS = st.dictionaries(
    st.sampled_from(['range', 'if-match', 'x-amz-request-payer', 'x-amz-server-side-encryption-customer-key', 'user-agent']),
    VALUES,
)


@given(
    method=st.sampled_from(['GET', 'HEAD']),
    key=KEYS,
    headers=HEADERS,
    names=st.tuples(VALUES, VALUES, st.none() | VALUES),
    region=st.sampled_from(['us-east-1', 'eu-central-1']),
    port=st.sampled_from(['', ':8333']),
)
@settings(max_examples=40, deadline=None)
def test_what_botocores_own_signer_says(
    method: str, key: str, headers: dict[str, str], names: tuple[str, str, str | None], region: str, port: str
) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    credentials = Credentials(*names)
    target = f'/bucket/{quote_key(key)}'
    request: Any = AWSRequest(method, f'http://host{port}{target}', headers)
    S3SigV4Auth(credentials, 's3', region).add_auth(request)
    sent = {name.lower(): value for name, value in request.headers.items()}
    assert Signer(region).authorize(method, target, {**sent, 'host': f'host{port}'}, credentials) == sent['authorization']


def test_the_key_is_made_anew_for_another_day_or_secret() -> None:
    signer = Signer('us-east-1')
    common = {'host': 'h', 'x-amz-content-sha256': EMPTY}
    days = [{**common, 'x-amz-date': f'2013052{day}T000000Z'} for day in (4, 5)]
    other = SimpleNamespace(access_key='a', secret_key='b')
    wanted = [Signer('us-east-1').authorize('GET', '/', day, who) for day in days for who in (PRINTED, other)]
    assert len(set(wanted)) == 4
    assert [signer.authorize('GET', '/', day, who) for day in days for who in (PRINTED, other)] == wanted
    assert len(timestamp()) == 16


KEY = {'access_key_id': 'key', 'secret_access_key': 'secret'}


def route_of(url: str, **options: object) -> tuple[LogIn, Route]:
    parsed = S3Options.parse(url, {**KEY, **options})
    login = log_in(parsed, unsigned=bool(parsed.unsigned))
    return login, find_route(login.client, login.freeze, {'Bucket': parsed.bucket})


@pytest.mark.parametrize(
    ('url', 'endpoint', 'path', 'region'),
    [
        ('s3://data?region=us-east-1', 'https://data.s3.amazonaws.com', '/', 'us-east-1'),
        ('s3://data?region=eu-central-1', 'https://data.s3.eu-central-1.amazonaws.com', '/', 'eu-central-1'),
        ('s3://data?region=cn-north-1', 'https://data.s3.cn-north-1.amazonaws.com.cn', '/', 'cn-north-1'),
        ('s3://my.data?region=eu-west-1', 'https://s3.eu-west-1.amazonaws.com', '/my.data/', 'eu-west-1'),
        ('s3://data?region=eu-west-1&path_style=true', 'https://s3.eu-west-1.amazonaws.com', '/data/', 'eu-west-1'),
        ('s3://data?region=eu-west-1&unsigned=true', 'https://data.s3.eu-west-1.amazonaws.com', '/', None),
        ('s3://data?region=x&endpoint=http://host:8333', 'http://host:8333', '/data/', 'x'),
        ('s3://data?region=x&endpoint=https://host:443/under', 'https://host:443', '/under/data/', 'x'),
        ('s3://data?region=x&endpoint=http://[::1]:8333', 'http://[::1]:8333', '/data/', 'x'),
        (
            's3://arn:aws:s3:us-west-2:123456789012:accesspoint:data?region=us-west-2',
            'https://data-123456789012.s3-accesspoint.us-west-2.amazonaws.com',
            '/',
            'us-west-2',
        ),
    ],
)
def test_where_boto3_reads(url: str, endpoint: str, path: str, region: str | None) -> None:
    login, found = route_of(url)
    assert (found.endpoint, found.path, found.region) == (endpoint, path, region)
    assert found.host == endpoint.partition('://')[2].removesuffix(':443')
    assert 'secret' not in repr(found)
    login.client.close()


def test_dual_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AWS_USE_DUALSTACK_ENDPOINT', 'true')
    login, found = route_of('s3://data?region=eu-west-1')
    assert found.endpoint == 'https://data.s3.dualstack.eu-west-1.amazonaws.com'
    login.client.close()


@pytest.fixture(scope='module')
def login() -> LogIn:
    options = S3Options.parse('s3://data?region=x&endpoint=http://host', KEY)
    return log_in(options, unsigned=False)


@given(key=KEYS)
@example(key="~'()*!$&,:;=@+ %2F%/?#[]")
@settings(max_examples=25, deadline=None)
def test_keys_as_boto3_writes_them(login: LogIn, key: str) -> None:
    assert urlsplit(route._catch(login.client, {'Bucket': 'data', 'Key': key}).url).path == f'/data/{quote_key(key)}'


def test_where_boto3_is_to_read(login: LogIn) -> None:
    """What is signed in another way, and what others answer in place of the service."""
    from botocore.awsrequest import AWSResponse

    with pytest.raises(UnlikeError, match='as we do not'):
        find_route(login.client, lambda: PRINTED, {'Bucket': 'data'})

    def answer(request: Any, **_: object) -> Any:
        return AWSResponse(request.url, 404, {}, SimpleNamespace(stream=lambda: iter([b'']), read=lambda *_: b''))  # type: ignore[arg-type]

    login.client.meta.events.register('before-send', answer)
    try:
        with pytest.raises(UnlikeError, match='in place of the service'):
            find_route(login.client, login.freeze, {'Bucket': 'data'})
    finally:
        login.client.meta.events.unregister('before-send', answer)
    assert find_route(login.client, login.freeze, {'Bucket': 'data'}).path == '/data/'


def test_older_signatures() -> None:
    import boto3
    from botocore.config import Config

    login = {'aws_access_key_id': 'key', 'aws_secret_access_key': 'secret', 'region_name': 'us-east-1'}
    client = boto3.client('s3', config=Config(signature_version='s3'), **login)
    credentials = SimpleNamespace(access_key='key', secret_key='secret')
    with pytest.raises(UnlikeError, match=r'signs by AWS$'):
        find_route(client, lambda: credentials, {'Bucket': 'data'})
    client.close()


def test_directory_buckets() -> None:
    """Their requests are signed with credentials of a session, which boto3 asks for first."""
    from botocore.awsrequest import AWSResponse

    credentials = '<SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey><AccessKeyId>a</AccessKeyId>'
    created = f'<R><Credentials>{credentials}<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></R>'.encode()
    parsed = S3Options.parse('s3://data--use1-az4--x-s3?region=us-east-1', KEY)
    login = log_in(parsed, unsigned=False)

    def create(request: Any, **_: object) -> Any:
        return AWSResponse(request.url, 200, {}, SimpleNamespace(stream=lambda: iter([created])))  # type: ignore[arg-type]

    login.client.meta.events.register('before-send.s3.CreateSession', create)
    with pytest.raises(UnlikeError, match='signs for s3express in us-east-1 as we do not'):
        find_route(login.client, login.freeze, {'Bucket': parsed.bucket})
    login.client.close()


@pytest.mark.parametrize('kind', ['service-2', 'endpoint-rule-set-1', 'paginators-1'])
def test_models_are_botocores(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own models too."""
    import botocore.session

    from streaming.store.s3.models import Models

    (tmp_path / 's3' / '2006-03-01').mkdir(parents=True)
    (tmp_path / 's3' / '2006-03-01' / 'service-2.sdk-extras.json').write_text('{"version": 1, "merge": {"metadata": {"x": NaN}}}')
    (tmp_path / 'own' / '2020-01-01').mkdir(parents=True)
    (tmp_path / 'own' / '2020-01-01' / 'service-2.json').write_text('{"metadata": {}, "operations": {}, "shapes": {}}')
    monkeypatch.setenv('AWS_DATA_PATH', str(tmp_path))
    session = botocore.session.get_session()
    theirs, ours = session.get_component('data_loader'), Models(session)
    assert ours.load_service_model('s3', kind) == theirs.load_service_model('s3', kind) or kind == 'service-2'
    assert ours.load_service_model('own', 'service-2') == theirs.load_service_model('own', 'service-2')
    assert set(ours.list_available_services('service-2')) >= set(theirs.list_available_services('service-2'))
    assert ours.load_data('endpoints') == theirs.load_data('endpoints')
    # JSON of Python's, which others refuse.
    assert str(ours.load_service_model('s3', 'service-2')['metadata']['x']) == 'nan'
    with pytest.raises(Exception, match='Unable to load data for: nothing'):
        ours.load_data('nothing')


def test_models_where_a_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the way of a user's models is passed over, as botocore does."""
    (tmp_path / 'models').write_text('no folder')
    (tmp_path / 'folder' / 'endpoints.json').mkdir(parents=True)
    monkeypatch.setenv('AWS_DATA_PATH', f'{tmp_path}/models:{tmp_path}/folder')
    import botocore.session

    from streaming.store.s3.models import Models

    session = botocore.session.get_session()
    theirs, ours = session.get_component('data_loader'), Models(session)
    for name in ('endpoints', 'partitions'):
        assert ours.load_data(name) == theirs.load_data(name)
