"""The way of reads where options and environment name all of it, an endpoint and a key. Then boto3 is not even imported.

What boto3 would do is found out elsewhere (see `route`), which takes it 60 ms, and 300 to be imported. This is the one case that
is plain enough to know it: requests to an endpoint that was given, with the bucket in the path, signed with a key that was given.
Whatever could lead boto3 to anything else (a file of its own, a variable that is not known here, an odd bucket) is left to it.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from streaming.store.network import ca_bundle_of
from streaming.store.s3.options import S3Options
from streaming.store.s3.route import Route

__all__ = ['NamedCredentials', 'named_route']

# What the variables with these names mean is known here, or they mean nothing to reads.
_KNOWN = frozenset({
    'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'AWS_REGION', 'AWS_DEFAULT_REGION', 'AWS_ENDPOINT_URL',
    'AWS_ENDPOINT_URL_S3', 'AWS_CA_BUNDLE', 'AWS_EC2_METADATA_DISABLED',
})  # fmt: skip
_FILES = ('config', 'credentials', 'models')
_LABEL = r'[a-z0-9](?:[a-z0-9-]*[a-z0-9])?'
_ENDPOINT = re.compile(rf'(https?)://({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,4}}))?/?')
# Not the names of directory buckets, and the like, which have rules of their own.
_BUCKET = re.compile(r'(?!.*--)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]')
_REGION = re.compile(r'[a-z0-9-]+')
_PORTS = {'http': '80', 'https': '443'}
_MOST_PORT = 65535
# SHA-256 of no body.
_NOTHING = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'


class NamedCredentials(NamedTuple):
    """A key that was given. It does not expire, as far as anybody knows.

    Args:
        access_key: Says who.
        secret_key: Proves it.
        token: Goes with it; None if there is none.
    """

    access_key: str
    secret_key: str
    token: str | None

    def __repr__(self) -> str:
        return f'NamedCredentials(access_key={self.access_key!r})'

    def get_frozen_credentials(self) -> 'NamedCredentials':
        """As what boto3 has."""
        return self


def named_route(options: S3Options, environ: Mapping[str, str] = os.environ) -> tuple[Route, NamedCredentials, str | None] | None:
    """How boto3 would read, as whom, and the file with the certificates to trust; None where it is to be asked.

    Args:
        options: Of the store.
        environ: The environment. Default: this process's.
    """
    credentials = _credentials(options, environ)
    endpoint = options.endpoint or environ.get('AWS_ENDPOINT_URL_S3') or environ.get('AWS_ENDPOINT_URL') or ''
    region = options.region or environ.get('AWS_DEFAULT_REGION') or 'us-east-1'
    match = _ENDPOINT.fullmatch(endpoint)
    if credentials is None or match is None or 'amazonaws' in endpoint or not _REGION.fullmatch(region):
        return None
    is_special = options.profile or options.unsigned or options.path_style is False or not _BUCKET.fullmatch(options.bucket)
    if is_special or options.requester_pays or options.sse_customer_key or not _names_all(environ):
        return None
    scheme, name, port = match.groups()
    if port is not None and int(port) > _MOST_PORT:
        return None
    netloc = name if port is None else f'{name}:{port}'
    host = name if port in (None, _PORTS[scheme]) else netloc
    route = Route(f'{scheme}://{netloc}', host, f'/{options.bucket}/', {'x-amz-content-sha256': _NOTHING}, region, 's3')
    return route, credentials, options.transport.ca_bundle or environ.get('AWS_CA_BUNDLE') or ca_bundle_of(options.transport)


def _credentials(options: S3Options, environ: Mapping[str, str]) -> NamedCredentials | None:
    if options.access_key_id and options.secret_access_key:
        return NamedCredentials(options.access_key_id, options.secret_access_key, options.session_token)
    key, secret = environ.get('AWS_ACCESS_KEY_ID'), environ.get('AWS_SECRET_ACCESS_KEY')
    given = options.access_key_id, options.secret_access_key, options.session_token
    return NamedCredentials(key, secret, environ.get('AWS_SESSION_TOKEN') or None) if key and secret and not any(given) else None


def _names_all(environ: Mapping[str, str]) -> bool:
    """Whether boto3 has nothing else to go by."""
    if any(name.startswith(('AWS_', 'BOTO_')) and name not in _KNOWN for name in environ):
        return False
    try:
        folder = Path('~/.aws').expanduser()
        return not any((folder / name).exists() for name in _FILES)
    except RuntimeError:  # there is no home
        return True
    except OSError:  # a folder that may not be looked into: boto3 knows what it makes of that
        return False
