"""fsspec's file systems of clouds, against servers on the loopback: S3 by s3fs on moto, Google's and Azure's on emulators.

s3fs, gcsfs, adlfs and gcp-storage-emulator come with the extra `dev`. Azurite is a package of npm
(`npm install --global azurite`), so CI skips Azure.
"""

import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.testing.store import ODD_KEYS, StoreTests
from tests.store.closing import seconds_to_close

AZURITE = shutil.which('azurite-blob')
# Known to everybody: Azurite's documentation prints it.
AZURE_ACCOUNT = 'devstoreaccount1'
AZURE_KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='


class CloudTests(StoreTests):
    conditional_put = False
    examples = 1


class TestS3ByS3fs(CloudTests):
    @pytest.fixture
    def store(self, s3_bucket: str, moto_endpoint: str) -> Iterator[Store]:
        pytest.importorskip('s3fs')
        store = open_store(f's3a://{s3_bucket}/{uuid.uuid4().hex}/p', {'endpoint_url': moto_endpoint})
        yield store
        store.close()


def test_closing_cancels_within_a_second(within: Callable[[float, Callable[[], float]], None]) -> None:
    """A coroutine of theirs, whose server is silent."""
    pytest.importorskip('s3fs')
    with socket.create_server(('127.0.0.1', 0)) as silent, ExitStack() as accepted:
        silent.settimeout(30)
        endpoint = f'http://127.0.0.1:{silent.getsockname()[1]}'
        store = open_store('s3a://bucket/x', {'endpoint_url': endpoint, 'key': 'k', 'secret': 's'})

        calls = (
            lambda: store.get('key'),
            lambda: store.head('key'),
            lambda: list(store.list()),
            lambda: store.put('key', b''),
        )

        def all_wait() -> bool:
            for _ in calls:
                accepted.enter_context(silent.accept()[0])
            return True

        within(1.0, lambda: seconds_to_close(store, calls, all_wait))


@pytest.fixture(scope='module')
def google() -> Iterator[str]:
    pytest.importorskip('gcsfs')
    emulator = pytest.importorskip('gcp_storage_emulator.server')
    server = emulator.create_server('127.0.0.1', 0, in_memory=True, default_bucket='bucket')
    server.start()
    try:
        server._api._httpd.handle_error = lambda *_: None  # a client that left
        host, port = server._api._httpd.server_address
        yield f'http://{host}:{port}'
    finally:
        server.stop()


@pytest.mark.slow
class TestGoogle(CloudTests):
    odd_keys = tuple(key for key in ODD_KEYS if ';' not in key)  # the emulator cuts a name there

    @pytest.fixture
    def store(self, google: str) -> Iterator[Store]:
        store = open_store(f'gs://bucket/{uuid.uuid4().hex}/p', {'token': 'anon', 'endpoint_url': google})
        yield store
        store.close()


@pytest.fixture(scope='module')
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What a store has to be given to get into the emulator."""
    pytest.importorskip('adlfs')
    if AZURITE is None:
        pytest.skip('azurite is not installed (npm install --global azurite)')
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        port = listener.getsockname()[1]
    folder = tmp_path_factory.mktemp('azurite')
    options = ['--blobHost=127.0.0.1', f'--blobPort={port}', f'--location={folder}', '--silent', '--skipApiVersionCheck']
    process = subprocess.Popen([AZURITE, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f'BlobEndpoint=http://127.0.0.1:{port}/{AZURE_ACCOUNT}'
    login = f'DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};{endpoint};'
    try:
        _make_container(login, 'container')
        yield {'connection_string': login, 'account_name': AZURE_ACCOUNT}
    finally:
        process.kill()
        process.wait()


def _make_container(login: str, name: str) -> None:
    from azure.core.exceptions import ServiceRequestError
    from azure.storage.blob import BlobServiceClient

    deadline = time.monotonic() + 60
    with BlobServiceClient.from_connection_string(login, retry_total=0) as client:
        while True:
            try:
                client.create_container(name)
            except ServiceRequestError:  # nobody listens yet
                assert time.monotonic() < deadline, 'Azurite did not start'
                threading.Event().wait(0.1)
            else:
                return


@pytest.mark.slow
class TestAzure(CloudTests):
    folders = True  # adlfs lists an object or the folder of its name, not both

    @pytest.fixture
    def store(self, azure: dict[str, object]) -> Iterator[Store]:
        store = open_store(f'azure://container/{uuid.uuid4().hex}/p', azure)
        yield store
        store.close()
