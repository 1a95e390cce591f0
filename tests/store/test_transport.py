"""The transport against a server that does just what a test tells it to, byte by byte."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate

import pytest

from streaming.errors import ArgumentError, CorruptError, StoreError, UnavailableError
from streaming.store.network import TransportSettings, parse_retry_after
from streaming.store.ranges import range_header, read_range
from streaming.store.transport import Transport

Answer = Callable[[socket.socket, bytes], bool]


class Scripted:
    """Answers each request by the next of its answers, and by the last one from then on."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.endpoint = f'http://127.0.0.1:{self._listener.getsockname()[1]}'
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        data = b''
        with connection:
            while True:
                try:
                    while b'\r\n\r\n' not in data:
                        chunk = connection.recv(65536)
                        if not chunk:
                            return
                        data += chunk
                    request, _, data = data.partition(b'\r\n\r\n')
                    self.requests.append(request)
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    if not answer(connection, request):
                        return
                except OSError:
                    return

    def stop(self) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.stop()


def whole(body: bytes, status: str = '200 OK', extra: str = '', length: int | None = None) -> Answer:
    """An answer; with a ``length`` that is not the body's, the connection is closed after it."""

    def answer(connection: socket.socket, _: bytes) -> bool:
        size = len(body) if length is None else length
        connection.sendall(f'HTTP/1.1 {status}\r\ncontent-length: {size}\r\n{extra}\r\n'.encode() + body)
        return size == len(body)

    return answer


def reset(connection: socket.socket, _: bytes) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    return False


def read(transport: Transport, size: int, seen: list[int] | None = None) -> bytes:
    buffer = memoryview(bytearray(size))
    with transport.request('GET', '/x', {}, what='GET x') as response:
        response.read_into(buffer, seen.append if seen is not None else None)
    return bytes(buffer)


def test_a_connection_is_used_again(server: Scripted) -> None:
    server.answers = [whole(b'x' * 300_000)]
    transport = Transport(server.endpoint)
    for _ in range(5):
        assert read(transport, 300_000) == b'x' * 300_000
        with transport.request('GET', '/x', {}, what='GET x') as response:
            assert response.read() == b'x' * 300_000
    assert server.connections == 1
    transport.close()
    assert read(transport, 300_000) == b'x' * 300_000
    assert server.connections == 2
    transport.close()


def test_a_target_goes_over_the_wire_as_it_is(server: Scripted) -> None:
    server.answers = [whole(b'')]
    transport = Transport(server.endpoint)
    target = '/n/a%2Fb/..%2F~%20%C3%BC?x=%2B&y=a%2Fb'
    with transport.request('HEAD', target, {'x-own': 'value'}, what='HEAD') as response:
        response.skip()
    assert server.requests[0].startswith(f'HEAD {target} HTTP/1.1\r\n'.encode())
    assert b'x-own: value' in server.requests[0]
    transport.close()


def test_a_body_left_early_gives_up_its_connection(server: Scripted) -> None:
    server.answers = [whole(b'x' * 10_000_000)]
    transport = Transport(server.endpoint, TransportSettings(connections=1))
    for _ in range(3):
        with transport.request('GET', '/x', {}, what='GET x') as response:
            response.read_into(memoryview(bytearray(10)))
    assert server.connections == 3
    transport.close()


@pytest.mark.parametrize('size', [0, 1, 299_999])
def test_a_cut_body_is_noticed(server: Scripted, size: int) -> None:
    server.answers = [whole(b'x' * size, length=300_000)]
    transport = Transport(server.endpoint)
    seen: list[int] = []
    with pytest.raises(UnavailableError, match=rf'broke off after {size} of 300000'):
        read(transport, 300_000, seen)
    assert sum(seen) == size
    with pytest.raises(UnavailableError), transport.request('GET', '/x', {}, what='GET x') as response:
        response.read()
    transport.close()


def test_a_reset_before_the_head(server: Scripted) -> None:
    server.answers = [reset]
    transport = Transport(server.endpoint)
    with pytest.raises(UnavailableError, match='GET x'):
        read(transport, 1)
    transport.close()


def test_silence_has_an_end(server: Scripted) -> None:
    def stall(connection: socket.socket, _: bytes) -> bool:
        server.stopping.wait(60)
        return False

    def stall_in_body(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n' + b'x' * 1000)
        server.stopping.wait(60)
        return False

    transport = Transport(server.endpoint, TransportSettings(timeout_s=0.3))
    for answer in (stall, stall_in_body):
        server.answers = [answer]
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r'no byte came for 0\.3 s'):
            read(transport, 100_000)
        assert time.monotonic() - began < 20  # the server is silent for a minute
    transport.close()


def test_a_drip_has_an_end(server: Scripted) -> None:
    def drip(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n')
        while not server.stopping.wait(0.02):
            connection.sendall(b'x' * 20)  # 1 kB/s: all of it in 100 s
        return False

    server.answers = [drip]
    transport = Transport(server.endpoint, TransportSettings(timeout_s=1.0))
    seen: list[int] = []
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r'less than the 8192 bytes a second'):
        read(transport, 100_000, seen)
    assert time.monotonic() - began < 20
    assert 0 < sum(seen) < 20_000
    transport.close()


