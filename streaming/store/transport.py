"""HTTP to one server, over a pool of connections: the plane on which stores read.

One request is one round trip. Bodies go straight into the caller's buffer and are counted, because the layers below are
silent about a body that was cut. Whoever drips or stalls is left: besides the limit on silence there is a floor on
throughput. Nothing is tried again here, nothing is signed, and no status is judged.
"""

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from streaming.errors import CorruptError, UnavailableError
from streaming.store.network import NETWORK_ERRORS, TransportSettings, network_error, proxy_of, trust
from streaming.store.wire import Answer, request_on_open_connection, size_of_body

__all__ = ['OpenConnections', 'Response', 'Transport']

# Callers hear of bytes at least this often while they come.
_REPORT_BYTES = 1 << 20
_REPORT_S = 0.2


class Response:
    """The head of an answer, and its body to come. Use it as a context manager: leaving it early gives up the
    connection.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
        size: Bytes of the body, None where the server does not say.
    """

    def __init__(self, raw: urllib3.BaseHTTPResponse | Answer, what: str, settings: TransportSettings) -> None:
        self._raw = raw
        self._what = what
        self._settings = settings
        self.status = raw.status
        # Those of an Answer are in lower case.
        self.headers = raw.headers if isinstance(raw, Answer) else {name.lower(): value for name, value in raw.headers.items()}
        self.size = size_of_body(self.headers)
        self._finished = False

    def __enter__(self) -> 'Response':
        return self

    def __exit__(self, *_: object) -> None:
        if not self._finished or self.headers.get('connection', '').lower() == 'close':
            self._raw.close()
        self._raw.release_conn()

    def read_into(self, buffer: memoryview, on_bytes: Callable[[int], None] | None = None) -> None:
        """Fill ``buffer`` with the body's next bytes.

        Raises:
            UnavailableError: the body broke off, stalled or dripped. What came has been reported to ``on_bytes``.
        """
        done = told = 0
        pace = _Pace(self._settings, self._what)
        receive = self._receiver()
        told_at = time.monotonic()
        try:
            while done < len(buffer):
                # Only this, not what `on_bytes` may raise, is the network's.
                try:
                    count = receive(buffer[done:])
                except NETWORK_ERRORS as error:
                    raise network_error(error, self._what, self._settings) from error
                if not count:
                    raise UnavailableError(f'{self._what}: the body broke off after {done} of {len(buffer)} bytes')
                done += count
                now = time.monotonic()
                pace.note(count, now)
                if on_bytes is not None and (done - told >= _REPORT_BYTES or now - told_at >= _REPORT_S):
                    told, told_at, news = done, now, done - told
                    on_bytes(news)
        except UnavailableError:
            if on_bytes is not None and done > told:
                on_bytes(done - told)
            raise
        if self.size is not None:
            self.size -= done
            if self.size == 0:
                self._finish()
        if on_bytes is not None and done > told:
            on_bytes(done - told)

    def read(self, limit_bytes: int | None = None) -> bytes:
        """The whole body.

        Raises:
            CorruptError: it is longer than ``limit_bytes``.
            UnavailableError: it broke off, stalled or dripped.
        """
        if self.size is not None:
            if limit_bytes is not None and self.size > limit_bytes:
                raise CorruptError(f'{self._what}: {self.size} bytes, more than the {limit_bytes} that can be right')
            # Filled in place; getvalue() then hands it out without a copy.
            whole = BytesIO(bytes(self.size))
            if self.size:
                with whole.getbuffer() as buffer:
                    self.read_into(buffer)
            else:
                self._finish()
            return whole.getvalue()
        pace = _Pace(self._settings, self._what)
        raw: Any = self._raw
        chunks: list[bytes] = []
        total = 0
        while True:
            try:
                # urllib3 takes chunks apart, and raises if the last one is missing.
                chunk = raw.read1(1 << 16)
            except NETWORK_ERRORS as error:
                raise network_error(error, self._what, self._settings) from error
            if not chunk:
                break
            chunks.append(chunk)
            total += len(chunk)
            pace.note(len(chunk), time.monotonic())
            if limit_bytes is not None and total > limit_bytes:
                raise CorruptError(f'{self._what}: more than the {limit_bytes} bytes that can be right')
        self._finish()
        return b''.join(chunks)

    def skip(self) -> None:
        """Take note that there is no body to come (of a HEAD, a 204, a 304)."""
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        body: Any = getattr(self._raw, '_fp', None)
        if body is not None:
            # Its own count of bytes was passed by; closed, it gives the connection free for the next request.
            body.close()

    def _receiver(self) -> Callable[[memoryview], int]:
        """What puts the bytes of one receive into a buffer: the socket's own reader, where it can be got at, without a copy."""
        raw: Any = self._raw
        if isinstance(raw, Answer):
            return raw.receive
        stream: Any = getattr(getattr(raw, '_fp', None), 'fp', None)
        plain = self.size is not None and hasattr(stream, 'readinto1')
        if plain:
            receive: Callable[[memoryview], int] = stream.readinto1
            return receive

        def copy(buffer: memoryview) -> int:
            data = raw.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)

        return copy


class _Pace:
    """Holds a body to the floor on throughput, by windows of ``timeout_s``."""

    def __init__(self, settings: TransportSettings, what: str) -> None:
        self._settings = settings
        self._what = what
        self._since = time.monotonic()
        self._bytes = 0

    def note(self, count: int, now: float) -> None:
        self._bytes += count
        spent = now - self._since
        if spent < self._settings.timeout_s:
            return
        if self._bytes < spent * self._settings.min_bytes_per_s:
            raise UnavailableError(
                f'{self._what}: {self._bytes} bytes in {spent:.1f} s, less than the {self._settings.min_bytes_per_s:g} '
                'bytes a second that a request must make'
            )
        self._since, self._bytes = now, 0


