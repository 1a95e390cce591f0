"""The files of a source: a path, a URL, a folder or a glob, in any store -> keys to read, in a fixed order."""

import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from streaming.errors import ArgumentError, NotFoundError
from streaming.store import open_store
from streaming.store.local import LocalStore
from streaming.store.protocol import ObjectInfo, Store
from streaming.store.retry import RetryStore
from streaming.writers.destination import INDEX

__all__ = ['Files', 'InputFile', 'join_url', 'split_url']

# Bytes asked of a remote store in one request.
_READ_BYTES = 8 << 20
_MAGIC = re.compile(r'[*?[]')
_URL_MAGIC = re.compile(r'[*[]')


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a source.

    Args:
        place: Number of the place where it lies.
        key: Its key there.
        size: In bytes.
        etag: Its version, None where its store has none.
    """

    place: int
    key: str
    size: int
    etag: str | None


def split_url(location: str) -> tuple[str, str]:
    """A location and its query, with the question mark; a plain path has none."""
    if '://' not in location:
        return location, ''
    plain, mark, query = location.partition('?')
    return plain, mark + query


def join_url(location: str, key: str) -> str:
    """The location of something below another."""
    plain, query = split_url(location)
    return f'{plain.rstrip("/")}/{key}{query}' if key else location


class Files:
    """The files of a source, found once where it is opened and read from then on.

    Args:
        locations: Paths and URLs: of files, of folders (all files below them), and globs (``**`` goes through folders).
    """

    def __init__(self, locations: Sequence[str | Path]) -> None:
        if not locations:
            raise ArgumentError('there is no source: an empty list')
        self.places: list[str] = []
        self._stores: dict[int, Store] = {}
        # Of places that are folders of this machine; empty for others.
        self._roots: dict[int, str] = {}
        self._found: list[InputFile] | None = None
        self._locations = [os.fspath(location) for location in locations]

    @property
    def url(self) -> str:
        """What is read, for messages."""
        if self._found is not None and len(self._found) == 1:
            return self.name(self._found[0].place, self._found[0].key)
        return ', '.join(self.store(number).url for number in range(len(self.places)))

    def find(self) -> list[InputFile]:
        """All files, location after location, by key. Hidden ones (``.x``, ``_x``) count only where they are named.

        Raises:
            NotFoundError: there is nothing at a location.
        """
        if self._found is None:
            found = [file for location in self._locations for file in self._find(location)]
            self._found = list({(file.place, file.key): file for file in found}.values())
        return self._found

    def select(self, suffixes: Sequence[str]) -> list[InputFile]:
        """Those of a kind; one that was named alone is of the kind that is asked for.

        Raises:
            NotFoundError: there is none.
        """
        files = self.find()
        ends = tuple(suffixes)
        chosen = files if len(files) == 1 else [file for file in files if file.key.lower().endswith(ends)]
        if not chosen:
            raise NotFoundError(f'{self.url} holds no file that ends in {", ".join(suffixes)}, among {len(files)} others')
        self._found = chosen
        return chosen

    def keep(self, files: Sequence[InputFile]) -> None:
        """Let these be all."""
        self._found = list(files)

    def describe(self) -> dict[str, Any]:
        """Names, sizes and versions of all files, in a few lines."""
        files = self.find()
        digest = hashlib.sha256()
        for file in files:
            digest.update(f'{file.place}\0{file.key}\0{file.size}\0{file.etag}\n'.encode('utf-8', 'surrogateescape'))
        return {
            'url': [self.store(number).url for number in range(len(self.places))],
            'files': len(files),
            'bytes': self.total_bytes(),
            'sha256': digest.hexdigest(),
        }

    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.find())

    def store(self, place: int) -> Store:
        """The store of a place."""
        if place not in self._stores:
            self._stores[place] = open_store(self.places[place])
        return self._stores[place]

    def name(self, place: int, key: str) -> str:
        """A file's URL or path, for messages."""
        return self.store(place).url_of(key)

    def path(self, place: int, key: str) -> Path | None:
        """Where a file is on this machine's disk; None if it is elsewhere."""
        inner = self._backend(place)
        return inner.root / key if isinstance(inner, LocalStore) else None

    def _backend(self, place: int) -> Store:
        """The store of a place, without its retries."""
        store = self.store(place)
        return store.inner if isinstance(store, RetryStore) else store

    def read(self, place: int, key: str, size: int = 0) -> bytes:
        """A whole file.

        Args:
            place: Number of the place where it lies.
            key: Its key there.
            size: Its bytes, when it was listed. Default: 0, nobody knows.
        """
        root = self._roots.get(place)
        if root is None:
            path = self.path(place, '')
            root = self._roots[place] = '' if path is None else f'{path}{os.sep}'
        if root:
            # Many small files of this machine: what a store does around opening one takes longer than reading it.
            with suppress(OSError):
                return _read_here(root + key, size)
        return self.store(place).get(key)

    def open(self, place: int, key: str) -> BinaryIO:
        """A file that can be read and sought in; nothing of it is kept on disk.

        Raises:
            NotFoundError: it does not exist.
        """
        path = self.path(place, key)
        store = self.store(place)
        info = store.head(key)
        return path.open('rb') if path is not None else cast(BinaryIO, io.BufferedReader(_Ranged(store, info), _READ_BYTES))

    def close(self) -> None:
        """Give back connections."""
        for store in self._stores.values():
            store.close()

    def _find(self, location: str) -> list[InputFile]:
        plain, query = split_url(location)
        if '://' not in plain:
            plain = os.path.abspath(Path(plain).expanduser())
            plain = plain if not location.endswith('/') or plain == '/' else f'{plain}/'
        is_glob = (_URL_MAGIC if '://' in plain else _MAGIC).search(plain) is not None and not os.path.lexists(plain)
        if is_glob:
            root, pattern = _split_glob(plain)
            # URLs are written with or without %20 and the like.
            patterns = [_pattern(pattern), *([_pattern(unquote(pattern))] if '://' in plain else [])]
            found = self._list(f'{root}{query}', patterns)
        else:
            found = self._named(plain, query) or self._list(f'{plain}{query}', [])
        if not found:
            what = 'no file matches' if is_glob else 'there is no file, and no folder with files, at'
            raise NotFoundError(f'{what} {plain}')
        return found

    def _named(self, plain: str, query: str) -> list[InputFile]:
        """The file of that name; empty if it is none."""
        folder, _, name = plain.rpartition('/')
        if not name or folder.endswith(':/'):
            return []
        place = self._place(f'{folder or "/"}{query}')
        for key in dict.fromkeys([name, unquote(name)] if '://' in plain else [name]):
            with suppress(NotFoundError):
                info = self.store(place).head(key)
                return [InputFile(place, key, info.size, info.etag)]
        self._forget(place)
        return []

    def _list(self, root: str, patterns: 'Sequence[re.Pattern[str]]') -> list[InputFile]:
        place = self._place(root)
        if root.startswith(('http://', 'https://')) and self._is_web(place):
            return self._unlisted(place, is_glob=bool(patterns))
        return [
            InputFile(place, info.key, info.size, info.etag)
            for info in self.store(place).list()
            if (any(pattern.fullmatch(info.key) for pattern in patterns) if patterns else not _is_hidden(info.key))
        ]

    def _is_web(self, place: int) -> bool:
        """Whether a place is of a web server. One of a pre-authenticated request is a store with a listing."""
        from streaming.store.http import HTTPStore  # the network's packages, which most sources do without

        return isinstance(self._backend(place), HTTPStore)

    def _unlisted(self, place: int, *, is_glob: bool) -> list[InputFile]:
        """What can be found without a listing: a dataset, by its index.

        Raises:
            NotFoundError: there is none.
        """
        store = self.store(place)
        if is_glob:
            raise NotFoundError(f'{store.url} is on a web server, which has no listing that a glob could match: name each file')
        with suppress(NotFoundError):
            info = store.head(INDEX)
            return [InputFile(place, info.key, info.size, info.etag)]
        raise NotFoundError(
            f'there is no file at {store.url}, and no {INDEX} below it; a web server has no listing of folders: name each file'
        )

    def _place(self, url: str) -> int:
        if url not in self.places:
            self.places.append(url)
        return self.places.index(url)

    def _forget(self, place: int) -> None:
        if place == len(self.places) - 1:
            self.places.pop()
            self._stores.pop(place).close()

    def __getstate__(self) -> Mapping[str, Any]:
        # Each range goes to its reader with the key of its file.
        return {**self.__dict__, '_stores': {}, '_found': None}


