"""How boto3 would send a read: where to, with which headers, signed for whom. Found out, not guessed.

Endpoints, styles of addressing, regions, keys of encryption: boto3 has made up its mind on all of them when a request of its own
is ready to be sent. One is made for a key that is odd on purpose and caught there. If we sign the same to the letter, our own
requests are as good as boto3's; if not (signature version 2, S3 Express, several regions at once, hooks of others), boto3 reads.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlsplit

from streaming.store.s3.signing import ALGORITHM, Credentials, Signer

__all__ = ['Route', 'UnlikeError', 'find_route', 'quote_key']

_KEY = 'probe/ä ~\'(1)*&=,:;@$!+%?#[]^`{}|<>"'
_RANGE, _ETAG = 'bytes=1-2', '"0-1"'
_MARK = 'x-caught'
# Different with each request: made anew, or needed by nobody.
_OWN = frozenset({
    'amz-sdk-invocation-id', 'amz-sdk-request', 'authorization', 'host', 'if-match', 'range', 'x-amz-date',
    'x-amz-security-token',
})  # fmt: skip
_AUTHORIZATION = re.compile(rf'{ALGORITHM} Credential=[^,]+/\d+/([^/,]+)/([^/,]+)/aws4_request, SignedHeaders=([^,]+), .*')


class UnlikeError(Exception):
    """boto3 reads in a way that is not ours; the message says how."""


@dataclass(frozen=True, slots=True)
class Route:
    """What all reads of a bucket have in common.

    Args:
        endpoint: ``http(s)://host[:port]``.
        host: As it is signed: without a port that goes without saying.
        path: What stands before the key.
        headers: Go with each request, by lower-case name. Those of SSE-C are secrets.
        region: That signatures are for; None where nobody signs.
        service: Likewise.
    """

    endpoint: str
    host: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    region: str | None
    service: str | None

    def leads_where(self, other: 'Route') -> bool:
        """Whether requests go where those of another route go."""
        names = ('endpoint', 'host', 'path', 'region', 'service')
        return all(getattr(self, name) == getattr(other, name) for name in names)


def quote_key(key: str) -> str:
    """A key as it stands in a path, and is signed: each byte is encoded once, ``/`` never."""
    return quote(key, safe='/~')


def find_route(client: Any, freeze: Callable[[], Credentials | None], arguments: Mapping[str, Any]) -> Route:
    """The way of the reads of a client of boto3. Nothing is sent.

    Args:
        client: Of boto3; others may be using it.
        freeze: Says whose credentials it signs with now; None where it does not.
        arguments: Of ``get_object``, but for key, range and condition.

    Raises:
        UnlikeError: boto3 is to read.
    """
    request = _catch(client, {**arguments, 'Key': _KEY, 'Range': _RANGE, 'IfMatch': _ETAG})
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    parts = urlsplit(request.url)
    if request.method != 'GET' or request.body or parts.query or not parts.path.endswith(quote_key(_KEY)):
        raise UnlikeError(f'it sends {request.method} {parts.scheme}://{parts.netloc} in a way of its own')
    if (headers.get('range'), headers.get('if-match')) != (_RANGE, _ETAG):
        raise UnlikeError('it puts ranges and conditions in a way of its own')
    headers.setdefault('host', _host_of(request.url))
    return Route(
        f'{parts.scheme}://{parts.netloc}',
        headers['host'],
        parts.path.removesuffix(quote_key(_KEY)),
        {name: value for name, value in headers.items() if name not in _OWN},
        *_check_signature(parts.path, headers, freeze()),
    )


def _check_signature(target: str, headers: Mapping[str, str], credentials: Credentials | None) -> tuple[str | None, str | None]:
    """Region and service of a request's signature, which ours is equal to."""
    wanted = headers.get('authorization')
    if wanted is None:
        return None, None
    match = _AUTHORIZATION.fullmatch(wanted)
    if match is None or credentials is None:
        raise UnlikeError(f'it signs by {wanted.partition(" ")[0]}')
    region, service, names = match.groups()
    signed = {name: headers.get(name, '') for name in names.split(';')}
    if Signer(region, service).authorize('GET', target, signed, credentials) != wanted:
        raise UnlikeError(f'it signs for {service} in {region} as we do not')
    return region, service


def _catch(client: Any, arguments: Mapping[str, Any]) -> Any:
    """The request that boto3 makes of a call, ready to be sent."""
    from botocore.awsrequest import AWSResponse, HeadersDict
    from botocore.exceptions import ClientError

    caught: list[Any] = []
    headers: Any = HeadersDict({_MARK: 'yes'})
    thread = threading.get_ident()

    def catch(request: Any, event_name: str, **_: object) -> Any:
        if threading.get_ident() != thread or not event_name.endswith('.GetObject'):
            return None  # somebody's real one, or what boto3 asks to be able to sign
        caught.append(request)
        return AWSResponse(request.url, 200, headers, BytesIO())

    # The last to be asked: where a hook of others answers in the service's place (a mock, say), theirs is the answer that counts.
    client.meta.events.register_last('before-send', catch)
    answer: Any
    try:
        answer = client.get_object(**arguments)
    except ClientError as error:
        answer = error.response
    finally:
        client.meta.events.unregister('before-send', catch)
    if len(caught) != 1 or _MARK not in answer['ResponseMetadata']['HTTPHeaders']:
        raise UnlikeError('a hook answers in place of the service')
    return caught[0]


def _host_of(url: str) -> str:
    parts = urlsplit(url)
    name = parts.hostname or ''
    name = f'[{name}]' if ':' in name else name
    default = {'http': 80, 'https': 443}.get(parts.scheme)
    return name if parts.port in (None, default) else f'{name}:{parts.port}'


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
