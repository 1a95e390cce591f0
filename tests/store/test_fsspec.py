import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from streaming.errors import ArgumentError, MissingExtraError, NotFoundError, StoreError, ThrottledError, UnavailableError
from streaming.store import open_store
from streaming.store.fsspec import FsspecStore
from streaming.store.protocol import Store
from streaming.store.s3 import S3Store
from streaming.testing.store import StoreTests


class TestFsspecMemory(StoreTests):
    conditional_put = False
    folders = True
    examples = 5

    @pytest.fixture
    def store(self) -> Store:
        return open_store(f'memory://{uuid.uuid4().hex}/folder')


class TestFsspecLocal(StoreTests):
    conditional_put = False
    folders = True
    examples = 5

    @pytest.fixture
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> Store:
        return FsspecStore(f'file://{tmp_path_factory.mktemp("store")}')


def test_a_failed_put_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsspecStore(f'file://{tmp_path}')
    system = store._open().system

    def fail(*args: object, **keywords: object) -> None:
        raise ConnectionResetError('gone')

    monkeypatch.setattr(system, 'mv', fail)
    with pytest.raises(UnavailableError, match=r'PUT .*key: gone'):
        store.put('key', b'x')
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, 'gs', raising=False)
    monkeypatch.setitem(sys.modules, 'gcsfs', None)
    with pytest.raises(MissingExtraError, match=r'gs://bucket/x.*streaming-dataset\[gcs\]'):
        open_store('gs://bucket/x')
    with pytest.raises(ArgumentError, match='no-such'):
        open_store('no-such://bucket/x')


def test_spellings_of_old() -> None:
    assert FsspecStore('azure://container/x')._full_url == 'az://container/x'
    assert FsspecStore('azure-dl://container/x').url == 'azure-dl://container/x'


def test_google_by_its_s3_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GCS_KEY', 'id')
    monkeypatch.setenv('GCS_SECRET', 'hidden')
    store = open_store('gs://bucket/prefix/', retry=None)
    assert isinstance(store, S3Store)
    assert (store.url, store.options.bucket, store.options.prefix) == ('gs://bucket/prefix', 'bucket', 'prefix/')
    assert store.options.endpoint == 'https://storage.googleapis.com'
    assert 'hidden' not in repr(store.options)


def test_errors_of_other_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class HttpError(Exception):
        code = 429

    class Unknown(Exception):
        pass

    store = FsspecStore(f'file://{tmp_path}')
    for raised, kind in (
        (HttpError('slow down'), ThrottledError),
        (TimeoutError(), UnavailableError),
        (Unknown('?'), StoreError),
        (FileNotFoundError('x'), NotFoundError),
    ):

        def fail(*args: object, raised: Exception = raised, **keywords: object) -> None:
            raise raised

        monkeypatch.setattr(store._open().system, 'info', fail)
        with pytest.raises(kind, match='HEAD') as error:
            store.head('key')
        assert error.value.__cause__ is raised


def test_it_is_not_imported_for_others() -> None:
    code = "import sys; from streaming.store import open_store; open_store('/x'); print('fsspec' in sys.modules)"
    result = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, timeout=100)
    assert result.stdout.strip() == 'False'
