"""Objects in a bucket of OCI Object Storage: `oci://bucket@namespace/prefix`.

Reads go over our own connections, one round trip each. Writes go through the SDK's client (see `sdk`), parts of large objects
too.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from streaming.errors import CorruptError, NotFoundError, StoreError, UnavailableError
from streaming.store.oci.headers import base64_md5, multipart_md5, sse_headers
from streaming.store.oci.options import OCIOptions
from streaming.store.oci.par import PARWriter
from streaming.store.oci.sdk import SDKWriter
from streaming.store.oci.session import Session
from streaming.store.parts import Part, PartsStore
from streaming.store.protocol import ObjectInfo, check_key, check_prefix, check_range
from streaming.store.ranges import WHOLE, range_header, read_range, read_whole
from streaming.store.transport import Response

__all__ = ['OCIStore']

_PAGE_BYTES = 16 << 20


class OCIStore(PartsStore):
    """A bucket, or a prefix in it.

    No request is made and nothing is imported or parsed before the first call. It pickles without anything live; each process
    logs in for itself.

    Args:
        options: Where and how.

    Attributes:
        page: Keys asked for in one request of a listing.
    """

    page = 1000

    def __init__(self, options: OCIOptions) -> None:
        self.options = options
        self.url = options.url
        self.single_put_bytes = options.single_put_bytes
        self.part_bytes = options.part_bytes
        # What a session found and another process need not find again; no secrets.
        self._endpoint: str | None = None
        self._namespace: str | None = None
        self._by_process: dict[int, tuple[Session, SDKWriter | PARWriter]] = {}

    @classmethod
    def open(cls, url: str, options: Mapping[str, object]) -> 'OCIStore':
        """Make the store of an ``oci://`` URL; see OCIOptions for the options.

        Raises:
            ArgumentError: a URL or an option that cannot work.
        """
        return cls(OCIOptions.parse(url, options))

    def __getstate__(self) -> tuple[OCIOptions, str | None, str | None]:
        self._note_findings()
        return self.options, self._endpoint, self._namespace

    def __setstate__(self, state: tuple[OCIOptions, str | None, str | None]) -> None:
        self.__init__(state[0])  # type: ignore[misc]
        self._endpoint, self._namespace = state[1:]

    def _planes(self) -> tuple[Session, SDKWriter | PARWriter]:
        pid = os.getpid()
        found = self._by_process.get(pid)
        if found is None:
            session = Session(self.options, self._endpoint, self._namespace)
            found = self._by_process.setdefault(pid, (session, PARWriter(session) if session.is_par else SDKWriter(session)))
        return found

    def _note_findings(self) -> None:
        for session, _ in list(self._by_process.values()):
            self._endpoint = session.transport.endpoint
            self._namespace = session.known_namespace

    def _send(self, method: str, target: str, what: str, headers: dict[str, str] | None = None) -> Response:
        session = self._planes()[0]
        response = session.send(method, target, what=what, headers={**sse_headers(self.options), **(headers or {})})
        return response

    def _target(self, key: str) -> str:
        return f'{self._planes()[0].bucket_target()}/o/{quote(self.options.prefix + check_key(key), safe="")}'

    # Reading

    def head(self, key: str) -> ObjectInfo:
        what = f'HEAD {self.url_of(key)}'
        with self._send('HEAD', self._target(key), what) as response:
            response.skip()
            if response.size is None:
                raise StoreError(f'{what}: the answer does not say how long the object is')
            return ObjectInfo(key, response.size, response.headers.get('etag'))

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        what = f'GET {self.url_of(key)}'
        try:
            response = self._send('GET', self._target(key), what, {'range': WHOLE})
        except CorruptError:
            response = self._send('GET', self._target(key), what)  # it is empty
        with response:
            data = read_whole(response, limit_bytes, what)
            wanted = response.headers.get('content-md5')
        if wanted is not None and wanted != base64_md5(data):
            raise UnavailableError(f'{what}: its bytes have the MD5 {base64_md5(data)}, the service says {wanted}')
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
        what = f'GET {self.url_of(key)}, bytes {start} to {start + len(buffer)}'
        headers = {'range': range_header(start, len(buffer))}
        if if_match is not None:
            headers['if-match'] = if_match
        with self._send('GET', self._target(key), what, headers) as response:
            size = read_range(response, start, buffer, on_bytes, what)
            return None if size is None else ObjectInfo(key, size, response.headers.get('etag'))

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, after)

    def _list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        what = f'LIST {self.url_of(prefix)}'
        root = self.options.prefix
        query = {'prefix': root + prefix, 'fields': 'name,size,etag', 'limit': str(self.page)}
        if after:
            query['start'] = root + after
        while True:
            query = {name: value for name, value in query.items() if value}
            target = f'{self._planes()[0].bucket_target()}/o?{urlencode(query, quote_via=quote)}'
            with self._send('GET', target, what) as response:
                page = _parse_page(response.read(_PAGE_BYTES), what)
            for item in page['objects']:
                key = str(item['name'])[len(root) :]
                # The folders that the console makes are empty objects whose names end in a slash.
                if key > after and not key.endswith('/'):
                    yield ObjectInfo(key, int(item['size']), item.get('etag'))
            if not page.get('nextStartWith'):
                return
            query['start'] = str(page['nextStartWith'])

    # Writing

    def put_whole(self, key: str, data: bytes, *, overwrite: bool) -> ObjectInfo:
        etag = self._planes()[1].put(self.options.prefix + check_key(key), data, overwrite, self.url_of(key))
        return ObjectInfo(key, len(data), etag)

    def begin_parts(self, key: str, *, overwrite: bool) -> str:
        return self._planes()[1].begin(self.options.prefix + key, overwrite, self.url_of(key))

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        return self._planes()[1].put_part(self.options.prefix + key, upload, number, data, self.url_of(key))

    def commit_parts(self, key: str, upload: str, parts: Sequence[Part], size: int, *, overwrite: bool) -> ObjectInfo:
        etag = self._planes()[1].commit(self.options.prefix + key, upload, parts, overwrite, self.url_of(key))
        return ObjectInfo(key, size, etag)

    def find_made_of(self, key: str, parts: Sequence[Part], size: int) -> ObjectInfo | None:
        try:
            with self._send('HEAD', self._target(key), f'HEAD {self.url_of(key)}') as response:
                response.skip()
                if response.headers.get('opc-multipart-md5') == multipart_md5(parts) and response.size == size:
                    return ObjectInfo(key, size, response.headers.get('etag'))
        except NotFoundError:
            pass
        return None

    def abort_parts(self, key: str, upload: str) -> None:
        self._planes()[1].abort(self.options.prefix + key, upload, self.url_of(key))

    def delete(self, key: str) -> None:
        self._planes()[1].delete(self.options.prefix + check_key(key), self.url_of(key))

    def close(self) -> None:
        self._note_findings()
        found = self._by_process.pop(os.getpid(), None)
        if found is not None:
            found[0].close()
            found[1].close()


def _parse_page(data: bytes, what: str) -> dict[str, Any]:
    try:
        page: Any = json.loads(data)
    except ValueError as error:
        raise UnavailableError(f'{what}: the answer is not JSON') from error
    if not isinstance(page, dict) or not isinstance(page.get('objects'), list):
        raise CorruptError(f'{what}: the answer is not a listing')
    return page
