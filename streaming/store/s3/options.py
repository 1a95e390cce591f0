"""Where an `s3://` store is and how to get in: the URL's grammar and the options, folded into one frozen value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from urllib.parse import unquote, urlsplit

from streaming.errors import ArgumentError
from streaming.store.network import TransportSettings, split_transport
from streaming.store.options import flag, query_options, refuse_secret, refuse_unknown, without_secrets
from streaming.store.protocol import check_key
from streaming.units import bytes_to_int

__all__ = ['S3Options']

_URL_OPTIONS = frozenset(
    {'endpoint', 'region', 'profile', 'unsigned', 'path_style', 'requester_pays', 'timeout_s', 'connections', 'ca_bundle'}
)
_DEFAULT_LIMITS = TransportSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """One bucket, a prefix in it, and the way in.

    Args:
        bucket: Name of the bucket.
        prefix: What all keys begin with: empty, or ending in ``/``.
        url: For messages.
        endpoint: ``http(s)://host[:port]`` of a service that is not Amazon's. Default: None: S3_ENDPOINT_URL, or what boto3 finds
            (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile).
        region: Default: None, what boto3 finds (AWS_DEFAULT_REGION, the profile).
        profile: Of boto3's files. Default: None, AWS_PROFILE or its default.
        unsigned: Ask as nobody, for public buckets. Default: None: only where there are no credentials.
        path_style: The bucket's name goes into the path, not into the host. Default: None: where an endpoint is given.
        requester_pays: Agree to pay. Default: None: if MOSAICML_STREAMING_AWS_REQUESTER_PAYS lists the bucket.
        access_key_id: With ``secret_access_key`` and perhaps ``session_token``: credentials of one's own. Default: None, boto3's
            whole chain.
        secret_access_key: See ``access_key_id``.
        session_token: See ``access_key_id``.
        kms_key_id: Key that new objects are encrypted with (SSE-KMS). Default: None, the bucket's.
        sse_customer_key: Base64 of the 256-bit key that objects are encrypted with, known to the caller only (SSE-C). Default:
            None.
        single_put_bytes: Objects up to this size are put in one request. Default: 64 MiB.
        part_bytes: Size of a part of larger ones, at least 5 MiB. Default: 16 MiB.
        transport: Limits of the connections.

    Raises:
        ArgumentError: values that cannot work.
    """

    bucket: str
    prefix: str = ''
    url: str
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    unsigned: bool | None = None
    path_style: bool | None = None
    requester_pays: bool | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    kms_key_id: str | None = None
    sse_customer_key: str | None = field(default=None, repr=False)
    single_put_bytes: int = 64 << 20
    part_bytes: int = 16 << 20
    transport: TransportSettings = _DEFAULT_LIMITS

    def __post_init__(self) -> None:
        if self.endpoint is not None and urlsplit(self.endpoint).scheme not in ('http', 'https'):
            raise ArgumentError(f'{self.url}: endpoint must be http(s)://host[:port], got {self.endpoint!r}')
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ArgumentError(f'{self.url}: access_key_id and secret_access_key go together')
        if self.part_bytes < 1 or self.single_put_bytes < 0:
            raise ArgumentError(f'{self.url}: part_bytes must be positive and single_put_bytes not negative')

    @classmethod
    def parse(cls, url: str, options: Mapping[str, object]) -> 'S3Options':
        """Fold a URL ``s3://bucket/prefix?option=value``, options and the environment. What the URL says goes first.

        Raises:
            ArgumentError: a URL of another form, or an unknown or impossible option.
        """
        refuse_secret(url, _URL_OPTIONS)
        plain, values = query_options(url, options)
        transport, values = split_transport(plain, values)
        refuse_unknown(url, values, {item.name for item in fields(cls)} - {'bucket', 'prefix', 'url', 'transport'})
        parts = urlsplit(plain)
        bucket, prefix = unquote(parts.netloc), unquote(parts.path).strip('/')
        if not bucket or '/' in bucket or '@' in bucket:
            raise ArgumentError(f'{without_secrets(plain)} is not of the form s3://bucket/prefix')
        for name in ('unsigned', 'path_style', 'requester_pays'):
            if name in values:
                values[name] = flag(name, values[name])
        for name in ('part_bytes', 'single_put_bytes'):
            if name in values:
                values[name] = bytes_to_int(values[name])  # type: ignore[arg-type]
        values.setdefault('endpoint', os.environ.get('S3_ENDPOINT_URL') or None)
        payers = os.environ.get('MOSAICML_STREAMING_AWS_REQUESTER_PAYS', '')
        values.setdefault('requester_pays', bucket in [name.strip() for name in payers.split(',')])
        return cls(
            bucket=bucket,
            prefix=f'{check_key(prefix)}/' if prefix else '',
            url=plain.rstrip('/') if prefix else plain,
            transport=transport,
            **values,  # type: ignore[arg-type]
        )
