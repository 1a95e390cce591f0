"""Every log-in of OCI on the loopback: config files, session tokens, the SDK's own signers, instances, resources, pods.

A gate in front of the stand-in knows tokens as well as keys: it checks the signature and signs again with the key that the
stand-in knows.
"""

import base64
import datetime
import ipaddress
import json
import os
import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from streaming.errors import CorruptError, CredentialsError, StoreError, UnavailableError
from streaming.store import RetryPolicy, open_store
from streaming.store.oci.options import OCIOptions
from streaming.store.oci.session import Session
from streaming.store.protocol import Store
from streaming.testing.oci import OCIServer
from streaming.testing.oci.signature import Refused, check_signature

TENANCY = 'ocid1.tenancy.oc1..tokens'


@cache
def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def certificate(key: rsa.RSAPrivateKey, host: str | None = None) -> bytes:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, 'loopback'),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f'opc-tenant:{TENANCY}'),
        ]
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if host:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Tokens:
    """Gives out tokens and knows whose they are."""

    def __init__(self) -> None:
        self.key = new_key()
        self.known: dict[str, tuple[Any, float]] = {}
        self.given = 0
        self.life_s = 3600.0
        self.fail: Callable[[], int | None] = lambda: None

    def give(self, public_pem: str) -> str:
        """A token for a public key, given as PEM without its lines."""
        der = base64.b64decode(re.sub(r'-----[^-]+-----|\s', '', public_pem))
        return self.give_for(serialization.load_der_public_key(der))

    def give_for(self, public_key: Any) -> str:
        self.given += 1
        now = time.time()
        claims = {'exp': now + self.life_s, 'iat': now, 'jti': self.given, 'res_tenant': TENANCY, 'res_compartment': 'c'}
        parts = [json.dumps(part).encode() for part in ({'alg': 'RS256', 'typ': 'JWT'}, claims)]
        token = '.'.join(base64.urlsafe_b64encode(part).rstrip(b'=').decode() for part in [*parts, b'signed'])
        self.known[f'ST${token}'] = public_key, now + self.life_s
        return token

    def get(self, key_id: str) -> Any:
        key, until = self.known.get(key_id, (None, 0.0))
        return key if time.time() < until else None


class Gate(BaseHTTPRequestHandler):
    """The object service, the metadata service and the two that give out tokens, on one port."""

    protocol_version = 'HTTP/1.1'
    session: Session
    tokens: Tokens
    refused: Counter[str]

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        if self.path.startswith('/opc/v2/'):
            return self.metadata(self.path.removeprefix('/opc/v2/'))
        if self.path in ('/v1/x509', '/resourcePrincipalSessionTokens'):
            return self.give_token(json.loads(body))
        puts = self.command == 'PUT'
        try:
            check_signature(
                self.command,
                self.path,
                self.headers,
                self.tokens,
                signs_body=self.command == 'POST',
                body=body,  # type: ignore[arg-type]
            )
        except Refused as error:
            self.refused[str(error)] += 1
            return self.reply(401, json.dumps({'code': 'NotAuthenticated', 'message': str(error)}).encode())
        kept = {name: self.headers[name] for name in ('range', 'content-md5', 'if-match') if name in self.headers}
        try:
            with self.session.send(self.command, self.path, what='x', headers=kept, body=body if puts else None) as answer:
                if self.command == 'HEAD':
                    answer.skip()
                    return self.reply(answer.status, None, answer.headers)
                return self.reply(answer.status, answer.read(), answer.headers)
        except (StoreError, CorruptError) as error:
            self.reply(getattr(error, 'status', None) or 416, b'{"code": "X", "message": "x"}')

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def metadata(self, path: str) -> None:
        if self.headers['authorization'] != 'Bearer Oracle':
            return self.reply(401, b'')
        answers = {
            'instance/region': b'iad',
            'identity/cert.pem': certificate(self.tokens.key),
            'identity/key.pem': pem_of(self.tokens.key),
            'identity/intermediate.pem': certificate(self.tokens.key),
        }
        return self.reply(200, answers[path])

    def give_token(self, asked: dict[str, Any]) -> None:
        status = self.tokens.fail()
        if status is not None:
            return self.reply(status, b'{"code": "NotAuthenticated", "message": "told to fail"}')
        if 'podKey' in asked:
            token = json.dumps({'token': f'ST${self.tokens.give(asked["podKey"])}'})
            return self.reply(200, base64.b64encode(token.encode()))
        return self.reply(200, json.dumps({'token': self.tokens.give(asked['publicKey'])}).encode())

    def reply(self, status: int, body: bytes | None, headers: dict[str, str] | None = None) -> None:
        headers = headers or {}
        self.send_response(status)
        for name, value in headers.items():
            if name in ('etag', 'content-range', 'content-md5', 'opc-content-md5'):
                self.send_header(name, value)
        self.send_header('content-length', headers['content-length'] if body is None else str(len(body)))
        self.end_headers()
        if body and self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Place:
    """A bucket behind the gate."""

    def __init__(self, url: str, address: tuple[str, int], context: ssl.SSLContext | None = None) -> None:
        options = OCIOptions.parse(url, {})
        self.session = Session(options)
        self.tokens = Tokens()
        self.refused: Counter[str] = Counter()
        parts = {'session': self.session, 'tokens': self.tokens, 'refused': self.refused}
        self.server = ThreadingHTTPServer(address, type('Handler', (Gate,), parts))
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={'poll_interval': 0.02}).start()
        self.host = f'{self.server.server_address[0]!s}:{self.server.server_port}'
        self.endpoint = f'{"https" if context else "http"}://{self.host}'
        self.url = f'oci://{options.bucket}@{options.namespace}/p?endpoint={self.endpoint}'

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.session.close()


