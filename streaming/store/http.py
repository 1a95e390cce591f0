"""Objects that a web server gives away: `https://host/path`, read-only, by range where the server does ranges.

The query of the URL goes with every request (signed URLs keep their signature there) and never into a message. A server has no
listing; whoever reads a dataset by its index needs none.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from streaming.errors import (
    ArgumentError,
    CorruptError,
    CredentialsError,
    DeniedError,
    NotFoundError,
    PreconditionError,
    StoreError,
    ThrottledError,
    UnavailableError,
)
from streaming.store.network import TransportSettings, parse_retry_after, split_transport
from streaming.store.options import refuse_unknown, without_secrets
from streaming.store.protocol import ObjectInfo, Store, check_key, check_prefix, check_range
from streaming.store.ranges import range_header, read_range
from streaming.store.transport import Response, Transport

__all__ = ['HTTPStore', 'kind_of_status']

_REDIRECTS = 5
_DEFAULT_LIMITS = TransportSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPOptions:
    """A folder of a web server.

    Args:
        root: ``http(s)://host[:port]/folder``, percent-encoded, without user and query.
        url: For messages.
        query: Goes with every request, percent-encoded. May be a secret.
        headers: Go with every request to this host. May hold secrets.
        transport: Limits of the connections.
    """

    root: str
    url: str
    query: str = field(default='', repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    transport: TransportSettings = _DEFAULT_LIMITS

    @classmethod
    def parse(cls, url: str, options: Mapping[str, object]) -> 'HTTPOptions':
        """Fold a URL, its user and password perhaps, and the options ``headers``, ``timeout_s`` and the connections' others.

        Raises:
            ArgumentError: a URL or an option that cannot work.
        """
        transport, values = split_transport(url, options)
        refuse_unknown(url, values, ['headers'])
        given = values.get('headers', {})
        if not isinstance(given, Mapping):
            raise ArgumentError(f'{without_secrets(url)}: headers must be a mapping')
        headers = {str(name).lower(): str(value) for name, value in given.items()}
        parts = urlsplit(url)
        user, at, place = parts.netloc.rpartition('@')
        if not place or parts.fragment:
            raise ArgumentError(f'{without_secrets(url)} is not of the form http(s)://host/path')
        if at:
            token = base64.b64encode(unquote(user).encode()).decode()
            headers.setdefault('authorization', f'Basic {token}')
        root = f'{parts.scheme}://{place}{quote(unquote(parts.path), safe="/").rstrip("/")}'
        return cls(root=root, url=without_secrets(root), query=parts.query, headers=headers, transport=transport)


class HTTPStore(Store):
    """A folder of a web server, for reading.

    Args:
        options: Where and how.
    """

    def __init__(self, options: HTTPOptions) -> None:
        self.options = options
        self.url = options.url
        # Endpoint -> its connections: the server's own, and those that it redirects to.
        self._transports: dict[str, Transport] = {}

    @classmethod
    def open(cls, url: str, options: Mapping[str, object]) -> Store:
        """Make the store of an ``http(s)://`` URL; one of a pre-authenticated request makes an OCIStore.

        Raises:
            ArgumentError: a URL or an option that cannot work.
        """
        from streaming.store.oci.par import PAR, is_par_url

        if is_par_url(url):
            from streaming.store.oci import OCIStore

            par = PAR.parse(url)
            place = f'oci://{quote(par.bucket)}@{quote(par.namespace)}/{quote(par.prefix)}'
            return OCIStore.open(place, {**options, 'par_url': url})
        return cls(HTTPOptions.parse(url, options))

    def __getstate__(self) -> HTTPOptions:
        return self.options

    def __setstate__(self, options: HTTPOptions) -> None:
        self.__init__(options)  # type: ignore[misc]

    def head(self, key: str) -> ObjectInfo:
        what = f'HEAD {self.url_of(key)}'
        try:
            with self._send('HEAD', key, what) as response:
                response.skip()
                size, etag = response.size, _etag(response)
        except StoreError as error:
            # A URL that is signed for GET alone; a server that knows no HEAD.
            if error.status not in (403, 405, 501):
                raise
            size, etag = self._head_of_range(key, error)
        if size is None:
            raise StoreError(f'{what}: the server does not say how long it is')
        return ObjectInfo(key, size, etag)

    def _head_of_range(self, key: str, error: StoreError) -> tuple[int | None, str | None]:
        """Size and version from an answer to a request for the first byte.

        Raises:
            StoreError: ``error``, where that is not answered either.
        """
        what = f'GET {self.url_of(key)}, bytes 0 to 1'
        try:
            with self._send('GET', key, what, {'range': range_header(0, 1)}) as response:
                if response.status != 206:
                    return response.size, _etag(response)
                return read_range(response, 0, memoryview(bytearray(1)), None, what), _etag(response)
        except (StoreError, CorruptError):
            raise error from None

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        with self._send('GET', key, f'GET {self.url_of(key)}') as response:
            return response.read(limit_bytes)

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
            # A version is an ETag, or a date where the server has none.
            headers['if-match' if if_match.startswith('"') else 'if-unmodified-since'] = if_match
        with self._send('GET', key, what, headers) as response:
            # An answer to a range need not repeat the date.
            if if_match is not None and _etag(response) not in (None, if_match):
                raise PreconditionError(f'{what}: it is not the version {if_match} any more')
            size = read_range(response, start, buffer, on_bytes, what)
            return None if size is None else ObjectInfo(key, size, _etag(response))

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        raise DeniedError(f'PUT {self.url_of(check_key(key))}: a web server is only read')

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        raise StoreError(f'LIST {self.url_of(check_prefix(prefix))}: a web server has no listing')

    def delete(self, key: str) -> None:
        raise DeniedError(f'DELETE {self.url_of(check_key(key))}: a web server is only read')

    def close(self) -> None:
        for transport in list(self._transports.values()):
            transport.close()

    def _send(self, method: str, key: str, what: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer to a request for an object."""
        query = f'?{self.options.query}' if self.options.query else ''
        return self._request(method, f'{self.options.root}/{quote(check_key(key), safe="/")}{query}', what, headers)

    def _request(
        self, method: str, url: str, what: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """The answer, of a status below 300, after redirections."""
        own = {'accept': '*/*', 'accept-encoding': 'identity', **(headers or {})}
        home = urlsplit(self.options.root).netloc
        for _ in range(_REDIRECTS + 1):
            parts = urlsplit(url)
            if parts.scheme not in ('http', 'https'):
                raise StoreError(f'{what}: redirected to {parts.scheme}:')
            # Secrets stay with the host that they were given for.
            sent = {**own, **self.options.headers} if parts.netloc == home else own
            transport = self._transport(f'{parts.scheme}://{parts.netloc}')
            target = (parts.path or '/') + (f'?{parts.query}' if parts.query else '')
            response = transport.request(method, target, sent, what=what, body=body)
            if response.status < 300:
                return response
            with response:
                if method == 'HEAD':
                    response.skip()
                if response.status in (301, 302, 303, 307, 308) and 'location' in response.headers:
                    url = urljoin(url, response.headers['location'])
                    continue
                raise _error_of(response, what)
        raise StoreError(f'{what}: redirected more than {_REDIRECTS} times')

    def _transport(self, endpoint: str) -> Transport:
        found = self._transports.get(endpoint)
        return found or self._transports.setdefault(endpoint, Transport(endpoint, self.options.transport))


def _etag(response: Response) -> str | None:
    return response.headers.get('etag') or response.headers.get('last-modified')


def _error_of(response: Response, what: str) -> StoreError | CorruptError:
    status = response.status
    if status == 416:
        return CorruptError(f'{what}: {status}: the object ends before the range does')
    error = kind_of_status(status)(f'{what}: the server answered {status}')
    error.status = status
    error.retry_after_s = parse_retry_after(response.headers.get('retry-after'))
    return error


def kind_of_status(status: int) -> type[StoreError]:
    """The kind of error that an HTTP status means where nothing more is known."""
    if status == 429 or status == 503:
        return ThrottledError
    if status >= 500 or status in (408, 409):
        return UnavailableError
    known: dict[int, type[StoreError]] = {
        401: CredentialsError,
        403: DeniedError,
        404: NotFoundError,
        410: NotFoundError,
        412: PreconditionError,
    }
    return known.get(status, StoreError)