class Transport:
    """A pool of connections to one server. Any thread may use it; a forked process gets a pool of its own.

    Args:
        endpoint: ``http(s)://host[:port]``.
        settings: Limits. Default: TransportSettings().
    """

    def __init__(self, endpoint: str, settings: TransportSettings | None = None) -> None:
        self.endpoint = endpoint.rstrip('/')
        self.host = urlsplit(self.endpoint).netloc
        self.settings = settings or TransportSettings()
        self._by_process: dict[int, _Pool] = {}

    def __getstate__(self) -> tuple[str, TransportSettings]:
        return self.endpoint, self.settings

    def __setstate__(self, state: tuple[str, TransportSettings]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def request(self, method: str, target: str, headers: Mapping[str, str], *, what: str, body: bytes | None = None) -> Response:
        """Send a request and return with the head of its answer, whatever its status.

        Args:
            method: ``GET``, ``HEAD``...
            target: Path and query as they shall go over the wire.
            headers: Sent besides Host and Content-Length.
            what: Names the request in messages, without secrets.
            body: Sent whole. Default: None, none.

        Raises:
            UnavailableError: there was no answer.
            StoreError: the server's certificate is not to be trusted.
        """
        pool = self._pool()
        try:
            raw: urllib3.BaseHTTPResponse | Answer | None = None
            if body is None and not pool.absolute:
                raw = request_on_open_connection(pool.urllib3, method, target, headers, self.settings.timeout_s)
            if raw is None:
                raw = self._request_by_urllib3(pool, method, target, headers, body)
        except NETWORK_ERRORS as error:
            raise network_error(error, what, self.settings) from error
        return Response(raw, what, self.settings)

    def _request_by_urllib3(
        self, pool: '_Pool', method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> urllib3.BaseHTTPResponse:
        return pool.urllib3.urlopen(
            method,
            self.endpoint + target if pool.absolute else target,
            body=body,
            headers=dict(headers),
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            pool_timeout=self.settings.timeout_s,  # type: ignore[arg-type]  # seconds, as a float too
        )

    def close(self) -> None:
        """Close the connections; reads under way in other threads break off."""
        pool = self._by_process.pop(os.getpid(), None)
        if pool is not None:
            pool.close()

    def _pool(self) -> '_Pool':
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Pool(self.endpoint, self.settings))


class _Pool:
    """urllib3's pool of one process, and the sockets that it has open."""

    def __init__(self, endpoint: str, settings: TransportSettings) -> None:
        parts = urlsplit(endpoint)
        proxy = proxy_of(settings, endpoint)
        keywords: dict[str, Any] = {
            'maxsize': settings.connections,
            'block': True,
            'timeout': urllib3.Timeout(connect=min(settings.connect_timeout_s, settings.timeout_s), read=settings.timeout_s),
            'socket_options': _socket_options(settings.timeout_s),
        }
        if parts.scheme == 'https':
            keywords['ssl_context'] = trust(settings)
        if proxy:
            manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, proxy_headers=_proxy_headers(proxy), **keywords)
        else:
            manager = urllib3.PoolManager(**keywords)
        self._manager = manager
        self.urllib3 = manager.connection_from_url(endpoint)
        self.absolute = bool(proxy) and parts.scheme == 'http'
        self._connections = OpenConnections()
        self._connections.watch_pool(self.urllib3)

    def close(self) -> None:
        self._connections.shut()
        self._manager.clear()


class OpenConnections:
    """The connections of pools of urllib3, or of an SDK's copy of it, so that whoever waits for bytes on one can be woken.

    Any thread may use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()

    def watch_pool(self, pool: Any) -> None:
        """Remember the connections that a pool makes from now on."""
        make = pool.ConnectionCls

        def make_and_remember(*args: Any, **keywords: Any) -> Any:
            connection = make(*args, **keywords)
            with self._lock:
                self._connections.add(connection)
            return connection

        # An attribute of this one pool, called like the class that it stands for.
        pool.ConnectionCls = make_and_remember

    def watch_manager(self, manager: Any) -> None:
        """Remember the connections of all pools that a manager makes from now on."""

        def watched(kind: Any) -> Any:
            def make(*args: Any, **keywords: Any) -> Any:
                pool = kind(*args, **keywords)
                self.watch_pool(pool)
                return pool

            return make

        manager.pool_classes_by_scheme = {scheme: watched(kind) for scheme, kind in manager.pool_classes_by_scheme.items()}

    def shut(self) -> None:
        """End what goes on over them. Each will be made anew when it is next used."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _shut(connection.sock)


def _shut(open_socket: socket.socket | None) -> None:
    """End what goes on over a socket. Closing it would not wake a thread that waits for bytes, and could meet a number reused."""
    if open_socket is not None:
        with suppress(OSError):  # the other side has closed it already
            open_socket.shutdown(socket.SHUT_RDWR)


def _proxy_headers(proxy: str) -> dict[str, str]:
    """What a proxy is told of who comes: the user and the password in its URL."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    return urllib3.make_headers(proxy_basic_auth=f'{unquote(parts.username)}:{unquote(parts.password or "")}')


def _socket_options(timeout_s: float) -> list[tuple[int, int, int]]:
    """Nagle off; and a connection that a router has forgotten is noticed although nobody says so."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (('TCP_KEEPIDLE', 30), ('TCP_KEEPINTVL', 10), ('TCP_KEEPCNT', 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    if hasattr(socket, 'TCP_USER_TIMEOUT'):
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000)))
    return options
