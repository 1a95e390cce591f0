"""boto3's client, made for us, and its errors, made ours."""

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

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
from streaming.store.network import ca_bundle_of, network_error, parse_retry_after
from streaming.store.s3.named import NamedCredentials
from streaming.store.s3.options import S3Options

__all__ = ['LogIn', 'customer_key', 'error_of', 'is_elsewhere', 'is_stale', 'log_in', 'parse_refusal', 'translated']

_REJECTED = frozenset({
    'InvalidAccessKeyId', 'SignatureDoesNotMatch', 'ExpiredToken', 'InvalidToken', 'TokenRefreshRequired', 'InvalidSecurity',
    'RequestTimeTooSkewed', 'AuthorizationHeaderMalformed',
})  # fmt: skip
# Refusals that credentials renewed since may mend, and those of a bucket that is in another region. 400: all that the answer to a
# HEAD says of either.
_STALE = frozenset({'ExpiredToken', 'InvalidToken', 'TokenRefreshRequired', 'InvalidAccessKeyId', '400'})
_ELSEWHERE = frozenset({'PermanentRedirect', 'AuthorizationHeaderMalformed', 'IllegalLocationConstraintException', '400'})
_THROTTLED = frozenset({'SlowDown', 'Throttling', 'ThrottlingException', 'RequestLimitExceeded', 'TooManyRequests'})
# Refusals with a status of 4xx that another try mends: bytes were lost or changed on their way.
_PASSING = frozenset({'RequestTimeout', 'IncompleteBody', 'BadDigest', 'ConditionalRequestConflict', 'OperationAborted'})


@dataclass(frozen=True, slots=True)
class LogIn:
    """What boto3 has found.

    Args:
        client: Of boto3. None where reads do without: all was given, or found out by the process this one was forked from.
        credentials: That it signs with; None where it does not sign, or has none.
        ca_bundle: File with the certificates to trust; None for the usual ones.
    """

    client: Any
    credentials: Any = field(repr=False)
    ca_bundle: str | None

    def freeze(self) -> Any:
        """The credentials of now: ``access_key``, ``secret_key``, ``token``. boto3 renews those that are about to expire."""
        return None if self.credentials is None else self.credentials.get_frozen_credentials()

    def without_client(self) -> 'LogIn | None':
        """What a forked process can go on with. None where the credentials are renewed, which takes locks and clients."""
        if isinstance(self.credentials, NamedCredentials):
            return replace(self, client=None)
        from botocore.credentials import Credentials

        if self.credentials is not None and type(self.credentials) is not Credentials:
            return None
        return replace(self, client=None)


def log_in(options: S3Options, *, unsigned: bool) -> LogIn:
    """Make a client of boto3 that tries once, with a pool for as many threads as may come.

    Raises:
        CredentialsError: there is no such profile.
    """
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    limits = options.transport
    path_style = options.path_style if options.path_style is not None else _has_endpoint(options)
    settings: dict[str, Any] = {
        'connect_timeout': min(limits.connect_timeout_s, limits.timeout_s),
        'read_timeout': limits.timeout_s,
        'max_pool_connections': limits.connections,
        'retries': {'total_max_attempts': 1},
        's3': {'addressing_style': 'path' if path_style else 'auto'},
        'tcp_keepalive': True,
        # We send Content-MD5; the newer checksums are not known to every service that speaks this API.
        'request_checksum_calculation': 'when_required',
        'response_checksum_validation': 'when_required',
    }
    if unsigned:
        settings['signature_version'] = UNSIGNED
    if limits.proxy:
        settings['proxies'] = {'http': limits.proxy, 'https': limits.proxy}
    elif limits.proxy == '':
        settings['proxies'] = {'http': None, 'https': None}
    try:
        core = botocore.session.get_session()
        core.register_component('data_loader', _models_for(core))
        session = boto3.session.Session(
            botocore_session=core,
            profile_name=options.profile,
            region_name=options.region,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=options.secret_access_key,
            aws_session_token=options.session_token,
        )
        region = session.region_name or 'us-east-1'
        # boto3 knows of AWS_CA_BUNDLE and the profile's entry only.
        bundle = (
            limits.ca_bundle or os.environ.get('AWS_CA_BUNDLE') or ca_bundle_of(limits) or core.get_config_variable('ca_bundle')
        )
        client = session.client('s3', region_name=region, endpoint_url=options.endpoint, verify=bundle, config=Config(**settings))
        return LogIn(client, None if unsigned else session.get_credentials(), bundle)
    except (BotoCoreError, ValueError) as error:
        raise CredentialsError(f'{options.url}: {error}') from error


