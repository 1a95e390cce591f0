"""sftp:// against a real server on the loopback: asyncssh's, in a thread of its own."""

import asyncio
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from streaming.errors import CredentialsError, UnavailableError
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store
from streaming.store.sftp import SFTP
from streaming.testing.store import StoreTests, pattern, read
from tests.store.closing import seconds_to_close

USER, PASSWORD = 'somebody', 'secret of sftp'


class _Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


class _Files(asyncssh.SFTPServer):
    """A folder, each question about which may have to wait."""

    def __init__(self, channel: asyncssh.SSHServerChannel, folder: str, wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__(channel, chroot=folder.encode())
        self._wait = wait

    async def stat(self, path: bytes) -> Any:
        await self._wait()
        return super().stat(path)

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        await self._wait()
        return super().open(path, pflags, attrs)

    async def scandir(self, path: bytes) -> Any:
        await self._wait()
        async for name in super().scandir(path):
            yield name


class SFTPServer:
    """Serves a folder as the root of everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._waiting = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),))
        self._thread.start()
        assert ready.wait(30)

    async def _serve(self, ready: threading.Event) -> None:
        def files(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
            self._connections.add(channel.get_connection())
            return _Files(channel, str(self._folder), self._wait_to_speak)

        key = asyncssh.generate_private_key('ssh-ed25519')
        server = await asyncssh.listen('127.0.0.1', 0, server_factory=_Login, server_host_keys=[key], sftp_factory=files)
        self.port = server.get_port()
        ready.set()
        await self._stop.wait()
        server.close()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _wait_to_speak(self) -> None:
        self._waiting += 1
        try:
            await self._speaks.wait()
        finally:
            self._waiting -= 1

    @contextmanager
    def silence(self) -> Iterator[Callable[[], int]]:
        """Answer nothing in the block; gives how many calls wait for an answer."""
        self._loop.call_soon_threadsafe(self._speaks.clear)
        try:
            yield lambda: self._waiting
        finally:
            self._loop.call_soon_threadsafe(self._speaks.set)

    def drop_connections(self) -> None:
        """Break off all that have been made, and return when they are."""

        async def drop() -> None:
            for connection in self._connections:
                connection.abort()
            self._connections.clear()

        asyncio.run_coroutine_threadsafe(drop(), self._loop).result(30)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SFTPServer]:
    server = SFTPServer(tmp_path_factory.mktemp('sftp'))
    yield server
    server.stop()


@pytest.fixture
def url(server: SFTPServer) -> str:
    """The URL of a folder that is not there yet."""
    return f'sftp://{USER}@127.0.0.1:{server.port}/{uuid.uuid4().hex}'


class TestSFTP(StoreTests):
    conditional_put = False
    has_etag = False  # it is a time in whole seconds
    folders = True
    examples = 1

    @pytest.fixture
    def store(self, url: str) -> Iterator[Store]:
        store = open_store(url, {'password': PASSWORD})
        yield store
        store.close()


def test_a_wrong_password(url: str) -> None:
    """One error, at once, and the thread of a connection that came to nothing ends."""
    store = open_store(url, {'password': 'another', 'look_for_keys': False, 'allow_agent': False})
    for call in (lambda: store.get('key'), lambda: store.put('key', b'x'), lambda: list(store.list())):
        with pytest.raises(CredentialsError, match=r'sftp://.*Authentication failed') as error:
            call()
        assert 'another' not in str(error.value)
    store.close()


def test_nobody_is_there(free_port: int) -> None:
    for place in (f'127.0.0.1:{free_port}', 'no-such-host.invalid'):
        store = open_store(f'sftp://{USER}@{place}/x', {'password': PASSWORD}, retry=RetryPolicy(tries=2))
        with pytest.raises(UnavailableError, match=r'sftp://.*gave up after 2 tries'):
            store.get('key')
        store.close()


def test_a_connection_that_breaks_is_made_anew(server: SFTPServer, url: str) -> None:
    store = open_store(url, {'password': PASSWORD})
    store.put('key', pattern(100_000))
    for _ in range(2):
        server.drop_connections()
        assert store.get('key') == pattern(100_000)
    store.close()


def test_a_connection_that_breaks_just_then_is_made_anew(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was looked at whether there is one, and before the call is sent."""
    original, broken = SFTP.cat_file, []

    def break_once(self: SFTP, *arguments: Any, **keywords: Any) -> bytes:
        if not broken:
            broken.append(self.ftp.get_channel().close())
        return original(self, *arguments, **keywords)

    store = open_store(url, {'password': PASSWORD})
    store.put('key', pattern(1000))
    monkeypatch.setattr(SFTP, 'cat_file', break_once)
    assert store.get('key') == pattern(1000)
    assert broken
    store.close()


def test_more_threads_than_channels(url: str) -> None:
    store = open_store(url, {'password': PASSWORD})
    data = pattern(1 << 20)
    store.put('key', data)
    with ThreadPoolExecutor(24) as pool:
        parts = list(pool.map(lambda start: read(store, 'key', start << 15, 1 << 15), range(32)))
    assert b''.join(parts) == data
    store.close()


def test_silence_has_an_end(server: SFTPServer, url: str) -> None:
    store = open_store(url, {'password': PASSWORD})
    store.put('key', b'value')
    store.close()
    impatient = open_store(url, {'password': PASSWORD, 'timeout_s': 1}, retry=None)
    assert impatient.get('key') == b'value'
    with server.silence():
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r'GET sftp://'):
            impatient.get('key')
        assert time.monotonic() - began < 30  # the server is silent until then
    assert impatient.get('key') == b'value'
    impatient.close()


def test_closing_cancels_within_a_second(
    server: SFTPServer, url: str, within: Callable[[float, Callable[[], float]], None]
) -> None:
    store = open_store(url, {'password': PASSWORD})
    store.put('key', b'value')
    store.put('part/key', b'value')

    calls = (
        lambda: store.get('key'),
        lambda: read(store, 'key', 1, 2),
        lambda: store.put('new', b'x'),
        lambda: store.head('key'),
        lambda: list(store.list()),
    )

    def attempt() -> float:
        with server.silence() as waiting:
            return seconds_to_close(store, calls, lambda: waiting() == len(calls))

    within(1.0, attempt)
    assert store.get('key') == b'value'
    store.close()