@pytest.fixture
def place(oci_url: str) -> Iterator[Place]:
    place = Place(oci_url, ('127.0.0.1', 0))
    yield place
    place.stop()


def use(store: Store) -> None:
    """One of each plane."""
    store.put('key', b'value')
    assert store.get('key') == b'value'
    assert store.head('key').size == 5
    assert [info.key for info in store.list()] == ['key']


@pytest.fixture
def instance(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv('OCI_METADATA_BASE_URL', f'http://{place.host}/opc/v2')
    return place


def federation(place: Place) -> dict[str, object]:
    return {'federation_endpoint': f'http://{place.host}/v1/x509'}


# Principals


@pytest.mark.parametrize('query', ['&auth=instance_principal', ''])
def test_instance_principal(instance: Place, query: str) -> None:
    store = open_store(instance.url + query, federation(instance))
    use(store)
    assert instance.tokens.given == 1
    store.close()


Within = Callable[[float, Callable[[], float]], None]


def test_an_instance_principal_without_an_instance(
    place: Place, monkeypatch: pytest.MonkeyPatch, free_port: int, within: Within
) -> None:
    monkeypatch.setenv('OCI_METADATA_BASE_URL', f'http://127.0.0.1:{free_port}/opc/v2')

    def seconds_to_fail() -> float:
        began = time.monotonic()
        with pytest.raises(CredentialsError, match=r'oci://.*instance principal.*not an instance of OCI'):
            open_store(f'{place.url}&auth=instance_principal').get('key')
        return time.monotonic() - began

    within(5, seconds_to_fail)


def test_the_region_of_the_instance(instance: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {'auth': 'instance_principal', **federation(instance)}

    def endpoint(url: str) -> str:
        session = Session(OCIOptions.parse(url, given))
        session.close()
        return session.transport.endpoint

    assert endpoint('oci://bucket') == 'https://objectstorage.us-ashburn-1.oraclecloud.com'
    monkeypatch.setenv('OCI_REGION', 'eu-frankfurt-1')
    assert endpoint('oci://bucket') == 'https://objectstorage.eu-frankfurt-1.oraclecloud.com'
    assert endpoint('oci://bucket?region=lhr') == 'https://objectstorage.uk-london-1.oraclecloud.com'


def test_resource_principal(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = new_key()
    token, pem = tmp_path / 'token', tmp_path / 'key.pem'
    token.write_text(place.tokens.give_for(key.public_key()))
    pem.write_bytes(pem_of(key))
    for name, value in {'VERSION': '2.2', 'RPST': token, 'PRIVATE_PEM': pem, 'REGION': 'us-ashburn-1'}.items():
        monkeypatch.setenv(f'OCI_RESOURCE_PRINCIPAL_{name}', str(value))
    store = open_store(place.url)
    use(store)
    # Somebody puts a new token there, and the old one is refused.
    place.tokens.known.clear()
    token.write_text(place.tokens.give_for(key.public_key()))
    use(store)
    assert sum(place.refused.values()) == 1
    store.close()
    monkeypatch.delenv('OCI_RESOURCE_PRINCIPAL_VERSION')
    with pytest.raises(CredentialsError, match='OCI_RESOURCE_PRINCIPAL_VERSION is not set'):
        open_store(f'{place.url}&auth=resource_principal').get('key')


def test_oke_workload(oci_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = f'127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}'
    key = new_key()
    (tmp_path / 'key.pem').write_bytes(pem_of(key))
    (tmp_path / 'ca.crt').write_bytes(certificate(key, host))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / 'ca.crt', tmp_path / 'key.pem')
    place = Place(oci_url, (host, 12250), context)
    try:
        (tmp_path / 'token').write_text(place.tokens.give_for(key.public_key()))
        monkeypatch.setenv('KUBERNETES_SERVICE_HOST', host)
        monkeypatch.setenv('OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH', str(tmp_path / 'ca.crt'))
        from oci.auth.signers import resource_principals_signer as module

        # The token's path is /var/run/secrets/..., which only a pod has.
        monkeypatch.setattr(module.DefaultServiceAccountTokenProvider, 'get_sa_token', lambda self: 'service-account')
        store = open_store(f'{place.url}&auth=oke_workload', {'ca_bundle': str(tmp_path / 'ca.crt')})
        use(store)
        assert place.tokens.given == 2
        store.close()
        # The same over TLS with a certificate that nobody vouches for.
        distrustful = open_store(f'{place.url}&auth=oke_workload')
        with pytest.raises(StoreError, match=r'certificate is not to be trusted.*ca_bundle'):
            distrustful.get('key')
        distrustful.close()
    finally:
        place.stop()
    monkeypatch.delenv('KUBERNETES_SERVICE_HOST')
    with pytest.raises(CredentialsError, match='not a pod'):
        open_store(f'{place.url}&auth=oke_workload').get('key')


def test_an_epoch_that_outlives_its_tokens(instance: Place, tmp_path: Path) -> None:
    """One token for each expiry, whatever the threads. STREAMING_TEST_TOKEN_S=60 makes it an epoch of five minutes."""
    from streaming import MDSWriter, Stream, StreamingDataset

    token_s = instance.tokens.life_s = float(os.environ.get('STREAMING_TEST_TOKEN_S', '1'))
    with MDSWriter(out=str(tmp_path / 'data'), columns={'id': 'int', 'data': 'bytes'}, size_limit=1 << 13) as out:
        for number in range(200):
            out.write({'id': number, 'data': bytes(1000)})
    store = open_store(f'{instance.url}&auth=instance_principal', federation(instance))
    for path in (tmp_path / 'data').iterdir():
        store.put(path.name, path)
    stream = Stream(store=store, local=str(tmp_path / 'cache'))
    dataset = StreamingDataset(streams=[stream], shuffle=True, predownload=4, batch_size=1)
    given, began, done = instance.tokens.given, time.monotonic(), threading.Event()

    def read_on(_: int) -> int:
        count = 0
        while not done.wait(0.05):
            assert store.head('index.json').size
            count += 1
        return count

    with ThreadPoolExecutor(16) as pool:
        counts = pool.map(read_on, range(16))
        try:
            ids = []
            for sample in dataset:
                ids.append(sample['id'])
                done.wait(token_s / 40)
        finally:
            done.set()
        assert min(counts) > 0
    assert sorted(ids) == list(range(200))
    renewals = (time.monotonic() - began) / (token_s * 0.8)
    assert 4 <= instance.tokens.given - given <= renewals + 1
    store.close()


def test_a_signature_is_not_used_beyond_its_token(instance: Place) -> None:
    """Signatures are kept for a minute, but no longer than what they were made with."""
    instance.tokens.life_s = 2.0
    store = open_store(f'{instance.url}&auth=instance_principal', federation(instance))
    store.put('key', b'value')
    instance.refused.clear()
    assert store.get('key') == b'value'
    given = instance.tokens.given
    threading.Event().wait(1.8)
    assert store.get('key') == b'value'
    assert not instance.refused
    assert instance.tokens.given == given + 1
    store.close()


def test_a_token_that_is_revoked_is_renewed_once_by_all(instance: Place) -> None:
    store = open_store(f'{instance.url}&auth=instance_principal', federation(instance))
    store.put('key', b'value')
    instance.tokens.known.clear()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda _: store.get('key'), range(16))) == [b'value'] * 16
    assert instance.tokens.given == 2
    store.close()


def test_tokens_that_are_never_accepted(instance: Place) -> None:
    store = open_store(f'{instance.url}&auth=instance_principal', federation(instance))
    instance.tokens.get = lambda key_id: None  # type: ignore[method-assign]
    for _ in range(5):
        with pytest.raises(CredentialsError, match='instance principal'):
            store.get('key')
    assert instance.tokens.given == 2
    store.close()


def test_who_gives_out_tokens_fails(instance: Place) -> None:
    url = f'{instance.url}&auth=instance_principal'
    failures = iter([500, 503])
    instance.tokens.fail = lambda: next(failures, None)
    store = open_store(url, federation(instance))
    use(store)
    store.close()
    instance.tokens.fail = lambda: 401
    with pytest.raises(CredentialsError, match=r'no token: 401'):
        open_store(url, federation(instance)).get('key')
    instance.tokens.fail = lambda: 500
    with pytest.raises(UnavailableError, match=r'no token: 500'):
        open_store(url, federation(instance), retry=RetryPolicy(tries=2)).get('key')


# Signers of the caller's own


def test_a_signer_of_the_callers_own(oci: OCIServer, oci_url: str) -> None:
    from oci import config, signer

    entries = config.from_file(oci.config_file)

    def make() -> Any:
        return signer.Signer.from_config(entries)

    url = oci_url.partition('?')[0] + f'?endpoint={oci.endpoint}'
    for given in (make, make()):
        store = open_store(url, {'signer': given})
        use(store)
        store.close()
    store = open_store(url, {'config': {**entries, 'region': 'us-ashburn-1'}})
    use(store)
    store.close()


def test_our_signature_is_the_sdks(oci: OCIServer) -> None:
    from oci import config, signer

    from streaming.store.oci.credentials import SignerCredential
    from streaming.store.oci.login import find_credential

    ours = find_credential(OCIOptions.parse(f'oci://b?config_file={oci.config_file}', {}))
    theirs = SignerCredential(signer.Signer.from_config(config.from_file(oci.config_file)), 'theirs')
    asked = ('GET', 'host:1', '/n/ns/b/b/o/a%2Fb?x=1', 'Tue, 24 Nov 2026 12:00:00 GMT')
    assert ours.sign(*asked) == theirs.sign(*asked)


# Config files


def entries_of(server: OCIServer) -> dict[str, str]:
    lines = Path(server.config_file).read_text().splitlines()
    return dict(line.split('=', 1) for line in lines if '=' in line)


def write_config(path: Path, **profiles: dict[str, str]) -> Path:
    text = ''
    for name, entries in profiles.items():
        text += f'[{name}]\n' + ''.join(f'{key}={value}\n' for key, value in entries.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_where_the_config_file_is_looked_for(
    oci: OCIServer, oci_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = oci_url.partition('?')[0] + f'?endpoint={oci.endpoint}'
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('OCI_METADATA_BASE_URL', 'http://127.0.0.1:1')
    with pytest.raises(CredentialsError) as error:
        open_store(url).get('key')
    for tried in ('OCI_CLI_AUTH', 'OCI_RESOURCE_PRINCIPAL_VERSION', f'{tmp_path}/.oci/config', 'metadata service', 'signer'):
        assert tried in str(error.value)
    entries = entries_of(oci)
    fallback = write_config(tmp_path / 'fallback', DEFAULT=entries)
    monkeypatch.setenv('OCI_CONFIG_FILE', str(fallback))
    use(open_store(url))
    # ~/.oci/config goes before it, as in the SDK.
    write_config(tmp_path / '.oci/config', DEFAULT={**entries, 'fingerprint': '00:' * 15 + '00'}, GOOD=entries)
    with pytest.raises(CredentialsError, match=r'\.oci/config, profile DEFAULT'):
        open_store(url).get('key')
    use(open_store(f'{url}&profile=GOOD'))
    monkeypatch.setenv('OCI_CLI_PROFILE', 'GOOD')
    use(open_store(url))
    monkeypatch.delenv('OCI_CLI_PROFILE')
    monkeypatch.setenv('OCI_CLI_CONFIG_FILE', str(fallback))
    use(open_store(url))


def test_the_clis_variables(oci: OCIServer, oci_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = entries_of(oci)
    url = oci_url.partition('?')[0] + f'?endpoint={oci.endpoint}'
    for name in ('user', 'tenancy', 'fingerprint', 'key_file', 'region'):
        monkeypatch.setenv(f'OCI_CLI_{name.upper()}', entries[name])
    use(open_store(url))
    monkeypatch.delenv('OCI_CLI_KEY_FILE')
    monkeypatch.setenv('OCI_CLI_KEY_CONTENT', Path(entries['key_file']).read_text())
    use(open_store(url))
    monkeypatch.setenv('OCI_CLI_AUTH', 'carrier_pigeon')
    with pytest.raises(CredentialsError, match=r'carrier_pigeon.*instance_principal'):
        open_store(url).get('key')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'user': ''}, 'user missing'),
        ({'key_file': ''}, 'key_file missing'),
        ({'key_file': '/no/such/key.pem'}, r'/no/such/key\.pem: No such file'),
        ({'key_file': 'PUBLIC'}, 'not a private key'),
        ({'key_file': 'LOCKED'}, 'needs a pass_phrase'),
        ({'key_file': 'LOCKED', 'pass_phrase': 'wrong'}, 'pass_phrase is wrong'),
        ({'security_token_file': '/no/such/token'}, '/no/such/token: No such file'),
        ({'region': ''}, r'no region is known.*OCI_REGION'),
    ],
)
def test_profiles_that_are_broken(oci: OCIServer, tmp_path: Path, change: dict[str, str], message: str) -> None:
    key = new_key()
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b'right')
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for name, data in (('LOCKED', locked), ('PUBLIC', public)):
        (tmp_path / name).write_bytes(data)
        if change.get('key_file') == name:
            change = {**change, 'key_file': str(tmp_path / name)}
    config = write_config(tmp_path / 'config', DEFAULT={**entries_of(oci), **change})
    with pytest.raises(CredentialsError, match=message) as error:
        open_store(f'oci://bucket@ns/x?config_file={config}').get('key')
    assert 'oci://bucket@ns/x' in str(error.value)
    assert 'wrong' not in str(error.value).replace('pass_phrase is wrong', '')


