"""Every other store, through fsspec: `gs:// az:// abfs:// hf:// sftp:// dbfs:/` and whatever else is installed.

fsspec's file systems differ in what they raise and in what is atomic; here they behave like one store: keys in order, errors of
one tree, puts that are whole or not there. Their own caches are off. Options are the file system's own (``token``,
``account_key``...).
"""

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streaming.errors import (
    AlreadyExistsError,
    ArgumentError,
    CorruptError,
    CredentialsError,
    DeniedError,
    MissingExtraError,
    NotFoundError,
    PreconditionError,
    StoreError,
    UnavailableError,
)
from streaming.store.http import kind_of_status
from streaming.store.options import check_timeout, without_secrets
from streaming.store.parts import size_of
from streaming.store.protocol import ObjectInfo, Store, check_key, check_prefix, check_range

__all__ = ['FsspecStore']

# Spellings of mosaicml-streaming, and what fsspec calls them.
_SPELLINGS = {'azure': 'az', 'azure-dl': 'abfs'}
_EXTRAS = {
    'gs': 'gcs', 'gcs': 'gcs', 'az': 'azure', 'abfs': 'azure', 'abfss': 'azure', 'adl': 'azure', 'hf': 'hf', 'sftp': 'sftp',
    'ssh': 'sftp',
}  # fmt: skip
# A file written there grows under its name; elsewhere an object appears when it is complete.
_FILE_SYSTEMS = frozenset({'file', 'local', 'sftp', 'ssh', 'ftp', 'smb', 'hdfs', 'webhdfs', 'dbfs'})
_SSH = ('sftp', 'ssh')
_READS_AHEAD = ('hf', 'dbfs')
# Slower than this over a whole request, and it is given up; fsspec does not say what comes in between.
_MIN_BYTES_PER_S = 8192
_CONNECT_S = 4.0
_CONNECTIONS = 64
# Names of errors, for the packages that have them may not be here: aiohttp's, Azure's, Google's, paramiko's, the resolver's,
# those of requests.
_PASSING = frozenset(
    {
        'ClientConnectionError', 'ClientPayloadError', 'ServiceRequestError', 'TransportError', 'SSHException',
        'NoValidConnectionsError', 'gaierror', 'ConnectionError', 'Timeout', 'RetryError', 'ChunkedEncodingError',
    }
)  # fmt: skip


