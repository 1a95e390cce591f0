"""A cache folder: laid out like the dataset it copies, plus one hidden folder that says what it copies and who is at work.

    index.json, shard.00000.mds, ...    whole, verified files: a complete cache is itself a dataset
    .streaming/source.json              the remote and the version that the folder holds
    .streaming/ledger                   what each shard takes up, who follows which plan, and sums (see `book`)
    .streaming/plans/                   when each shard is used, by the plans that are followed (see `plans`)
    .streaming/fetching/                temporary files and locks of fetches that are going on
    .streaming/room                     a pipe that wakes who waits for room (see `room`)

Everything in the hidden folder can be lost without harm.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from streaming.cache.locks import wait_for_lock
from streaming.cache.refresh import forget_stale
from streaming.errors import CorruptError, NotFoundError, StaleCacheError
from streaming.files import new_file
from streaming.format.index import ShardTable
from streaming.store.protocol import Store

__all__ = ['INDEX_NAME', 'CacheFolder', 'cache_home', 'default_cache_path', 'write_atomically']

INDEX_NAME = 'index.json'

_HIDDEN = '.streaming'

# An index of ten million shards is about 6 GB; more is not an index.
_INDEX_LIMIT_BYTES = 8 << 30


def cache_home() -> Path:
    """Where this user's cache folders are, unless others are named: under XDG_CACHE_HOME, or ~/.cache. It need not exist."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'streaming'


def default_cache_path(remote: str, split: str | None) -> Path:
    """This user's cache folder for a remote, in `cache_home`, open to this user only."""
    home = cache_home()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A query may hold what must not show in a path; the digest tells remotes apart, the name is for people.
    plain = remote.split('?', 1)[0].rstrip('/')
    name = quote(plain.rsplit('/', 1)[-1], safe='')[:40] or 'dataset'
    digest = hashlib.sha256(f'{remote}\0{split or ""}'.encode()).hexdigest()[:16]
    return home / f'{name}-{digest}'


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file of the dataset, to be read by whom the user's umask lets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o666 & ~_umask())


def _umask() -> int:
    # There is no way to read the umask of the process but to set it; /proc says it without a race with other threads.
    with suppress(OSError), open('/proc/self/status', encoding='ascii') as status:
        for line in status:
            if line.startswith('Umask:'):
                return int(line.split()[1], 8)
    return 0o022


class CacheFolder:
    """The folder's paths, and the index in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hidden = path / _HIDDEN

    def lock_path(self, basename: str) -> Path:
        """The lock of whoever fetches the file."""
        return self.hidden / 'fetching' / f'{_flat(basename)}.lock'

    def scratch_path(self, basename: str) -> Path:
        """Where the file grows while it is fetched. The name is fixed, so what a killed process left is written over."""
        return self.hidden / 'fetching' / f'{_flat(basename)}.part'

    def sync_index(self, store: Store, timeout_s: float, *, refresh: bool = False) -> bytes:
        """Read the remote's index and keep it in the folder.

        Args:
            store: The remote.
            timeout_s: Seconds to wait for another process that is at it.
            refresh: Where the folder holds an older version of the remote, make it hold this one. Default: False, that is an
                error.

        Raises:
            NotFoundError: the remote has no index: it is no dataset, or its writer has not finished.
            StaleCacheError: the folder holds files of another remote, or of another version of this one.
            DeadlineError: another process held the folder's index for ``timeout_s``.
        """
        try:
            data = store.get(INDEX_NAME, limit_bytes=_INDEX_LIMIT_BYTES)
        except NotFoundError as error:
            raise NotFoundError(
                f'{store.url_of(INDEX_NAME)} does not exist: wrong remote or split, or the dataset is not finished (its index is '
                f'written last). The store says: {error}'
            ) from error
        identity = {'index_sha256': hashlib.sha256(data).hexdigest()}
        path = self.path / INDEX_NAME
        lock = wait_for_lock(self.lock_path(INDEX_NAME), timeout_s, f'the index of {store.url}')
        with lock:
            held = self._held_index_hash()
            if held is not None and held != identity['index_sha256']:
                if not refresh or not self._is_of(store):
                    raise StaleCacheError(
                        f'{self.path} holds another dataset, or an older version of it, than {store.url}: their index.json '
                        "differ. Use another local folder, remove this one, or pass on_stale='refresh' if the remote was "
                        'overwritten'
                    )
                old = ShardTable.from_json(path.read_bytes(), str(path))
                forget_stale(self.path, self.hidden, old, ShardTable.from_json(data, store.url_of(INDEX_NAME)))
                held = None
            if held is None:
                write_atomically(path, data)
            self._note_source(store.url, identity)
        return data

    def _held_index_hash(self) -> str | None:
        try:
            return hashlib.sha256((self.path / INDEX_NAME).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise CorruptError(f'{self.path} is not a folder, so it cannot be a cache: {error}') from error

    def _is_of(self, store: Store) -> bool:
        """Whether the folder was made from this remote."""
        with suppress(FileNotFoundError, ValueError):
            found = json.loads((self.hidden / 'source.json').read_bytes())
            return isinstance(found, dict) and found.get('remote') == store.url.split('?', 1)[0]
        return False

    def _note_source(self, url: str, identity: dict[str, str]) -> None:
        path = self.hidden / 'source.json'
        data = json.dumps({'remote': url.split('?', 1)[0], **identity}, sort_keys=True).encode()
        with suppress(FileNotFoundError):
            if path.read_bytes() == data:
                return
        write_atomically(path, data)


def _flat(basename: str) -> str:
    """A file name for a name that may hold slashes, and may be as long as names get."""
    flat = quote(basename, safe='')
    if len(flat) <= 200:
        return flat
    return f'{flat[:160]}-{hashlib.sha256(basename.encode()).hexdigest()[:24]}'