def test_config_files_that_are_none(tmp_path: Path, oci: OCIServer) -> None:
    (tmp_path / 'garbage').write_text('user without a section = x\n')
    good = write_config(tmp_path / 'good', DEFAULT=entries_of(oci), OTHER={})
    for query, message in (
        (f'config_file={tmp_path}/missing', r'missing cannot be read: No such file'),
        (f'config_file={tmp_path}/garbage', 'is not a config file'),
        (f'config_file={good}&profile=THIRD', r'has no profile THIRD; there are: DEFAULT, OTHER'),
    ):
        with pytest.raises(CredentialsError, match=message):
            open_store(f'oci://bucket@ns/x?{query}').get('key')


def test_a_key_with_a_passphrase(oci: OCIServer, oci_url: str, tmp_path: Path) -> None:
    entries = entries_of(oci)
    key = serialization.load_pem_private_key(Path(entries['key_file']).read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b'right')
    )
    (tmp_path / 'locked.pem').write_bytes(locked + b'OCI_API_KEY\n')
    changed = {**entries, 'key_file': str(tmp_path / 'locked.pem'), 'pass_phrase': 'right'}
    config = write_config(tmp_path / 'config', DEFAULT=changed)
    use(open_store(oci_url.replace(oci.config_file, str(config))))


