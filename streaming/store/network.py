"""What all connections have in common: limits, certificates, proxies, and what their failures are called."""

import math
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError

from streaming.errors import ArgumentError, StoreError, UnavailableError
from streaming.store.options import check_timeout, without_secrets

__all__ = [
    'NETWORK_ERRORS',
    'TransportSettings',
    'ca_bundle_of',
    'network_error',
    'parse_retry_after',
    'proxy_of',
    'split_transport',
    'trust',
]

_CA_VARIABLES = ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'SSL_CERT_FILE')
# ValueError: a socket that another thread has closed.
NETWORK_ERRORS = (HTTPError, OSError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """Limits of the connections to one server.

    Args:
        timeout_s: Seconds without a byte after which a request has failed. Default: 60.
        connect_timeout_s: Seconds to make a connection. Default: 4, or ``timeout_s`` where that is less.
        min_bytes_per_s: Slower than this over ``timeout_s`` is as bad as silence. Default: 8 KiB/s.
        connections: Most connections at a time; further requests wait for one. Default: 64.
        ca_bundle: File with the certificates to trust. Default: None, those that the environment names
            (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE), or the usual ones.
        proxy: URL of a proxy, or ``''`` for none. Default: None, what the environment says (HTTPS_PROXY, NO_PROXY...).

    Raises:
        ArgumentError: a value that cannot work.
    """

    timeout_s: float = 60.0
    connect_timeout_s: float = 4.0
    min_bytes_per_s: float = 8192.0
    connections: int = 64
    ca_bundle: str | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a password

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.connect_timeout_s <= 0 or self.min_bytes_per_s < 0 or self.connections < 1:
            raise ArgumentError(f'limits of connections must be positive, got {self}')


def split_transport(url: str, options: Mapping[str, object]) -> tuple[TransportSettings, dict[str, object]]:
    """The limits of the connections, and the other options; None is as good as not given.

    Raises:
        ArgumentError: a limit that is none.
    """
    given = {name: value for name, value in options.items() if value is not None}
    limits: dict[str, Any] = {item.name: given.pop(item.name) for item in fields(TransportSettings) if item.name in given}
    for name, convert in (('timeout_s', check_timeout), ('connect_timeout_s', check_timeout), ('connections', int)):
        if name in limits:
            try:
                limits[name] = convert(limits[name])
            except ValueError as error:
                raise ArgumentError(f'{without_secrets(url)}: {name}: {error}') from error
    if 'min_bytes_per_s' in limits:
        limits['min_bytes_per_s'] = float(limits['min_bytes_per_s'])
    return TransportSettings(**limits), given


def trust(settings: TransportSettings) -> ssl.SSLContext:
    """A context that checks certificates.

    Raises:
        ArgumentError: the bundle cannot be read.
    """
    context = ssl.create_default_context()
    bundle = ca_bundle_of(settings)
    try:
        if bundle:
            context.load_verify_locations(bundle)
        else:
            # Small containers have no certificates of their own.
            with suppress(ImportError):
                import certifi

                context.load_verify_locations(certifi.where())
    except (OSError, ssl.SSLError) as error:
        raise ArgumentError(f'the CA bundle {bundle} cannot be read: {error}') from error
    return context


def ca_bundle_of(settings: TransportSettings) -> str | None:
    """The file with the certificates to trust; None for the usual ones."""
    for named in (settings.ca_bundle, *(os.environ.get(name) for name in _CA_VARIABLES)):
        if named:
            return str(Path(named).expanduser())
    return None


def proxy_of(settings: TransportSettings, endpoint: str) -> str:
    """The proxy's URL on the way to a server; empty for none."""
    if settings.proxy is not None:
        return settings.proxy
    parts = urlsplit(endpoint)
    proxy = getproxies().get(parts.scheme) or getproxies().get('all') or ''
    # With its port: NO_PROXY may name one.
    if not proxy or proxy_bypass(parts.netloc.rpartition('@')[2]):
        return ''
    return proxy if '://' in proxy else f'http://{proxy}'


def network_error(error: Exception, what: str, settings: TransportSettings) -> StoreError:
    """What urllib3 and the operating system say, as an error of a store."""
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # of the same class as a time-out
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError) and not refused:
        return UnavailableError(f'{what}: no connection within {settings.connect_timeout_s:g} s')
    if isinstance(error, (urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return UnavailableError(f'{what}: no byte came for {settings.timeout_s:g} s')
    if isinstance(error, urllib3.exceptions.EmptyPoolError):
        return UnavailableError(f'{what}: all {settings.connections} connections were in use for {settings.timeout_s:g} s')
    if 'CERTIFICATE_VERIFY_FAILED' in str(error):
        return StoreError(
            f"{what}: the server's certificate is not to be trusted ({_reason(error)}); "
            'the option ca_bundle (or SSL_CERT_FILE) names further ones'
        )
    return UnavailableError(f'{what}: {_reason(error)}')


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait; None where it is missing or none."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    text = str(error)
    held = [argument for argument in error.args if isinstance(argument, BaseException)]
    inner = getattr(error, 'reason', None) or (held[-1] if held else error.__cause__ or error.__context__)
    if isinstance(inner, BaseException):
        text = _reason(inner)
    # urllib3 puts the objects' addresses first.
    return text.rpartition('object at ')[2].partition('>: ')[2] or text or type(error).__name__
