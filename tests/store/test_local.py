import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from streaming.errors import AlreadyExistsError, ArgumentError, DeniedError, NotFoundError, StoreError, UnavailableError
from streaming.store import open_store
from streaming.store.local import LocalStore
from streaming.store.protocol import Store
from streaming.testing.store import StoreTests


class TestLocalStore(StoreTests):
    folders = True

    @pytest.fixture
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> Store:
        return LocalStore(tmp_path_factory.mktemp('store'))


class TestLocalStoreOpenedByURL(StoreTests):
    examples = 5
    folders = True

    @pytest.fixture
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> Store:
        return open_store((tmp_path_factory.mktemp('with space') / 'not there yet').as_uri())


def test_paths_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    for url, path in {
        'data': tmp_path / 'data',
        './data': tmp_path / 'data',
        '~/data': tmp_path / 'home/data',
        str(tmp_path): tmp_path,
        'file:///a%20b/c': Path('/a b/c'),
        'file://localhost/a': Path('/a'),
        'a:b': tmp_path / 'a:b',
    }.items():
        assert open_store(url).url == str(path)
    with pytest.raises(ArgumentError, match='elsewhere'):
        open_store('file://elsewhere/a')
    with pytest.raises(ArgumentError, match=r'regoin.*timeout_s'):
        open_store('data', {'regoin': 'x'})


def test_a_killed_put_shows_nothing(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from streaming.store.local import LocalStore
        import streaming.store.local as local
        write = local._write_all
        def half(descriptor, data):
            write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        local._write_all = half
        LocalStore(sys.argv[1]).put('a/key', b'x' * 1000)
    """
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(script), str(tmp_path)], check=False, timeout=100)
    assert result.returncode == -signal.SIGKILL
    store = LocalStore(tmp_path)
    left = list((tmp_path / 'a').iterdir())
    assert [path.stat().st_size for path in left] == [500]
    assert left[0].name.startswith('.put-')
    assert list(store.list()) == []
    with pytest.raises(NotFoundError):
        store.head('a/key')


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('streaming.store.local._write_all', full)
    with pytest.raises(StoreError, match='No space left') as error:
        LocalStore(tmp_path).put('key', b'x')
    assert not isinstance(error.value, UnavailableError)
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, 'link', refuse)
    store = LocalStore(tmp_path)
    store.put('key', b'first', overwrite=False)
    with pytest.raises(AlreadyExistsError):
        store.put('key', b'second', overwrite=False)
    assert store.get('key') == b'first'
    assert [path.name for path in tmp_path.iterdir()] == ['key']


def test_what_may_pass_is_told_from_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put('key', b'x')

    def stale(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / 'key'))

    for fault, kind in ((stale, UnavailableError), (denied, DeniedError)):
        monkeypatch.setattr(os, 'open', fault)
        with pytest.raises(kind, match='key'):
            store.get('key')


def test_symbolic_links(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put('real/key', b'x')
    (tmp_path / 'linked').symlink_to(tmp_path / 'real')
    (tmp_path / 'real' / 'loop').symlink_to(tmp_path)
    (tmp_path / 'dangling').symlink_to(tmp_path / 'nowhere')
    assert [info.key for info in store.list()] == ['linked/key', 'real/key']
    assert store.get('linked/key') == b'x'


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        LocalStore(tmp_path).put('key', b'x')
    finally:
        os.umask(before)
    assert (tmp_path / 'key').stat().st_mode & 0o777 == 0o640