def test_a_key_is_checked_once_and_not_for_each_store(oci: OCIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    load = serialization.load_pem_private_key

    def note(pem: bytes, password: bytes | None) -> Any:
        checked.append(pem)
        return load(pem, password)

    monkeypatch.setattr(serialization, 'load_pem_private_key', note)
    key = pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048)).decode()
    (tmp_path / 'key.pem').write_text(key)
    config = write_config(tmp_path / 'config', DEFAULT={**entries_of(oci), 'key_file': str(tmp_path / 'key.pem')})
    for _ in range(2):
        with pytest.raises(CredentialsError, match='does not accept'):
            open_store(f'{oci.url("bucket")}'.replace(oci.config_file, str(config))).get('key')
    assert checked == [key.strip().encode()]


def test_a_session_token(place: Place, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / 'key.pem').write_bytes(pem_of(key))
    token = tmp_path / 'token'
    token.write_text(place.tokens.give_for(key.public_key()))
    entries = {'key_file': str(tmp_path / 'key.pem'), 'security_token_file': str(token), 'region': 'us-ashburn-1'}
    config = write_config(tmp_path / 'config', DEFAULT={**entries, 'tenancy': TENANCY, 'fingerprint': 'x'})
    for auth in ('', '&auth=security_token'):
        store = open_store(f'{place.url}&config_file={config}{auth}')
        use(store)
        # `oci session refresh` writes a new one.
        old = place.tokens.known.copy()
        token.write_text(place.tokens.give_for(key.public_key()))
        for name in old:
            del place.tokens.known[name]
        os.utime(token, ns=(1, time.time_ns()))
        use(store)
        store.close()
    place.tokens.known.clear()
    with pytest.raises(CredentialsError, match=r'does not accept the credential of .*profile DEFAULT'):
        open_store(f'{place.url}&config_file={config}').get('key')
