"""oci:// and s3:// over TLS, through a front that takes it off, with a certificate of our own authority."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming.errors import ArgumentError, StoreError
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.testing.oci import OCIServer
from streaming.testing.store import StoreTests


class Front:
    """Takes TLS off and passes the bytes on."""

    def __init__(self, backend: str, certificate: Path, key: Path) -> None:
        self._host, _, port = backend.removeprefix('http://').partition(':')
        self._port = int(port)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),))
        self._thread.start()
        assert ready.wait(60)

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._accept, '127.0.0.1', 0, ssl=self._context)
        self.endpoint = f'https://127.0.0.1:{server.sockets[0].getsockname()[1]}'
        ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(self._host, self._port)
        pumps = [asyncio.ensure_future(self._pump(*way)) for way in ((reader, back_writer), (back_reader, writer))]
        try:
            # When one side ends, nothing more can come of the other.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            back_writer.close()
            await asyncio.gather(*pumps, return_exceptions=True)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self._loop.close()


@pytest.fixture(scope='module')
def front(oci_server: OCIServer, certificate: tuple[Path, Path]) -> Iterator[tuple[str, Path]]:
    """Endpoint, and the certificate to trust."""
    front = Front(oci_server.endpoint, *certificate)
    yield front.endpoint, certificate[0]
    front.stop()


@pytest.fixture
def tls_url(front: tuple[str, Path], oci: OCIServer, oci_url: str) -> str:
    return f'{oci_url.replace(oci.endpoint, front[0])}'


@pytest.mark.slow
class TestOCIStoreOverTLS(StoreTests):
    large_bytes = (11 << 20) + 3
    examples = 1

    @pytest.fixture
    def store(self, front: tuple[str, Path], tls_url: str) -> Iterator[Store]:
        store = open_store(tls_url, {'ca_bundle': str(front[1]), 'single_put_bytes': '6mb', 'part_bytes': '5mb', 'timeout_s': 20})
        yield store
        store.close()


def test_whom_to_trust(front: tuple[str, Path], tls_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'):
        monkeypatch.delenv(name, raising=False)
    trusting = open_store(f'{tls_url}&ca_bundle={front[1]}')
    trusting.put('key', b'x')
    assert trusting.get('key') == b'x'
    trusting.close()
    distrustful = open_store(tls_url)
    for call in (lambda: distrustful.get('key'), lambda: distrustful.put('key', b'')):
        with pytest.raises(StoreError, match=r'oci://.*key: the server.s certificate is not to be trusted.*ca_bundle'):
            call()
    distrustful.close()
    for name in ('SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'OCI_CLI_CERT_BUNDLE'):
        monkeypatch.setenv(name, str(front[1]))
        by_environment = open_store(tls_url)
        by_environment.put('key', b'x')
        assert by_environment.get('key') == b'x'
        by_environment.close()
        monkeypatch.delenv(name)
    (tmp_path / 'garbage').write_text('no certificate')
    for path in (tmp_path / 'garbage', tmp_path / 'missing'):
        broken = open_store(f'{tls_url}&ca_bundle={path}')
        with pytest.raises(ArgumentError, match=f'{path} cannot be read'):
            broken.get('key')


def test_a_tunnel_through_a_proxy(front: tuple[str, Path], tls_url: str, relay: Any) -> None:
    store = open_store(tls_url, {'ca_bundle': str(front[1]), 'proxy': relay.url})
    store.put('key', b'value')
    assert store.get('key') == b'value'
    store.close()
    # One for each plane.
    assert relay.passed == [f'CONNECT {front[0].removeprefix("https://")}'] * 2


def test_s3_over_tls(
    moto_endpoint: str, certificate: tuple[Path, Path], s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'):
        monkeypatch.delenv(name, raising=False)
    own = Front(moto_endpoint, *certificate)
    try:
        url = f's3://{s3_bucket}/prefix?endpoint={own.endpoint}'
        trusting = open_store(f'{url}&ca_bundle={certificate[0]}')
        trusting.put('key', b'x')
        assert trusting.get('key') == b'x'
        trusting.close()
        for name in ('AWS_CA_BUNDLE', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE'):
            monkeypatch.setenv(name, str(certificate[0]))
            by_environment = open_store(url)
            assert by_environment.get('key') == b'x'
            by_environment.close()
            monkeypatch.delenv(name)
        (tmp_path / 'config').write_text(f'[default]\nca_bundle = {certificate[0]}\n')
        monkeypatch.setenv('AWS_CONFIG_FILE', str(tmp_path / 'config'))
        by_profile = open_store(url)
        by_profile.put('key', b'y')
        assert by_profile.get('key') == b'y'
        by_profile.close()
        monkeypatch.delenv('AWS_CONFIG_FILE')
        distrustful = open_store(url)
        with pytest.raises(StoreError, match=r's3://.*key: the server.s certificate is not to be trusted.*ca_bundle'):
            distrustful.get('key')
        distrustful.close()
    finally:
        own.stop()
