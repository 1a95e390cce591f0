"""One process's way into one bucket's service: credential, connections, namespace, clock.

Sends signed requests that have no signed content (GET, HEAD), mends what can be mended once (a stale credential, a clock that is
off), and turns the service's answers into the errors of a store.
"""

import email.utils
import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from streaming.errors import (
    AlreadyExistsError,
    CorruptError,
    CredentialsError,
    DeniedError,
    NotFoundError,
    PreconditionError,
    StoreError,
    ThrottledError,
    UnavailableError,
)
from streaming.store.network import parse_retry_after
from streaming.store.oci.credentials import Credential, NoCredential
from streaming.store.oci.login import endpoint_of, find_credential, find_region
from streaming.store.oci.options import OCIOptions
from streaming.store.oci.par import par_of
from streaming.store.transport import Response, Transport

__all__ = ['Mending', 'Session', 'error_of']

logger = logging.getLogger(__name__)

# The service takes a date within five minutes; a signature is good for every range of its object meanwhile.
_SIGNATURE_S = 60.0
_SIGNATURES = 4096
_SKEW_S = 120.0
_ERROR_BYTES = 1 << 16


class Session:
    """A credential and its connections. Any thread of the process that made it may use it.

    Args:
        options: Where and how.
        endpoint: The service's, if an earlier session has found it. Default: None.
        namespace: The tenancy's, likewise. Default: None.

    Raises:
        CredentialsError: there is no credential, or no region.
    """

    def __init__(self, options: OCIOptions, endpoint: str | None = None, namespace: str | None = None) -> None:
        self.options = options
        self.credential: Credential = find_credential(options)
        self._par = par_of(options) if isinstance(self.credential, NoCredential) else None
        if self._par is not None:
            endpoint = self._par.endpoint
        else:
            endpoint = options.endpoint or endpoint or endpoint_of(find_region(options, self.credential))
        self.transport = Transport(endpoint, options.transport)
        self._namespace = options.namespace or namespace
        self._namespace_lock = threading.Lock()
        self._skew_s, self._clock = 0.0, 0
        # (method, target) -> (until when, by which generation of the credential and which clock, headers)
        self._signatures: dict[tuple[str, str], tuple[float, tuple[int, int], dict[str, str]]] = {}

    @property
    def is_par(self) -> bool:
        """Whether a pre-authenticated request is the way in: plain HTTP, without a signature."""
        return self._par is not None

    @property
    def known_namespace(self) -> str | None:
        return self._namespace

    def namespace(self) -> str:
        """The tenancy's namespace, asked for once if nobody gave it."""
        if self._namespace is None:
            with self._namespace_lock:
                if self._namespace is None:
                    what = f'GET the namespace of {self.options.url}'
                    with self.send('GET', '/n', what=what) as response:
                        self._namespace = str(json.loads(response.read(_ERROR_BYTES)))
        return self._namespace

    def bucket_target(self) -> str:
        """Path of the bucket."""
        if self._par is not None:
            return self._par.target
        return f'/n/{quote(self.namespace(), safe="")}/b/{quote(self.options.bucket, safe="")}'

    def date(self) -> str:
        """Now, by the service's clock."""
        return email.utils.formatdate(time.time() + self._skew_s, usegmt=True)

    def send(
        self, method: str, target: str, *, what: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Send a request without signed content; its answer has a status below 300.

        Raises:
            StoreError: the service refused or failed it; of the kind that the status says.
        """
        mending = Mending(self)
        while True:
            signed = self._sign(method, target)
            response = self.transport.request(method, target, {**(headers or {}), **signed}, what=what, body=body)
            if response.status < 300:
                return response
            with response:
                answer = b''
                if method == 'HEAD':
                    response.skip()
                else:
                    answer = response.read(_ERROR_BYTES)
            if response.status != 401 or not mending.try_to_mend(response.headers.get('date')):
                raise error_of(response.status, *_code(answer), response.headers, what, self.credential.source)

    def _sign(self, method: str, target: str) -> dict[str, str]:
        self.credential.keep_fresh()
        now, by = time.monotonic(), (self.credential.generation, self._clock)
        until, signed_by, headers = self._signatures.get((method, target), (0.0, (-1, 0), {}))
        if now >= until or signed_by != by:
            headers = self.credential.sign(method, self.transport.host, target, self.date())
            if len(self._signatures) >= _SIGNATURES:
                self._signatures.clear()
            self._signatures[method, target] = now + _SIGNATURE_S, by, headers
        return headers

    @property
    def clock(self) -> int:
        """Grows when our idea of the service's time changes."""
        return self._clock

    def mend_clock(self, server_date: str | None, seen: int) -> bool:
        """Set our idea of the time by the service's, or see that somebody has; False if nothing changed.

        Args:
            server_date: What the service says.
            seen: `clock` as it was before the request was signed.
        """
        if not server_date:
            return False
        try:
            skew_s = email.utils.parsedate_to_datetime(server_date).timestamp() - time.time()
        except ValueError:
            return False
        if abs(skew_s - self._skew_s) < _SKEW_S:
            # Requests that were refused at the same time all come here: the first one mended it, for all of them.
            return self._clock != seen
        logger.warning("this machine's clock is %+.0f s off %s; signing with the time there", -skew_s, self.transport.host)
        self._skew_s = skew_s
        self._clock += 1
        return True

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()


class Mending:
    """What one request may still try after a 401: the clock, once more because not all of the service's need to agree, and
    a new credential.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen = session.credential.generation
        self._clock = session.clock
        self._left = ['clock', 'clock', 'credential']

    def try_to_mend(self, server_date: str | None) -> bool:
        """Whether something changed that makes another try worth while.

        Raises:
            StoreError: the credential could not be renewed.
        """
        while self._left:
            remedy = self._left.pop(0)
            if remedy == 'clock':
                if self._session.mend_clock(server_date, self._clock):
                    self._clock = self._session.clock
                    return True
            elif self._session.credential.refresh(self._seen):
                return True
        return False


def error_of(
    status: int, code: str, message: str, headers: Mapping[str, str], what: str, source: str
) -> StoreError | CorruptError:
    """The error that an answer of the service means. Header names are in lower case."""
    text = f'{what}: {status}' + (f' {code}' if code else '') + (f' ({message})' if message else '')
    if headers.get('opc-request-id'):
        text += f' [opc-request-id {headers["opc-request-id"]}]'
    if status == 401:
        text += f'; the service does not accept the credential of {source}'
    if status == 416:
        return CorruptError(f'{text}: the object ends before the range does')
    error = _kind(status, code, headers)(text)
    error.status = status
    error.retry_after_s = parse_retry_after(headers.get('retry-after'))
    return error


def _kind(status: int, code: str, headers: Mapping[str, str]) -> type[StoreError]:
    if status == 412:
        return AlreadyExistsError if code == 'IfNoneMatchFailed' else PreconditionError
    if status == 429 or (status == 503 and ('retry-after' in headers or code in ('TooManyRequests', 'SlowDown'))):
        return ThrottledError
    # 409: two writers of one object, or a bucket in transition.
    if status >= 500 or status in (408, 409):
        return UnavailableError
    return {401: CredentialsError, 403: DeniedError, 404: NotFoundError}.get(status, StoreError)


def _code(body: bytes) -> tuple[str, str]:
    """Code and message of an error's body."""
    try:
        found: Any = json.loads(body)
    except ValueError:
        return '', ''
    if not isinstance(found, dict):
        return '', ''
    return str(found.get('code') or ''), str(found.get('message') or '')
