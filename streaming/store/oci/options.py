"""Where an `oci://` store is and how to get in: the URL's grammar and the options, folded into one frozen value."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import unquote, urlsplit

from streaming.errors import ArgumentError
from streaming.store.network import TransportSettings, split_transport
from streaming.store.options import query_options, refuse_secret, refuse_unknown, without_secrets
from streaming.store.protocol import check_key
from streaming.units import bytes_to_int

__all__ = ['AUTHS', 'OCIOptions']

AUTHS = ('api_key', 'security_token', 'instance_principal', 'resource_principal', 'oke_workload', 'par')
# What may stand in a URL, which people log and share. Everything else is an option of Python's.
_URL_OPTIONS = frozenset({
    'region', 'endpoint', 'profile', 'auth', 'config_file', 'timeout_s', 'connections', 'ca_bundle', 'kms_key_id',
})  # fmt: skip
_DEFAULT_LIMITS = TransportSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class OCIOptions:
    """One bucket, a prefix in it, and the way in.

    Args:
        bucket: Name of the bucket.
        namespace: The tenancy's Object Storage namespace; the part of the URL after ``@``. Default: None, the log-in's own.
        prefix: What all keys begin with: empty, or ending in ``/``.
        url: For messages.
        region: Such as ``eu-frankfurt-1``. Default: None, that of the config profile, OCI_CLI_REGION, OCI_REGION, or where the
            machine is.
        endpoint: ``https://host[:port]`` of the service, instead of the region's. Default: None, OCI_CLI_ENDPOINT or the
            region's.
        auth: One of ``api_key security_token instance_principal resource_principal oke_workload par``. Default: None,
            OCI_CLI_AUTH, or the first that there is.
        config_file: Default: None: OCI_CLI_CONFIG_FILE, ``~/.oci/config``, OCI_CONFIG_FILE.
        profile: Its section. Default: None, OCI_CLI_PROFILE or ``DEFAULT``.
        config: The entries of a profile (user, tenancy, fingerprint, key_file or key_content, pass_phrase, region,
            security_token_file), instead of a file. Default: None.
        signer: A signer of the SDK's, or a function that makes one (so that the store pickles). Default: None.
        par_url: A pre-authenticated request's URL, of a bucket or a prefix. It is a secret. Default: None, OCI_PAR_URL.
        kms_key_id: OCID of the key that new objects are encrypted with. Default: None, the bucket's.
        sse_customer_key: Base64 of the 256-bit key that objects are encrypted with, by the service but known to the caller only.
            Default: None.
        federation_endpoint: Where principals get their tokens, instead of the region's service. Default: None.
        single_put_bytes: Objects up to this size are put in one request. Default: 64 MiB.
        part_bytes: Size of a part of larger ones. Default: 16 MiB.
        transport: Limits of the connections.

    Raises:
        ArgumentError: values that cannot work.
    """

    bucket: str
    namespace: str | None = None
    prefix: str = ''
    url: str
    region: str | None = None
    endpoint: str | None = None
    auth: str | None = None
    config_file: str | None = None
    profile: str | None = None
    config: Mapping[str, str] | None = field(default=None, repr=False)
    signer: 'Callable[[], Any] | Any' = field(default=None, repr=False)
    par_url: str | None = field(default=None, repr=False)
    kms_key_id: str | None = None
    sse_customer_key: str | None = field(default=None, repr=False)
    federation_endpoint: str | None = None
    single_put_bytes: int = 64 << 20
    part_bytes: int = 16 << 20
    transport: TransportSettings = _DEFAULT_LIMITS

    def __post_init__(self) -> None:
        if self.auth is not None and self.auth not in AUTHS:
            raise ArgumentError(f'{self.url}: auth must be one of {", ".join(AUTHS)}, got {self.auth!r}')
        if self.endpoint is not None and urlsplit(self.endpoint).scheme not in ('http', 'https'):
            raise ArgumentError(f'{self.url}: endpoint must be http(s)://host[:port], got {self.endpoint!r}')
        if self.part_bytes < 1 or self.single_put_bytes < 0:
            raise ArgumentError(f'{self.url}: part_bytes must be positive and single_put_bytes not negative')

    @classmethod
    def parse(cls, url: str, options: Mapping[str, object]) -> 'OCIOptions':
        """Fold a URL ``oci://bucket[@namespace]/prefix?option=value`` and options. What the URL says goes first.

        Raises:
            ArgumentError: a URL of another form, or an unknown or impossible option.
        """
        refuse_secret(url, _URL_OPTIONS)
        plain, values = query_options(url, {'ca_bundle': os.environ.get('OCI_CLI_CERT_BUNDLE'), **options})
        transport, values = split_transport(plain, values)
        refuse_unknown(url, values, {item.name for item in fields(cls)} - {'bucket', 'prefix', 'url', 'transport'})
        bucket, namespace, prefix = _split(plain)
        if namespace:
            values['namespace'] = namespace
        for name in ('part_bytes', 'single_put_bytes'):
            if name in values:
                values[name] = bytes_to_int(values[name])  # type: ignore[arg-type]
        return cls(
            bucket=bucket,
            prefix=prefix,
            url=plain.rstrip('/') if prefix else plain,
            transport=transport,
            **values,  # type: ignore[arg-type]
        )


def _split(plain: str) -> tuple[str, str, str]:
    """Bucket, namespace (or empty) and prefix (empty, or ending in a slash)."""
    parts = urlsplit(plain)
    # At the last "@": a namespace has none.
    bucket, _, namespace = parts.netloc.rpartition('@') if '@' in parts.netloc else (parts.netloc, '', '')
    bucket, namespace = unquote(bucket), unquote(namespace)
    if not bucket or '/' in bucket or ('@' in parts.netloc and not namespace):
        raise ArgumentError(f'{without_secrets(plain)} is not of the form oci://bucket[@namespace]/prefix')
    prefix = unquote(parts.path).strip('/')
    return bucket, namespace, f'{check_key(prefix)}/' if prefix else ''
