"""One process's way into one bucket: boto3, and a plane of our own for reading.

boto3 finds credentials, region and endpoint, lists and writes. Reads go over our own connections, signed as boto3 would sign them
(see `route`): making a request takes boto3 a millisecond of processor, and us a tenth. What it knows to mend (a bucket in another
region), and what we cannot send as it does, it reads. Credentials that were refused are looked for anew, once, for both.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import urllib3

from streaming.errors import StoreError
from streaming.store.s3.client import (
    LogIn,
    customer_key,
    error_of,
    is_elsewhere,
    is_stale,
    log_in,
    parse_refusal,
    translated,
)
from streaming.store.s3.named import NamedCredentials, named_route
from streaming.store.s3.options import S3Options
from streaming.store.s3.route import Route, UnlikeError, find_route, quote_key
from streaming.store.s3.signing import Signer, timestamp
from streaming.store.transport import OpenConnections, Response, Transport

__all__ = ['Session']

logger = logging.getLogger(__name__)

T = TypeVar('T')

_ERROR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Plane:
    """Where boto3 would read, the connections to it, and who signs what goes over them (None: nobody)."""

    route: Route
    transport: Transport
    signer: Signer | None

    def send(self, method: str, name: str, headers: Mapping[str, str], credentials: Any, what: str) -> Response:
        """The answer to a request for an object, whatever its status."""
        target = self.route.path + quote_key(name)
        sent = {**self.route.headers, **headers, 'host': self.route.host}
        if self.signer is not None:
            sent['x-amz-date'] = timestamp()
            if credentials.token:
                sent['x-amz-security-token'] = credentials.token
            sent['authorization'] = self.signer.authorize(method, target, sent, credentials)
        return self.transport.request(method, target, sent, what=what)


@dataclass(frozen=True, slots=True)
class _State:
    """Who we are, and how we read: ``plane`` is None until ``tried``, and where boto3 is to read."""

    login: LogIn
    tried: bool = False
    plane: _Plane | None = None


class Session:
    """The requests to a bucket, by whole names. Any thread of the process that made it may use it.

    Args:
        options: Where and how.
        origin: The session of the process that this one was forked from, whose way of reading is used again. Default: None.
    """

    def __init__(self, options: S3Options, origin: 'Session | None' = None) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._state: _State | None = None
        self._unsigned: bool | None = options.unsigned if origin is None else origin._unsigned
        self._connections = OpenConnections()  # boto3's
        self._transports: dict[str, Transport] = {}  # ours, by endpoint
        if origin is not None:
            self._state = self._go_on_from(origin._state)

    def call(self, operation: str, what: str, **arguments: Any) -> Any:
        """Make a request through boto3."""

        def call(state: _State) -> Any:
            return getattr(state.login.client, operation)(**self._common(), **arguments)

        return self._with_login(call, what)

    def head(self, name: str, what: str) -> tuple[int, str | None]:
        """Size and ETag of an object."""
        arguments = customer_key(self._options)
        found = self._read('HEAD', name, what, {}, lambda: self.call('head_object', what, Key=name, **arguments))
        if not isinstance(found, Response):
            return int(found['ContentLength']), found.get('ETag')
        with found:
            found.skip()
            if found.size is None:
                raise StoreError(f'{what}: the answer does not say how long the object is')
            return found.size, found.headers.get('etag')

    def get(self, name: str, what: str, *, span: str | None = None, if_match: str | None = None) -> Response:
        """The answer to a GET, with its body to come.

        Args:
            name: The object's.
            what: Names the request in messages.
            span: Value of the header Range. Default: None, the whole object.
            if_match: The ETag that it must have. Default: None, any.
        """
        arguments = _given({'Range': span, 'IfMatch': if_match})

        def by_boto3() -> Response:
            answer = self.call('get_object', what, Key=name, **customer_key(self._options), **arguments)
            # boto3's body hides how many bytes came of one receive; the connection's own answer is behind it.
            raw = answer['Body']._raw_stream
            if not isinstance(raw, urllib3.BaseHTTPResponse):  # of a hook that stands in for the service, as moto's mock does
                metadata = answer['ResponseMetadata']
                raw = urllib3.HTTPResponse(raw, metadata['HTTPHeaders'], metadata['HTTPStatusCode'], preload_content=False)
            return Response(raw, what, self._options.transport)

        return self._read('GET', name, what, _given({'range': span, 'if-match': if_match}), by_boto3)

    def close(self) -> None:
        """Close the connections; requests under way in other threads break off."""
        self._connections.shut()
        for transport in list(self._transports.values()):
            transport.close()
        with self._lock:
            if self._state is not None and self._state.login.client is not None:
                self._state.login.client.close()

    def _common(self) -> dict[str, Any]:
        """What goes with every request."""
        payer = {'RequestPayer': 'requester'} if self._options.requester_pays else {}
        return {'Bucket': self._options.bucket, **payer}

    # Reading

    def _read(self, method: str, name: str, what: str, headers: Mapping[str, str], by_boto3: Callable[[], T]) -> Response | T:
        """The answer to a request, with a status below 300; or what boto3 makes of the same."""
        renewed = False
        while True:
            state = self._get()
            if not state.tried:
                state = self._with_login(self._try_plane, what)
            if state.plane is None:
                return by_boto3()
            credentials = None if state.plane.signer is None else self._freeze(state.login, what)
            response = state.plane.send(method, name, headers, credentials, what)
            if response.status < 300:
                return response
            refusal = _refusal(response, method)
            if is_elsewhere(refusal):
                found = by_boto3()
                self._look_again(state)
                return found
            if renewed or credentials is None or not is_stale(refusal) or not self._find_others(credentials, what):
                raise error_of(refusal, what, self._options)
            renewed = True

    def _freeze(self, login: LogIn, what: str) -> Any:
        if isinstance(login.credentials, NamedCredentials):
            return login.credentials
        with translated(what, self._options):
            return login.freeze()

    def _try_plane(self, state: _State) -> _State:
        with self._lock:
            if self._state is not state and self._state is not None:
                return self._state  # another thread was first
            self._state = replace(state, tried=True, plane=self._make_plane(state.login))
            return self._state

    def _look_again(self, seen: _State) -> None:
        """See where boto3 reads after it was sent elsewhere."""
        with self._lock:
            state = self._state
            # Who had no client has got one now.
            is_new = seen.login.client is None and state is not None and not state.tried
            if state is None or seen.plane is None or not (state is seen or is_new):
                return
            plane = self._make_plane(state.login)
            if plane is not None and plane.route.leads_where(seen.plane.route):
                logger.debug('%s: boto3 reads from here on: it finds its way where we are sent elsewhere', self._options.url)
                plane = None
            self._state = replace(state, tried=True, plane=plane)

    def _make_plane(self, login: LogIn) -> _Plane | None:
        try:
            route = find_route(login.client, login.freeze, {**self._common(), **customer_key(self._options)})
        except UnlikeError as error:
            logger.debug('%s: boto3 reads: %s', self._options.url, error)
            return None
        return self._plane_of(route, login.ca_bundle)

    def _plane_of(self, route: Route, ca_bundle: str | None) -> _Plane:
        transport = self._transports.get(route.endpoint)
        if transport is None:
            settings = replace(self._options.transport, ca_bundle=ca_bundle)
            transport = self._transports[route.endpoint] = Transport(route.endpoint, settings)
        signer = None if route.region is None or route.service is None else Signer(route.region, route.service)
        return _Plane(route, transport, signer)

    def _go_on_from(self, state: _State | None) -> _State | None:
        """Read as another process does: over connections of our own, but without asking boto3 for the way again."""
        if state is None or state.plane is None:
            return None
        login = state.login.without_client()
        return None if login is None else _State(login, True, self._plane_of(state.plane.route, login.ca_bundle))

    # Logging in

    def _get(self) -> _State:
        """Who we are; there may be no client."""
        state = self._state
        if state is None:
            with self._lock:
                state = self._state or self._read_as_named() or self._log_in()
        return state

    def _read_as_named(self) -> _State | None:
        """Read without boto3, where there is nothing to be found out."""
        found = None if self._unsigned else named_route(self._options)
        if found is None:
            return None
        route, credentials, ca_bundle = found
        self._state = _State(LogIn(None, credentials, ca_bundle), True, self._plane_of(route, ca_bundle))
        return self._state

    def _get_with_client(self) -> _State:
        state = self._get()
        if state.login.client is not None:
            return state
        with self._lock:
            state = self._state or state
            return state if state.login.client is not None else self._log_in()

    def _log_in(self) -> _State:
        login = log_in(self._options, unsigned=bool(self._unsigned))
        _watch(self._connections, login.client)
        self._state = _State(login)
        return self._state

    def _with_login(self, function: Callable[[_State], T], what: str) -> T:
        """What the function returns, with the credentials that there are; once more if they were refused and others are found."""
        from botocore.exceptions import NoCredentialsError

        renewed = False
        while True:
            state, used = self._get_with_client(), None
            try:
                with translated(what, self._options):
                    used = state.login.freeze()
                    return function(state)
            except StoreError as error:
                if self._unsigned is None and isinstance(error.__cause__, NoCredentialsError):
                    logger.info('%s: boto3 finds no credentials; asking without any, as for a public bucket', self._options.url)
                    with self._lock:
                        self._unsigned, self._state = True, None
                elif not renewed and used is not None and is_stale(_answer_to(error)) and self._find_others(used, what):
                    renewed = True
                else:
                    raise

    def _find_others(self, refused: Any, what: str) -> bool:
        """Whether boto3 has, or finds, other credentials than those."""
        with self._lock, translated(what, self._options):
            if self._state is not None and _differ(self._state.login.freeze(), refused):
                return True
            before = self._state
            if _differ(self._log_in().login.freeze(), refused):
                logger.info('%s: the credentials were refused, and others found', self._options.url)
                return True
            self._state = before
            return False


def _differ(credentials: Any, others: Any) -> bool:
    """Whether they are not the same, whosesoever they are."""
    names = ('access_key', 'secret_key', 'token')
    return any(getattr(credentials, name, None) != getattr(others, name, None) for name in names)


def _given(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _refusal(response: Response, method: str) -> dict[str, Any]:
    """What boto3 makes of an answer that is an error."""
    body = b''
    with response:
        if method == 'HEAD':
            response.skip()
        else:
            body = response.read(_ERROR_BYTES)
    return parse_refusal(response.status, response.headers, body)


def _answer_to(error: StoreError) -> Mapping[str, Any]:
    """The service's answer that boto3 raised; empty where there was none."""
    found: Mapping[str, Any] | None = getattr(error.__cause__, 'response', None)
    return found or {}


def _watch(connections: OpenConnections, client: Any) -> None:
    """Remember the connections that a client of boto3 makes."""
    session = client._endpoint.http_session
    connections.watch_manager(session._manager)
    # The managers of proxies are made on first use, of the same classes.
    session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme
