"""Signature version 4 of AWS, of requests without a body: a chain of HMACs over what is asked for, as AWS documents it.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Protocol

__all__ = ['ALGORITHM', 'Credentials', 'Signer', 'timestamp']

ALGORITHM = 'AWS4-HMAC-SHA256'
# What proxies may change on the way, and the signature's own place.
_NOT_SIGNED = frozenset({'authorization', 'expect', 'transfer-encoding', 'user-agent', 'x-amzn-trace-id'})


class Credentials(Protocol):
    """Whoever asks: what boto3 calls frozen credentials."""

    @property
    def access_key(self) -> str:
        """Says who; it goes with each request."""
        ...

    @property
    def secret_key(self) -> str:
        """Proves it, and never leaves."""
        ...


class Signer:
    """Signs for one service in one region. Any thread may use it.

    Args:
        region: Of the bucket, ``us-east-1``.
        service: Its name in signatures. Default: ``s3``.
    """

    def __init__(self, region: str, service: str = 's3') -> None:
        self.region = region
        self.service = service
        # (secret, day) -> the key that both make with region and service; only the last one.
        self._last: tuple[tuple[str, str], bytes] | None = None

    def authorize(self, method: str, target: str, headers: Mapping[str, str], credentials: Credentials) -> str:
        """The value of the header Authorization.

        Args:
            method: ``GET``, ``HEAD``...
            target: Path and query, percent-encoded as they go over the wire.
            headers: All that are sent, by lower-case name; among them ``host``, ``x-amz-date`` and ``x-amz-content-sha256``.
            credentials: Who asks. A token that comes with them must be among the headers.
        """
        path, _, query = target.partition('?')
        names = sorted(headers.keys() - _NOT_SIGNED)
        signed = ';'.join(names)
        canonical = '\n'.join((
            method,
            path,
            '&'.join(sorted(pair if '=' in pair else f'{pair}=' for pair in query.split('&') if pair)),
            *(f'{name}:{" ".join(headers[name].split())}' for name in names),
            '',
            signed,
            headers['x-amz-content-sha256'],
        ))  # fmt: skip
        date = headers['x-amz-date']
        scope = f'{date[:8]}/{self.region}/{self.service}/aws4_request'
        text = f'{ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}'
        signature = hmac.digest(self._key(credentials.secret_key, date[:8]), text.encode(), 'sha256').hex()
        return f'{ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}'

    def _key(self, secret: str, day: str) -> bytes:
        last = self._last
        if last is not None and last[0] == (secret, day):
            return last[1]
        key = f'AWS4{secret}'.encode()
        for part in (day, self.region, self.service, 'aws4_request'):
            key = hmac.digest(key, part.encode(), 'sha256')
        self._last = ((secret, day), key)
        return key


def timestamp() -> str:
    """Now, as the header x-amz-date has it."""
    return time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
