"""Requests on connections that are open already: they tell a server what urllib3 would, and make the same of odd answers."""

import socket
from collections.abc import Iterator

import pytest

from streaming.errors import UnavailableError
from streaming.store.network import TransportSettings
from streaming.store.transport import Transport
from tests.store.test_transport import Answer, Scripted, read, reset, whole


@pytest.fixture
def server() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.stop()


@pytest.fixture
def transport(server: Scripted) -> Iterator[Transport]:
    """With one connection, that is open."""
    transport = Transport(server.endpoint, TransportSettings(connections=1, timeout_s=20))
    server.answers = [whole(b'x')]
    assert read(transport, 1) == b'x'
    yield transport
    transport.close()


def raw(*pieces: bytes, stay: bool = True) -> Answer:
    def answer(connection: socket.socket, _: bytes) -> bool:
        for piece in pieces:
            connection.sendall(piece)
        return stay

    return answer


CHUNKS = b'2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n'
HEAD = b'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: "1"\r\n'
ODD: dict[str, tuple[Answer, bool]] = {  # and whether the connection is used again
    'plain': (raw(HEAD + b'\r\nhello'), True),
    'in pieces': (raw(*(bytes([byte]) for byte in HEAD + b'\r\nhello')), True),
    'no reason': (raw(HEAD.replace(b' Partial Content', b'') + b'\r\nhello'), True),
    'bare line feeds': (raw(HEAD.replace(b'\r', b'') + b'\nhello'), True),
    'in chunks': (
        raw(HEAD.replace(b'Content-Length: 5', b'Transfer-Encoding: chunked') + b'\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n'),
        True,
    ),
    'a length twice': (raw(HEAD + b'Content-Length: 5\r\n\r\nhello'), True),
    'a folded header': (raw(HEAD + b'X-Long: begins\r\n goes on\r\n\r\nhello'), True),
    'without a length': (raw(HEAD.replace(b'Content-Length', b'X-Length') + b'\r\nhello', stay=False), False),
    'a length that is no number': (raw(HEAD.replace(b' 5', b' \xb2') + b'\r\nhello', stay=False), False),
    'a length beyond all': (raw(HEAD.replace(b' 5', b' ' + b'9' * 5000) + b'\r\nhello', stay=False), False),
    'an older protocol': (raw(HEAD.replace(b'HTTP/1.1', b'HTTP/1.0') + b'\r\nhello', stay=False), False),
    'a farewell': (raw(HEAD + b'Connection: Close\r\n\r\nhello'), False),
    'more than said': (raw(HEAD + b'\r\nhello, world'), False),
}


@pytest.mark.parametrize('kind', ODD)
def test_odd_answers(server: Scripted, transport: Transport, kind: str) -> None:
    answer, again = ODD[kind]
    server.answers = [answer, whole(b'next')]
    with transport.request('GET', '/x', {}, what='GET x') as response:
        assert (response.status, response.headers['etag']) == (206, '"1"')
        assert response.read() == b'hello'
    assert read(transport, 4) == b'next'
    assert server.connections == (1 if again else 2)


@pytest.mark.parametrize('status', ['200 OK', '404 Not Found'])
def test_a_head_has_no_body(server: Scripted, transport: Transport, status: str) -> None:
    server.answers = [raw(f'HTTP/1.1 {status}\r\nContent-Length: 1000\r\n\r\n'.encode()), whole(b'next')]
    with transport.request('HEAD', '/x', {}, what='HEAD x') as response:
        response.skip()
        assert response.size == 1000
    assert read(transport, 4) == b'next'
    assert server.connections == 1


@pytest.mark.parametrize('status', ['204 No Content', '304 Not Modified'])
def test_answers_without_a_body(server: Scripted, transport: Transport, status: str) -> None:
    server.answers = [raw(f'HTTP/1.1 {status}\r\nETag: "1"\r\n\r\n'.encode()), whole(b'next')]
    with transport.request('GET', '/x', {}, what='GET x') as response:
        response.skip()
    assert read(transport, 4) == b'next'
    assert server.connections == 1


BROKEN: dict[str, Answer] = {
    'a reset': reset,
    'the end': raw(stay=False),
    'half a head': raw(HEAD[:40], stay=False),
    'half a body': raw(HEAD + b'\r\nhel', stay=False),
    'no HTTP': raw(b'SSH-2.0-OpenSSH_9.6\r\n\r\n', stay=False),
    'a head without end': raw(b'HTTP/1.1 200 OK\r\nX-Long: ' + b'x' * 70_000, stay=False),
    'a length that is none': raw(b'HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhel', stay=False),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_broken_answers(server: Scripted, transport: Transport, kind: str) -> None:
    """One error, and the next request has a connection of its own, though there may be no more than one."""
    server.answers = [BROKEN[kind], whole(b'hello')]
    with pytest.raises(UnavailableError, match='GET x'):
        read(transport, 5)
    assert read(transport, 5) == b'hello'
    assert server.connections == 2


@pytest.mark.parametrize(
    ('target', 'headers'),
    [
        ('/x', {}),
        ('/n/a%2Fb/~%20%C3%BC?x=%2B&y=a%2Fb', {'range': 'bytes=0-1', 'Authorization': 'Basic x'}),
        ('/x', {'Host': 'other:80', 'user-agent': 'own', 'accept-encoding': 'gzip', 'x-empty': ''}),
        ('/a b/ü?q="%zz"&%c3', {'x-latin': '\xe4'}),
    ],
)
def test_the_server_is_told_what_urllib3_would_tell_it(
    server: Scripted, transport: Transport, target: str, headers: dict[str, str]
) -> None:
    with transport.request('GET', target, headers, what='GET x') as response:
        response.read()
    transport.close()
    with transport.request('GET', target, headers, what='GET x') as response:
        response.read()
    reused, new = server.requests[1:]
    assert reused.split(b'\r\n')[0] == new.split(b'\r\n')[0]
    assert sorted(map(bytes.lower, reused.split(b'\r\n'))) == sorted(map(bytes.lower, new.split(b'\r\n')))
    assert server.connections == 2


def test_plain_requests_go_the_short_way(server: Scripted, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transport, '_request_by_urllib3', None)
    server.answers = [whole(b'next')]
    assert read(transport, 4) == b'next'
    assert server.connections == 1


@pytest.mark.parametrize('headers', [{'x': 'a\r\ny: b'}, {'x': 'a\ny: b'}, {'x\r\ny': 'b'}, {'x': '\u20ac'}])
def test_no_header_smuggles_another_one_in(server: Scripted, transport: Transport, headers: dict[str, str]) -> None:
    with pytest.raises(UnavailableError, match='GET x'):
        transport.request('GET', '/x', headers, what='GET x')
    assert len(server.requests) == 1