def _read_here(path: str, size: int) -> bytes:
    """A file of this machine, in three calls of the system if it is as long as it was.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # One byte more: what comes back shorter than was asked for has met the end.
        data = os.read(descriptor, size + 1)
        while len(data) != size and (more := os.read(descriptor, _READ_BYTES)):
            data += more
        return data
    finally:
        os.close(descriptor)


def _is_hidden(key: str) -> bool:
    return key.startswith(('.', '_')) or '/.' in key or '/_' in key


def _split_glob(plain: str) -> tuple[str, str]:
    """The folder that holds all that can match, and the pattern below it."""
    parts = plain.split('/')
    first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
    return '/'.join(parts[:first]) or '/', '/'.join(parts[first:])


def _pattern(glob: str) -> 're.Pattern[str]':
    """A glob as a regular expression of keys: ``*`` and ``?`` stay within a folder, ``**`` does not."""
    text = ''
    at = 0
    while at < len(glob):
        if glob.startswith('**/', at):
            text, at = f'{text}(?:.*/)?', at + 3
        elif glob.startswith('**', at):
            text, at = f'{text}.*', at + 2
        elif glob[at] in '*?':
            text, at = f'{text}[^/]{"*" if glob[at] == "*" else ""}', at + 1
        elif glob[at] == '[' and (end := glob.find(']', at + 2)) > 0:
            inside = glob[at + 1 : end].replace('\\', '\\\\')
            text, at = f'{text}[{"^" + inside[1:] if inside[0] == "!" else inside}]', end + 1
        else:
            text, at = text + re.escape(glob[at]), at + 1
    return re.compile(text)


class _Ranged(io.RawIOBase):
    """An object as a file that is read by ranges."""

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        self._store, self._info = store, info
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._info.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast('B')
        count = min(len(view), self._info.size - self._at)
        if count <= 0:
            return 0
        self._store.read_into(self._info.key, self._at, view[:count], if_match=self._info.etag)
        self._at += count
        return count