def test_closing_wakes_whoever_reads(server: Scripted, within: Callable[[float, Callable[[], float]], None]) -> None:
    def stall_in_body(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nx')
        server.stopping.wait(30)
        return False

    def stall(connection: socket.socket, _: bytes) -> bool:
        server.stopping.wait(30)
        return False

    transport = Transport(server.endpoint)

    def seconds_to_close() -> float:
        server.requests.clear()
        server.answers = [stall_in_body, stall, stall_in_body, stall]
        with ThreadPoolExecutor(4) as pool:
            reads = [pool.submit(read, transport, 100_000) for _ in range(4)]
            deadline = time.monotonic() + 30
            while len(server.requests) < 4 and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            began = time.monotonic()
            transport.close()
            for future in reads:
                with pytest.raises(UnavailableError):
                    future.result(20)
            return time.monotonic() - began

    within(1.0, seconds_to_close)


def test_what_a_callback_raises_is_not_the_networks(server: Scripted) -> None:
    class Mine(OSError):
        pass

    def stop(count: int) -> None:
        raise Mine

    server.answers = [whole(b'x' * 100)]
    transport = Transport(server.endpoint)
    with pytest.raises(Mine), transport.request('GET', '/x', {}, what='GET x') as response:
        response.read_into(memoryview(bytearray(100)), stop)
    assert read(transport, 100) == b'x' * 100
    transport.close()


def test_a_chunked_body(server: Scripted) -> None:
    chunked = b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'

    def good(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(chunked + b'5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n')
        return True

    def cut(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(chunked + b'5\r\nhello\r\n6\r\n wo')
        return False

    transport = Transport(server.endpoint)
    server.answers = [good]
    with transport.request('GET', '/x', {}, what='GET x') as response:
        assert response.read() == b'hello world'
    with pytest.raises(CorruptError), transport.request('GET', '/x', {}, what='GET x') as response:
        response.read(limit_bytes=10)
    server.answers = [cut]
    with pytest.raises(UnavailableError), transport.request('GET', '/x', {}, what='GET x') as response:
        response.read()
    transport.close()


def test_more_threads_than_connections(server: Scripted) -> None:
    server.answers = [whole(b'x' * 1000)]
    transport = Transport(server.endpoint, TransportSettings(connections=2))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: read(transport, 1000), range(50))) == [b'x' * 1000] * 50
    assert server.connections <= 2
    transport.close()


def test_what_is_not_http(server: Scripted) -> None:
    def garbage(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(b'SSH-2.0-OpenSSH_9.6\r\n')
        return False

    server.answers = [garbage]
    transport = Transport(server.endpoint)
    with pytest.raises(UnavailableError):
        read(transport, 1)
    transport.close()


def test_a_proxy_of_the_environment(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [whole(b'through the proxy')]
    monkeypatch.setenv('http_proxy', server.endpoint)
    monkeypatch.setenv('no_proxy', 'direct.invalid')
    transport = Transport('http://store.invalid:8080')
    assert read(transport, 17) == b'through the proxy'
    assert server.requests[0].startswith(b'GET http://store.invalid:8080/x HTTP/1.1\r\n')
    transport.close()
    with pytest.raises(UnavailableError):
        read(Transport('http://direct.invalid'), 1)
    with pytest.raises(UnavailableError):
        read(Transport('http://store.invalid', TransportSettings(proxy='')), 1)


@pytest.mark.parametrize('bad', [{'timeout_s': 0}, {'connections': 0}, {'min_bytes_per_s': -1}])
def test_limits_that_cannot_work(bad: dict[str, int]) -> None:
    with pytest.raises(ArgumentError):
        TransportSettings(**bad)


def test_when_to_come_back() -> None:
    assert [parse_retry_after(value) for value in (None, '', '7', '0.5', '-1', 'soon', 'nan', 'inf')] == [
        None, None, 7.0, 0.5, 0.0, None, None, None,
    ]  # fmt: skip
    in_a_minute = parse_retry_after(formatdate(time.time() + 60, usegmt=True))
    assert in_a_minute is not None
    assert 55 < in_a_minute < 61


# Ranges


def ranged(server: Scripted, answer: Answer, seen: list[int], start: int = 10, size: int = 20) -> bytes:
    server.answers = [answer]
    transport = Transport(server.endpoint)
    buffer = memoryview(bytearray(size))
    with transport.request('GET', '/x', {'range': range_header(start, size)}, what='GET x') as response:
        read_range(response, start, buffer, seen.append, 'GET x')
    return bytes(buffer)


def test_a_range(server: Scripted) -> None:
    answer = whole(b'x' * 20, '206 Partial Content', 'content-range: bytes 10-29/100\r\n')
    assert ranged(server, answer, []) == b'x' * 20
    assert b'range: bytes=10-29' in server.requests[0]
    assert ranged(server, whole(b'y' * 20), [], start=0) == b'y' * 20


@pytest.mark.parametrize(
    ('answer', 'kind', 'came'),
    [
        (whole(b'x' * 5, '206 P', 'content-range: bytes 10-14/15\r\n'), CorruptError, 0),
        (whole(b'x' * 5, '206 P', 'content-range: bytes 10-14/100\r\netag: "v1"\r\n'), UnavailableError, 5),
        (whole(b'x' * 7, '206 P', 'content-range: bytes 10-29/100\r\n', length=20), UnavailableError, 7),
        (whole(b'x' * 20, '206 P', 'content-range: bytes 0-19/100\r\n'), UnavailableError, 0),
        (whole(b'x' * 30, '206 P', 'content-range: bytes 10-39/100\r\n'), UnavailableError, 0),
        (whole(b'x' * 20, '206 P'), UnavailableError, 0),
        (whole(b'x' * 20, '206 P', 'content-range: items 1\r\n'), UnavailableError, 0),
        (whole(b'x' * 100), StoreError, 0),
        (whole(b'x' * 12), CorruptError, 0),
    ],
)
def test_ranges_that_are_not_what_they_say(server: Scripted, answer: Answer, kind: type[Exception], came: int) -> None:
    seen: list[int] = []
    with pytest.raises(kind) as error:
        ranged(server, answer, seen)
    assert sum(seen) == came
    if came == 5:
        assert isinstance(error.value, StoreError)
        assert error.value.etag == '"v1"'