class FsspecStore(Store):
    """A folder of one of fsspec's file systems.

    Args:
        url: As fsspec takes it, or in a spelling of mosaicml-streaming's (``azure://``, ``azure-dl://``).
        options: Keywords of the file system's class.
        timeout_s: Seconds that a request may take on top of its bytes. Default: 60.
    """

    def __init__(self, url: str, options: Mapping[str, object] | None = None, *, timeout_s: float = 60.0) -> None:
        scheme, mark, rest = url.partition(':')
        self._protocol = _SPELLINGS.get(scheme.lower(), scheme.lower())
        self._full_url = f'{self._protocol}{mark}{rest}'
        self._options = {**_from_environment(self._protocol), **(options or {})}
        self._timeout_s = timeout_s
        self.url = without_secrets(url).rstrip('/')
        # fsspec's loops and connections do not survive a fork.
        self._by_process: dict[int, _Opened] = {}

    @classmethod
    def open(cls, url: str, options: Mapping[str, object]) -> Store:
        """Make the store of a URL. ``timeout_s`` is ours, all other options the file system's.

        A ``gs://`` URL with the HMAC key of GCS_KEY and GCS_SECRET goes through Google's S3 interface, as in mosaicml-streaming.

        Raises:
            ArgumentError: nobody knows the scheme.
            MissingExtraError: the package that serves it is not installed.
        """
        own = dict(options)
        timeout_s = check_timeout(own.pop('timeout_s', 60.0))
        if url.lower().startswith(('gs://', 'gcs://')) and os.environ.get('GCS_KEY') and os.environ.get('GCS_SECRET'):
            return _google_by_s3(url, timeout_s)
        store = cls(url, own, timeout_s=timeout_s)
        _check_installed(store._protocol, url)
        return store

    def __getstate__(self) -> tuple[str, dict[str, object], float]:
        return self._full_url, self._options, self._timeout_s

    def __setstate__(self, state: tuple[str, dict[str, object], float]) -> None:
        self.__init__(state[0], state[1], timeout_s=state[2])  # type: ignore[misc]

    def _open(self) -> '_Opened':
        """This process's file system. One whose connection has ended is made anew."""
        pid = os.getpid()
        found = self._by_process.get(pid)
        if found is not None and not found.is_connected:
            self._by_process.pop(pid, None)
            found.close()
            found = None
        if found is None:
            with self._translated(f'open {self.url}'):
                system, root = self._make({'skip_instance_cache': True, **self._options})
            made = _Opened(system, str(root).rstrip('/'))
            found = self._by_process.setdefault(pid, made)
            if found is not made:  # another thread was first
                made.close()
        return found

    def _make(self, options: dict[str, Any]) -> tuple[Any, Any]:
        """The file system and the root's path in it, made anew."""
        if self._protocol in _SSH:
            from streaming.store.sftp import SFTP

            in_url = {**SFTP._get_kwargs_from_urls(self._full_url), **options}
            return SFTP(timeout_s=self._timeout_s, **in_url), SFTP._strip_protocol(self._full_url)
        options.setdefault('use_listings_cache', False)
        if self._protocol in ('gs', 'gcs'):
            # Not the class that gcsfs registers: it asks over gRPC what kind of bucket it is, and gRPC does not survive a fork.
            from gcsfs.core import GCSFileSystem  # type: ignore[import-untyped]

            system = GCSFileSystem(**options)
            return system, system._strip_protocol(self._full_url)
        import fsspec  # type: ignore[import-untyped]

        system, root = fsspec.core.url_to_fs(self._full_url, **options)
        if self._protocol == 'dbfs':
            _limit(system.session, self._timeout_s)
        return system, root

    def _call(self, name: str, *arguments: Any, size: int = 0, **keywords: Any) -> Any:
        """Call the file system, with a deadline."""
        return self._open().call(self._timeout_s + size / _MIN_BYTES_PER_S, name, *arguments, **keywords)

    def _reading(self) -> dict[str, object]:
        """How to read no more than what was asked for: some read megabytes ahead."""
        return {'cache_type': 'none'} if self._protocol in _READS_AHEAD else {}

    def _path(self, key: str) -> str:
        return f'{self._open().root}/{check_key(key)}'

    def _info(self, path: str) -> dict[str, Any]:
        self._open().system.invalidate_cache()
        found: dict[str, Any] = self._call('info', path)
        if found.get('type') == 'directory':
            raise FileNotFoundError(path)
        return found

    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with self._translated(f'HEAD {self.url_of(key)}'):
            found = self._info(path)
            return ObjectInfo(key, int(found['size']), _etag(found))

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        path, what = self._path(key), f'GET {self.url_of(key)}'
        with self._translated(what):
            size = int(self._info(path)['size'])
            if limit_bytes is not None and size > limit_bytes:
                raise CorruptError(f'{what}: {size} bytes, more than the {limit_bytes} that can be right')
            data: bytes = self._call('cat_file', path, size=size, **self._reading()) if size else b''
        if len(data) < size:
            raise UnavailableError(f'{what}: {len(data)} of {size} bytes came')
        return data

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
        path, end = self._path(key), start + len(buffer)
        what = f'GET {self.url_of(key)}, bytes {start} to {end}'
        with self._translated(what):
            if if_match is not None and _etag(self._info(path)) != if_match:
                raise PreconditionError(f'{what}: it is not the version {if_match} any more')
            data = self._read(path, start, end, what)
        buffer[:] = data
        if on_bytes is not None:
            on_bytes(len(data))
        return None

    def _read(self, path: str, start: int, end: int, what: str) -> bytes:
        try:
            data: bytes = self._call('cat_file', path, start=start, end=end, size=end - start, **self._reading())
        except (FileNotFoundError, ConnectionError, TimeoutError):
            raise
        except Exception:  # file systems have no common error for a range beyond the end
            if int(self._info(path)['size']) < end:
                data = b''
            else:
                raise
        if len(data) == end - start:
            return data
        size = int(self._info(path)['size'])
        if size < end:
            raise CorruptError(f'{what}: the object has {size} bytes')
        raise UnavailableError(f'{what}: {len(data)} of {end - start} bytes came')

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        path, what, size = self._path(key), f'PUT {self.url_of(key)}', size_of(source)
        opened = self._open()
        grows = self._protocol in _FILE_SYSTEMS
        folder = path.rpartition('/')[0]
        target = f'{folder}/.put-{uuid.uuid4().hex}.tmp' if grows else path
        with self._translated(what):
            if not overwrite and self._exists(path):
                raise AlreadyExistsError(f'{what}: it exists already')
            try:
                if grows:
                    self._call('makedirs', folder, exist_ok=True)
                if isinstance(source, Path):
                    self._call('put_file', str(source), target, size=size)
                else:
                    self._call('pipe_file', target, bytes(source), size=size)
                stored = int(self._info(target)['size'])
                if stored != size:
                    raise UnavailableError(f'{what}: {stored} of {size} bytes were stored')
                if grows:
                    self._move(target, path)
                found = self._info(path)
            except BaseException:  # also when it is interrupted, nothing half-written stays
                if grows and not opened.is_closed:
                    with suppress(Exception):  # whatever it is, the first failure is the one to show
                        self._remove(target)
                raise
        return ObjectInfo(key, int(found['size']), _etag(found))

    def _move(self, source: str, target: str) -> None:
        try:
            self._call('mv', source, target)
        except FileExistsError:  # of dbfs:/, which replaces nothing
            self._remove(target)
            self._call('mv', source, target)

    def _remove(self, path: str) -> None:
        self._call('rm' if self._protocol == 'dbfs' else 'rm_file', path)  # which does not have the other

    def _exists(self, path: str) -> bool:
        try:
            self._info(path)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, after)

    def _list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        root = self._open().root
        folder = prefix.rpartition('/')[0]
        yield from self._walk(root, f'{folder}/' if folder else '', prefix, after)

    def _walk(self, root: str, base: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Objects below ``base`` by key, folder by folder."""
        folder = f'{root}/{base}'.rstrip('/')
        with self._translated(f'LIST {self.url_of(base)}'):
            self._open().system.invalidate_cache()
            try:
                entries = self._call('ls', folder, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return
        found: dict[str, dict[str, Any]] = {}
        for entry in entries:
            name = str(entry['name']).rstrip('/').rpartition('/')[2]
            is_folder = entry.get('type') == 'directory'
            # Some list the folder in itself.
            if str(entry['name']).rstrip('/') != folder:
                found[base + name + ('/' if is_folder else '')] = entry
        for key in sorted(found):
            if key.endswith('/'):
                if (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                    yield from self._walk(root, key, prefix, after)
            elif key.startswith(prefix) and key > after and not key.rpartition('/')[2].startswith('.put-'):
                yield ObjectInfo(key, int(found[key]['size']), _etag(found[key]))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translated(f'DELETE {self.url_of(key)}'), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._info(path)
            self._remove(path)

    def close(self) -> None:
        opened = self._by_process.pop(os.getpid(), None)
        if opened is not None:
            opened.close()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except (StoreError, CorruptError, ArgumentError):
            raise
        except Exception as error:  # each file system raises what its own client does
            raise _error_of(error, what) from error


class _Opened:
    """A file system as one process has it open, and the calls that are under way. Any thread may use it.

    Each call can be given up, when it is too late or the store is closed, whether or not the file system's own client can: a
    coroutine is cancelled, any other call goes on in a thread that nobody waits for, until it ends by itself.
    """

    def __init__(self, system: Any, root: str) -> None:
        self.system = system
        self.root = root
        self._lock = threading.Lock()
        self._calls: set[futures.Future[Any]] = set()
        self.is_closed = False

    @property
    def is_connected(self) -> bool:
        """False where it has one connection for good, and that has ended."""
        return bool(getattr(self.system, 'is_connected', True))

    def call(self, limit_s: float, name: str, *arguments: Any, **keywords: Any) -> Any:
        """What the file system's method returns, within so many seconds.

        Raises:
            TimeoutError: it was not there in time.
            ConnectionAbortedError: the store was closed meanwhile.
        """
        asynchronous = getattr(self.system, f'_{name}', None)
        if name in vars(self.system) and asyncio.iscoroutinefunction(asynchronous):  # fsspec has made one of the other
            coroutine = asynchronous(*arguments, **keywords)
            future: futures.Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.system.loop)
        else:
            future = futures.Future()
            method = getattr(self.system, name)
            call = partial(self._make_call, future, method, *arguments, **keywords)
            threading.Thread(target=call, name=f'fsspec-{name}', daemon=True).start()
        with self._lock:
            self._calls.add(future)
            is_closed = self.is_closed
        try:
            if is_closed:
                future.cancel()
            return future.result(limit_s)
        except (futures.CancelledError, asyncio.CancelledError) as error:
            raise ConnectionAbortedError('its store was closed') from error
        except futures.TimeoutError as error:
            if future.done():  # the call's own
                raise
            raise TimeoutError(f'no answer within {limit_s:g} s') from error
        finally:
            future.cancel()
            with self._lock:
                self._calls.discard(future)

    def _make_call(self, future: 'futures.Future[Any]', method: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        channel = getattr(self.system, 'channel', nullcontext)
        try:
            with channel():
                result = method(*arguments, **keywords)
        except BaseException as error:  # raised where the result is asked for, if it still is
            with suppress(futures.InvalidStateError):
                future.set_exception(error)
        else:
            with suppress(futures.InvalidStateError):
                future.set_result(result)

    def close(self) -> None:
        """Give up what is under way."""
        with self._lock:
            self.is_closed = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        if hasattr(self.system, 'is_connected'):
            self.system.close()  # it has a thread, which nothing else ends


def _limit(session: Any, timeout_s: float) -> None:
    """Let a session of requests wait for no answer for ever, and leave further tries to us."""
    from requests.adapters import HTTPAdapter

    session.mount('https://', HTTPAdapter(max_retries=0, pool_maxsize=_CONNECTIONS))
    session.request = partial(session.request, timeout=(min(_CONNECT_S, timeout_s), timeout_s))


def _error_of(error: Exception, what: str) -> StoreError:
    text = f'{what}: {str(error) or type(error).__name__}'
    if type(error.__cause__).__name__ == 'GatedRepoError':  # huggingface_hub says that there is no such repository
        return DeniedError(f'{what}: {error.__cause__}')
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        return NotFoundError(f'{what}: it does not exist')
    if isinstance(error, FileExistsError):
        return AlreadyExistsError(f'{what}: it exists already')
    if isinstance(error, PermissionError):
        return DeniedError(text)
    status = _status(error)
    if status is not None:
        found = kind_of_status(status)(text)
        found.status = status
        return found
    names = {cls.__name__ for cls in type(error).__mro__}
    if 'AuthenticationException' in names:  # sftp's: whoever asks is not who it should be
        return CredentialsError(text)
    if 'BadHostKeyException' in names:  # nor is the server
        return StoreError(text)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, ConnectionError, EOFError)) or names & _PASSING:
        return UnavailableError(text)
    return StoreError(text)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of a client holds, under whichever name."""
    cause = error.__cause__
    for holder in (error, getattr(error, 'response', None), cause, getattr(cause, 'response', None)):
        for name in ('status_code', 'status', 'code'):
            value = getattr(holder, name, None)
            with suppress(TypeError, ValueError):
                number = int(value)  # type: ignore[arg-type]
                if 400 <= number < 600:
                    return number
    return None


def _etag(info: Mapping[str, Any]) -> str | None:
    """What changes with the object, under the name that its file system has for it."""
    for name in ('ETag', 'etag', 'generation', 'md5Hash', 'content_md5', 'blob_id'):
        if info.get(name) is not None:
            return str(info[name])
    for name in ('mtime', 'last_modified', 'created'):
        value = info.get(name)
        if value is not None:
            # The same moment is a number in one answer and a datetime in another.
            return f'{value.timestamp() if hasattr(value, "timestamp") else value}-{info["size"]}'
    return None


def _check_installed(protocol: str, url: str) -> None:
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError(f"{without_secrets(url)} needs fsspec: pip install 'streaming-dataset[fsspec]'") from error
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f": pip install 'streaming-dataset[{extra}]'" if extra else ''
        raise MissingExtraError(f'{without_secrets(url)}: {error}{hint}') from error
    except ValueError as error:
        raise ArgumentError(f'no store serves {urlsplit(url).scheme}:// ({without_secrets(url)}), nor does fsspec') from error


def _from_environment(protocol: str) -> dict[str, object]:
    """The variables of mosaicml-streaming that the file systems do not read themselves."""
    found: dict[str, object] = {}
    if protocol in ('az', 'abfs', 'abfss'):
        for name, variable in (('account_name', 'AZURE_ACCOUNT_NAME'), ('account_key', 'AZURE_ACCOUNT_ACCESS_KEY')):
            if os.environ.get(variable):
                found[name] = os.environ[variable]
    if protocol == 'dbfs':
        for name, variable in (('instance', 'DATABRICKS_HOST'), ('token', 'DATABRICKS_TOKEN')):
            if os.environ.get(variable):
                found[name] = os.environ[variable].removeprefix('https://')
    return found


def _google_by_s3(url: str, timeout_s: float) -> Store:
    from streaming.store.s3 import S3Options, S3Store

    rest = url.partition('://')[2]
    options = S3Options.parse(
        f's3://{rest}',
        {
            'endpoint': 'https://storage.googleapis.com',
            'access_key_id': os.environ['GCS_KEY'],
            'secret_access_key': os.environ['GCS_SECRET'],
            'region': 'auto',
            'timeout_s': timeout_s,
        },
    )
    return S3Store(replace(options, url=f'gs://{rest}'.rstrip('/')))
