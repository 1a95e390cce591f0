"""Volumes of Databricks: `dbfs:/Volumes/catalog/schema/volume/path`, through the workspace's Files API.

Host and token are DATABRICKS_HOST and DATABRICKS_TOKEN, or the options ``host`` and ``token``. Other `dbfs:/` paths go through
fsspec. What is here follows the API's documentation; it has met a stand-in only, never a workspace.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from streaming.errors import AlreadyExistsError, CredentialsError, NotFoundError, StoreError, UnavailableError
from streaming.store.fsspec import FsspecStore
from streaming.store.http import HTTPOptions, HTTPStore
from streaming.store.parts import size_of
from streaming.store.protocol import ObjectInfo, Store, check_key, check_prefix

__all__ = ['DatabricksStore']

_PAGE_BYTES = 16 << 20


class DatabricksStore(HTTPStore):
    """A folder of a volume.

    Args:
        options: The workspace's files as an HTTP store sees them; the token is in the headers.
        path: ``/Volumes/...``, without a slash at its end.
    """

    def __init__(self, options: HTTPOptions, path: str) -> None:
        super().__init__(options)
        self.path = path
        self.url = f'dbfs:{path}'

    @classmethod
    def open(cls, url: str, options: Mapping[str, object]) -> Store:
        """Make the store of a ``dbfs:/`` URL. Options: ``host``, ``token``, and those of the connections.

        Raises:
            CredentialsError: no host or no token is known.
        """
        path = unquote('/' + url.partition(':')[2].lstrip('/')).rstrip('/')
        if not path.startswith('/Volumes/'):
            return FsspecStore.open(f'dbfs://{path}', options)
        check_key(path[1:])
        values = dict(options)
        host = str(values.pop('host', None) or os.environ.get('DATABRICKS_HOST') or '')
        token = values.pop('token', None) or os.environ.get('DATABRICKS_TOKEN')
        if not host or not token:
            raise CredentialsError(f'dbfs:{path}: set DATABRICKS_HOST and DATABRICKS_TOKEN, or give the options host and token')
        host = (host if '://' in host else f'https://{host}').rstrip('/')
        values['headers'] = {'authorization': f'Bearer {token}'}
        return cls(HTTPOptions.parse(f'{host}/api/2.0/fs/files{quote(path)}', values), path)

    def __getstate__(self) -> Any:
        return self.options, self.path

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        what, size = f'PUT {self.url_of(key)}', size_of(source)
        data = source.read_bytes() if isinstance(source, Path) else source
        folder = f'{self.path}/{check_key(key)}'.rpartition('/')[0]
        with self._request('PUT', self._directories(folder), f'make the folder of {self.url_of(key)}', body=b'') as response:
            response.read()
        headers = {'content-type': 'application/octet-stream'}
        url = f'{self.options.root}/{quote(key)}?overwrite={"true" if overwrite else "false"}'
        try:
            with self._request('PUT', url, what, headers, data) as response:
                response.read()
        except StoreError as error:
            if error.status == 409 and not overwrite:
                raise AlreadyExistsError(f'{what}: it exists already') from error
            raise
        found = self.head(key)
        if found.size != size:
            raise UnavailableError(f'{what}: {found.size} of {size} bytes were stored')
        return found

    def delete(self, key: str) -> None:
        with suppress(NotFoundError), self._send('DELETE', key, f'DELETE {self.url_of(key)}') as response:
            response.read()

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        folder = prefix.rpartition('/')[0]
        return self._walk(f'{folder}/' if folder else '', prefix, after)

    def _walk(self, base: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Objects below ``base`` by key, folder by folder."""
        entries = {base + str(entry['name']) + ('/' if entry.get('is_directory') else ''): entry for entry in self._entries(base)}
        for key in sorted(entries):
            if key.endswith('/'):
                if (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                    yield from self._walk(key, prefix, after)
            elif key.startswith(prefix) and key > after:
                yield ObjectInfo(key, int(entries[key]['file_size']), _version(entries[key]))

    def _entries(self, base: str) -> Iterator[dict[str, Any]]:
        what, token = f'LIST {self.url_of(base)}', ''
        while True:
            query = f'?{urlencode({"page_token": token})}' if token else ''
            try:
                with self._request('GET', self._directories(f'{self.path}/{base}'.rstrip('/')) + query, what) as response:
                    page: Any = json.loads(response.read(_PAGE_BYTES))
            except NotFoundError:
                return  # a folder that does not exist holds nothing
            yield from page.get('contents', ())
            token = page.get('next_page_token') or ''
            if not token:
                return

    def _directories(self, path: str) -> str:
        host = self.options.root.partition('/api/')[0]
        return f'{host}/api/2.0/fs/directories{quote(path)}'


def _version(entry: Mapping[str, Any]) -> str | None:
    """As in the Last-Modified header of the file itself."""
    modified = entry.get('last_modified')
    return None if modified is None else formatdate(int(modified) // 1000, usegmt=True)
