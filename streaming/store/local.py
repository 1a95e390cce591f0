"""Objects as files of a folder: plain paths and `file://` URLs.

A put writes a temporary file in the object's own folder and renames it, so a reader sees all of an object or nothing.
What a killed writer leaves behind is one `.put-*.tmp` file, which no listing shows. Nothing is flushed to the disk
(fsync): an object survives the death of its writer, not necessarily that of the machine within the next seconds.
"""

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streaming.errors import (
    AlreadyExistsError,
    ArgumentError,
    CorruptError,
    DeniedError,
    NotFoundError,
    PreconditionError,
    StoreError,
    UnavailableError,
)
from streaming.files import open_file
from streaming.store.options import check_timeout, refuse_unknown
from streaming.store.protocol import ObjectInfo, Store, check_key, check_prefix, check_range

__all__ = ['LocalStore']

# Bytes between two looks at whether the read was cancelled.
_CHUNK_BYTES = 8 << 20
_TEMPORARY = re.compile(r'\.put-[0-9a-f]{32}\.tmp')
# What a network file system says when it may be better a moment later.
_PASSING = frozenset({errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class LocalStore(Store):
    """Objects as files under a folder.

    Args:
        root: The folder, with a leading ``~`` for the home folder if you like. It need not exist before the first put.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)

    @classmethod
    def open(cls, url: str, options: Mapping[str, object]) -> 'LocalStore':
        """Make the store of a path or a ``file://`` URL. ``timeout_s`` is taken and has no effect.

        Raises:
            ArgumentError: an unknown option, or a URL that names another machine.
        """
        refuse_unknown(url, options, ['timeout_s'])
        check_timeout(options.get('timeout_s', 60.0))
        if not url.lower().startswith('file:'):
            return cls(url)
        parts = urlsplit(url)
        if parts.netloc not in ('', 'localhost') or not parts.path.startswith('/'):
            raise ArgumentError(f'{url} is not a file on this machine; a file URL looks like file:///data/train')
        return cls(unquote(parts.path))

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with _translated(path):
            status = path.stat()
            _refuse_folder(path, status)
            return ObjectInfo(key, status.st_size, _etag(status))

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        path = self._path(key)
        with _translated(path), open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if limit_bytes is not None and size > limit_bytes:
                raise CorruptError(f'{path} has {size} bytes, more than the {limit_bytes} that can be right')
            return file.readall()

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        check_range(start, buffer)
        path = self._path(key)
        with _translated(path), open_file(path) as file:
            status = os.fstat(file.fileno())
            if if_match is not None and if_match != _etag(status):
                raise PreconditionError(f'{path} is not the version {if_match} any more, it is {_etag(status)}')
            if start + len(buffer) > status.st_size:
                raise CorruptError(f'{path} has {status.st_size} bytes, bytes {start} to {start + len(buffer)} were asked for')
            file.seek(start)
            done = 0
            while done < len(buffer):
                count = file.readinto(buffer[done : done + _CHUNK_BYTES])
                if not count:
                    raise CorruptError(f'{path} was cut to {start + done} bytes while it was read')
                done += count
                if on_bytes is not None:
                    on_bytes(count)
        return ObjectInfo(key, status.st_size, _etag(status))

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        path = self._path(key)
        temporary = path.with_name(f'.put-{uuid.uuid4().hex}.tmp')
        with _translated(path):
            try:
                status = _write(temporary, source)
                if overwrite:
                    temporary.replace(path)
                else:
                    _place_new(temporary, path)
            finally:
                with suppress(OSError):
                    temporary.unlink()
        return ObjectInfo(key, status.st_size, _etag(status))

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        # Checked before the first item is asked for.
        check_prefix(prefix)
        return self._list(prefix, after)

    def _list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition('/')[0]
        with _translated(self.root):
            for key, status in _walk(self.root / folder, f'{folder}/' if folder else '', prefix, after, ()):
                yield ObjectInfo(key, status.st_size, _etag(status))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translated(path), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()

    def sweep(self) -> None:
        """Remove what writers that were killed left in the root folder, and not below it. Nobody may be writing there."""
        with _translated(self.root), suppress(FileNotFoundError, NotADirectoryError):
            for path in self.root.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)


def _walk(
    folder: Path, base: str, prefix: str, after: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, os.stat_result]]:
    """Files below ``folder`` by key. Sorted as an object store sorts: `a-b` before `a/b` before `a0`."""
    try:
        here = folder.stat()
        with os.scandir(folder) as entries:
            found = sorted((base + entry.name + ('/' if entry.is_dir() else ''), entry) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        return  # a symbolic link to one of its own parents
    all_match = base.startswith(prefix)
    for key, entry in found:
        if not all_match and not (key.startswith(prefix) or prefix.startswith(key)):
            continue
        if key.endswith('/'):
            if key > after or after.startswith(key):
                yield from _walk(folder / entry.name, key, prefix, after, (*above, identity))
        elif key > after and (all_match or key.startswith(prefix)) and not _is_temporary(entry.name):
            try:
                status = entry.stat()
            except FileNotFoundError:  # deleted since, or a dangling link
                continue
            yield key, status


def _is_temporary(name: str) -> bool:
    return name.startswith('.') and _TEMPORARY.fullmatch(name) is not None


def _write(path: Path, source: bytes | Path) -> os.stat_result:
    """Write a new file; its parents are made where they lack."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, 'wb', buffering=0) as file:
        if isinstance(source, Path):
            with source.open('rb', buffering=0) as original:
                while chunk := original.read(_CHUNK_BYTES):
                    _write_all(file.fileno(), chunk)
        else:
            _write_all(file.fileno(), source)
        return os.fstat(file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _place_new(temporary: Path, path: Path) -> None:
    """Give a file its name if nobody has it."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some FUSE): take the name first. A reader may see an empty file for a moment.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        temporary.replace(path)


def _etag(status: os.stat_result) -> str:
    return f'{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}'


def _refuse_folder(path: Path, status: os.stat_result) -> None:
    if status.st_mode & 0o170000 == 0o040000:
        raise NotFoundError(f'{path} is a folder, not an object')


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what the operating system says into the errors of a store."""
    try:
        yield
    except StoreError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f'{error.filename or path} does not exist') from error
    except IsADirectoryError as error:
        raise NotFoundError(f'{path} is a folder, not an object') from error
    except FileExistsError as error:
        raise AlreadyExistsError(f'{path} exists already') from error
    except PermissionError as error:
        raise DeniedError(f'{error.filename or path}: {error.strerror}') from error
    except OSError as error:
        kind = UnavailableError if error.errno in _PASSING else StoreError
        raise kind(f'{path}: {error.strerror or error}') from error
