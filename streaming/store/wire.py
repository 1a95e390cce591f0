"""A request on a connection that is open already, and the head of its answer: three calls of the system.

urllib3 makes connections and keeps them; a request and a head take it and http.client two hundred microseconds of a processor, of
which this needs a fifth. What is not plain goes the long way. Before anything is sent: a target that is yet to be encoded, a
header that is none. From its first byte: an answer in chunks, without a length, or of an older protocol.
"""

import io
import re
import socket
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any

import urllib3
from urllib3._version import __version__
from urllib3.exceptions import ProtocolError

__all__ = ['Answer', 'request_on_open_connection', 'size_of_body']

# Of these alone urllib3 changes nothing.
_TARGET = re.compile(r"/(?:[\w.~!$&'()*+,;=:@/-]|%[0-9A-F]{2})*(?:\?(?:[\w.~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*)?", re.ASCII)
_HEADER = re.compile(r'[\w-]+: [\t\x20-\x7e\xa0-\xff]*', re.ASCII)
_END_OF_HEAD = re.compile(rb'\n\r?\n')
_STATUS = re.compile(r'HTTP/1\.1 ([2-5]\d\d)(?: .*)?')
_HEAD_BYTES = 1 << 16
_LENGTH = re.compile(r'[0-9]{1,18}')
_USER_AGENT = f'python-urllib3/{__version__}'
_PORTS = {'http': 80, 'https': 443}


class Answer:
    """An answer whose body, if it has one, has a length. In what it offers it is like urllib3's.

    Args:
        pool: Where the connection goes when it is given back.
        connection: It has been asked, and has answered.
        status: HTTP status.
        headers: By lower-case name.
        rest: What came after the head.
    """

    def __init__(self, pool: Any, connection: Any, status: int, headers: dict[str, str], rest: memoryview) -> None:
        self.status = status
        self.headers = headers
        self._pool = pool
        self._connection = connection
        self._socket: socket.socket = connection.sock
        self._rest = rest

    def receive(self, buffer: memoryview) -> int:
        """Put the bytes of one receive into a buffer that is not longer than what is to come; 0 if the connection has ended."""
        if not self._rest:
            return self._socket.recv_into(buffer)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Give up the connection."""
        if self._connection is not None:
            self._connection.close()

    def release_conn(self) -> None:
        """Let others have the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._rest:  # more than there should be
                connection.close()
            self._pool._put_conn(connection)


def request_on_open_connection(
    pool: Any, method: str, target: str, headers: Mapping[str, str], timeout_s: float
) -> Answer | urllib3.HTTPResponse | None:
    """Send a request without a body and return the answer, its body to come; None, and nothing is sent, if that is not plain
    or no connection is open.

    Args:
        pool: Of urllib3, to one server.
        method: ``GET``, ``HEAD``...
        target: Path and query.
        headers: Sent besides those that urllib3 adds.
        timeout_s: Seconds to wait for a connection while all are in use.

    Raises:
        OSError, HTTPError: the connection broke, or all were in use.
    """
    head = _write_head(pool, method, target, headers)
    if head is None:
        return None
    connection = pool._get_conn(timeout_s)
    if connection.sock is None:
        pool._put_conn(connection)
        return None
    try:
        connection.sock.sendall(head)
        return _read_head(pool, connection, method)
    except BaseException:  # half an answer may be on it: no other request must have it
        connection.close()
        pool._put_conn(None)
        raise


def _write_head(pool: Any, method: str, target: str, headers: Mapping[str, str]) -> bytes | None:
    if _TARGET.fullmatch(target) is None or not pool.host.isascii():
        return None
    names = {name.lower() for name in headers}
    lines = [] if 'host' in names else [f'Host: {_host(pool)}']
    if 'accept-encoding' not in names:
        lines.append('Accept-Encoding: identity')
    if 'user-agent' not in names:
        lines.append(f'User-Agent: {_USER_AGENT}')
    lines += [f'{name}: {value}' for name, value in headers.items()]
    if not all(map(_HEADER.fullmatch, lines)):
        return None
    return '\r\n'.join((f'{method} {target} HTTP/1.1', *lines, '\r\n')).encode('latin-1')


def _host(pool: Any) -> str:
    name = f'[{pool.host}]' if ':' in pool.host else pool.host
    return name if pool.port in (None, _PORTS.get(pool.scheme)) else f'{name}:{pool.port}'


def _read_head(pool: Any, connection: Any, method: str) -> Answer | urllib3.HTTPResponse:
    data = b''
    while (end := _END_OF_HEAD.search(data)) is None:
        if len(data) > _HEAD_BYTES:
            return _go_the_long_way(pool, connection, method, data)
        chunk = connection.sock.recv(_HEAD_BYTES)
        if not chunk:
            raise RemoteDisconnected('Remote end closed connection without response')
        data += chunk
    first, *lines = data[: end.start()].decode('latin-1').split('\n')
    status = _STATUS.fullmatch(first.rstrip('\r'))
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(':')
        name = name.lower()
        if not colon or name[:1] in ' \t' or (name == 'content-length' and name in headers):
            status = None
        headers[name] = value.strip()
    if status is None or not _has_plain_body(int(status[1]), headers, method):
        return _go_the_long_way(pool, connection, method, data)
    return Answer(pool, connection, int(status[1]), headers, memoryview(data)[end.end() :])


def _has_plain_body(status: int, headers: Mapping[str, str], method: str) -> bool:
    if method == 'HEAD':
        return True
    return status not in (204, 304) and size_of_body(headers) is not None


def size_of_body(headers: Mapping[str, str]) -> int | None:
    """What the headers of an answer, by lower-case name, say of its body's bytes; None where they do not."""
    length = headers.get('content-length', '')
    # Not isdigit(), which is true of digits that int() does not take, and of more than it takes.
    return int(length) if _LENGTH.fullmatch(length) and 'transfer-encoding' not in headers else None


def _go_the_long_way(pool: Any, connection: Any, method: str, data: bytes) -> urllib3.HTTPResponse:
    """Let http.client read an answer of which these bytes have come."""
    original = HTTPResponse(_Replay(data, connection.sock), method=method)  # type: ignore[arg-type]
    try:
        original.begin()
    except HTTPException as error:
        raise ProtocolError('Connection aborted.', error) from error
    headers = urllib3.HTTPHeaderDict(original.msg.items())
    if original.will_close:
        headers['connection'] = 'close'
    return urllib3.HTTPResponse(
        original,
        headers,
        original.status,
        preload_content=False,
        decode_content=False,
        original_response=original,
        pool=pool,
        connection=connection,
        request_method=method,
    )


class _Replay(io.RawIOBase):
    """Bytes that have come, and then a socket's; as http.client wants a socket."""

    def __init__(self, data: bytes, source: socket.socket) -> None:
        self._data = memoryview(data)
        self._source = source

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data:
            return self._source.recv_into(buffer)
        count = min(len(buffer), len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count
