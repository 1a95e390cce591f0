"""Objects in this process's memory: `mem://name`, for tests and as the plainest store that another can be compared
with.
"""

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from streaming.errors import AlreadyExistsError, CorruptError, NotFoundError, PreconditionError
from streaming.store.options import check_timeout, refuse_unknown
from streaming.store.protocol import ObjectInfo, Store, check_key, check_prefix, check_range

__all__ = ['MemoryStore']

_CHUNK_BYTES = 1 << 20
# Name -> its objects. One lock for all: every use of it is a few dictionary operations.
_spaces: dict[str, dict[str, bytes]] = {}
_lock = threading.Lock()


class MemoryStore(Store):
    """Objects in a dictionary. Stores of one name share it, in one process; in another one an unpickled store begins
    with a copy.

    Args:
        name: The name, without slashes at its ends. Default: a new one.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = uuid.uuid4().hex if name is None else name.strip('/')
        self.url = f'mem://{self._name}'
        with _lock:
            self._objects = _spaces.setdefault(self._name, {})

    @classmethod
    def open(cls, url: str, options: Mapping[str, object]) -> 'MemoryStore':
        """Make the store of a ``mem://name`` URL. ``timeout_s`` is taken and has no effect.

        Raises:
            ArgumentError: an unknown option.
        """
        refuse_unknown(url, options, ['timeout_s'])
        check_timeout(options.get('timeout_s', 60.0))
        return cls(url.partition('://')[2])

    def __getstate__(self) -> tuple[str, dict[str, bytes]]:
        with _lock:
            return self._name, dict(self._objects)

    def __setstate__(self, state: tuple[str, dict[str, bytes]]) -> None:
        self._name, objects = state
        self.url = f'mem://{self._name}'
        with _lock:
            self._objects = _spaces.setdefault(self._name, objects)

    def _find(self, key: str) -> bytes:
        try:
            return self._objects[check_key(key)]
        except KeyError as error:
            raise NotFoundError(f'{self.url_of(key)} does not exist') from error

    def head(self, key: str) -> ObjectInfo:
        data = self._find(key)
        return ObjectInfo(key, len(data), _etag(data))

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        data = self._find(key)
        if limit_bytes is not None and len(data) > limit_bytes:
            raise CorruptError(f'{self.url_of(key)} has {len(data)} bytes, more than the {limit_bytes} that can be right')
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
        data = memoryview(self._find(key))
        if if_match is not None and if_match != _etag(data):
            raise PreconditionError(f'{self.url_of(key)} is not the version {if_match} any more')
        if start + len(buffer) > len(data):
            raise CorruptError(f'{self.url_of(key)} has {len(data)} bytes, bytes {start} to {start + len(buffer)} were asked for')
        for done in range(0, len(buffer), _CHUNK_BYTES):
            count = min(_CHUNK_BYTES, len(buffer) - done)
            buffer[done : done + count] = data[start + done : start + done + count]
            if on_bytes is not None:
                on_bytes(count)
        return ObjectInfo(key, len(data), _etag(data))

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        check_key(key)
        data = source.read_bytes() if isinstance(source, Path) else bytes(source)
        with _lock:
            if not overwrite and key in self._objects:
                raise AlreadyExistsError(f'{self.url_of(key)} exists already')
            self._objects[key] = data
        return ObjectInfo(key, len(data), _etag(data))

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with _lock:
            found = sorted(item for item in self._objects.items() if item[0].startswith(prefix) and item[0] > after)
        return (ObjectInfo(key, len(data), _etag(data)) for key, data in found)

    def delete(self, key: str) -> None:
        with _lock:
            self._objects.pop(check_key(key), None)


def _etag(data: bytes | memoryview) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
