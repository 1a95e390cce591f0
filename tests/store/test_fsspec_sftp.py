"""sftp:// against a real server on the loopback: asyncssh's, in a thread of its own."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from streaming.errors import NotFoundError
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.testing.store import pattern, read

USER, PASSWORD = 'somebody', 'secret of sftp'


class _Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


class SFTPServer:
    """Serves a folder as the root of everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),))
        self._thread.start()
        assert ready.wait(30)

    async def _serve(self, ready: threading.Event) -> None:
        def files(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
            return asyncssh.SFTPServer(channel, chroot=str(self._folder).encode())

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
def store(server: SFTPServer) -> Iterator[Store]:
    store = open_store(f'sftp://{USER}@127.0.0.1:{server.port}/{uuid.uuid4().hex}', {'password': PASSWORD})
    yield store
    store.close()


@pytest.mark.timeout(60)
def test_what_a_dataset_needs(store: Store) -> None:
    data = pattern(3 << 20)
    store.put('part/key', data)
    store.put('part/other', b'x')
    assert store.get('part/key') == data
    assert read(store, 'part/key', 1 << 20, 1000) == data[1 << 20 :][:1000]
    assert store.head('part/key').size == len(data)
    assert sorted((info.key, info.size) for info in store.list()) == [('part/key', len(data)), ('part/other', 1)]
    store.put('part/key', b'anew')
    assert store.get('part/key') == b'anew'
    store.delete('part/key')
    with pytest.raises(NotFoundError, match='part/key'):
        store.get('part/key')