# What boto3 knows of services, read once a process; forked workers find it there.
_models: list[Any] = []


def _models_for(session: Any) -> Any:
    from streaming.store.s3.models import Models

    if not _models:
        _models.append(Models(session))
    return _models[0]


def _has_endpoint(options: S3Options) -> bool:
    return bool(options.endpoint or os.environ.get('AWS_ENDPOINT_URL_S3') or os.environ.get('AWS_ENDPOINT_URL'))


@contextmanager
def translated(what: str, options: S3Options) -> Iterator[None]:
    """Turn what boto3 says into the errors of a store."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise error_of(error.response, what, options) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError) as error:
        raise CredentialsError(f'{what}: {error}; boto3 looks at options, AWS_* variables, ~/.aws and the instance') from error
    except (exceptions.TokenRetrievalError, exceptions.UnauthorizedSSOTokenError, exceptions.MetadataRetrievalError) as error:
        raise CredentialsError(f'{what}: {error}') from error
    except exceptions.SSLError as error:
        raise network_error(error, what, options.transport) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        inner = error.kwargs.get('error')
        raise network_error(inner if isinstance(inner, Exception) else error, what, options.transport) from error
    except ResponseParserError as error:
        raise UnavailableError(f'{what}: the answer is not one of the service') from error
    except (exceptions.BotoCoreError, OSError) as error:
        raise StoreError(f'{what}: {error}') from error


def is_stale(response: Mapping[str, Any]) -> bool:
    """Whether a refusal may be one of credentials that have been renewed since."""
    return response.get('Error', {}).get('Code') in _STALE


def is_elsewhere(response: Mapping[str, Any]) -> bool:
    """Whether a refusal may mean that the bucket is in another region, where boto3 finds it."""
    status = response['ResponseMetadata']['HTTPStatusCode']
    return status in (301, 302, 307) or response['Error'].get('Code') in _ELSEWHERE


def customer_key(options: S3Options) -> dict[str, Any]:
    """SSE-C, as arguments of boto3's calls; it encodes the key again, and adds its hash."""
    if options.sse_customer_key is None:
        return {}
    return {'SSECustomerAlgorithm': 'AES256', 'SSECustomerKey': base64.b64decode(options.sse_customer_key)}


def parse_refusal(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """What boto3 makes of an answer that is an error."""
    from botocore.parsers import create_parser

    parser: Any = create_parser('rest-xml')
    found: dict[str, Any] = parser.parse({'status_code': status, 'headers': headers, 'body': body}, None)
    return found


def error_of(response: Mapping[str, Any], what: str, options: S3Options) -> StoreError | CorruptError:
    """The error that an answer of the service means, as boto3 parses it."""
    metadata = response.get('ResponseMetadata', {})
    status = int(metadata.get('HTTPStatusCode', 0))
    headers: Mapping[str, str] = metadata.get('HTTPHeaders', {})
    code, message = str(response['Error'].get('Code', '')), str(response['Error'].get('Message', ''))
    text = f'{what}: {status} {code}' + (f' ({message})' if message and message != code else '')
    if metadata.get('RequestId'):
        text += f' [request id {metadata["RequestId"]}]'
    if status == 416 or code == 'InvalidRange':
        return CorruptError(f'{text}: the object ends before the range does')
    kind = _kind(status, code, what)
    if kind is CredentialsError:
        text += f'; the service does not accept the credentials (profile {options.profile or "default"})'
    error = kind(text)
    error.status = status or None
    error.retry_after_s = parse_retry_after(headers.get('retry-after'))
    return error


def _kind(status: int, code: str, what: str) -> type[StoreError]:
    if code in _REJECTED or status == 401:
        return CredentialsError
    if status == 412:
        # Of a condition on a write, or of one on a read.
        return PreconditionError if what.startswith(('GET', 'HEAD')) else AlreadyExistsError
    if code in _THROTTLED or status == 429:
        return ThrottledError
    if status >= 500 and status != 501:
        return UnavailableError
    if code in _PASSING or status == 408:
        return UnavailableError
    return {403: DeniedError, 404: NotFoundError}.get(status, StoreError)
