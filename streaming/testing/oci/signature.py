"""Checking signatures as the service does: draft-cavage HTTP signatures, rsa-sha256."""

import base64
import hashlib
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ['Refused', 'check_signature']

_FIELD = re.compile(r'(\w+)="([^"]*)"')
_ALWAYS = ('date', '(request-target)', 'host')
_WITH_BODY = ('content-length', 'content-type', 'x-content-sha256')
_MOST_SKEW_S = 300


class Refused(Exception):
    """A request whose signature does not hold; the text says why."""


def check_signature(
    method: str, target: str, headers: Mapping[str, str], keys: Mapping[str, 'RSAPublicKey'], *, signs_body: bool, body: bytes
) -> None:
    """Check the signature of a request.

    Args:
        method: Of the request.
        target: Path and query as they came, still percent-encoded.
        headers: By name, in any case.
        keys: Public keys by key id.
        signs_body: Whether the body's hash must be signed (not so where an object or a part is put).
        body: The body, where it must be.

    Raises:
        Refused: it does not hold.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    lower = {name.lower(): value for name, value in headers.items()}
    scheme, _, rest = lower.get('authorization', '').partition(' ')
    fields = dict(_FIELD.findall(rest))
    if scheme.lower() != 'signature' or not {'keyId', 'headers', 'signature'} <= fields.keys():
        raise Refused('the request is not signed')
    if fields.get('algorithm') != 'rsa-sha256':
        raise Refused('the algorithm must be rsa-sha256')
    signed = fields['headers'].lower().split()
    missing = [
        name for name in (*_ALWAYS, *(_WITH_BODY if signs_body else ())) if name not in signed and f'x-{name}' not in signed
    ]
    if missing:
        raise Refused(f'not signed: {", ".join(missing)}')
    key = keys.get(fields['keyId'])
    if key is None:
        raise Refused('the key is not known')
    _check_date(lower.get('x-date') or lower.get('date', ''))
    if signs_body and base64.b64encode(hashlib.sha256(body).digest()).decode() != lower.get('x-content-sha256'):
        raise Refused('x-content-sha256 is not that of the body')
    lines = []
    for name in signed:
        if name == '(request-target)':
            lines.append(f'{name}: {method.lower()} {target}')
        elif name in lower:
            lines.append(f'{name}: {lower[name]}')
        else:
            raise Refused(f'{name} is signed but was not sent')
    try:
        key.verify(base64.b64decode(fields['signature']), '\n'.join(lines).encode(), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        raise Refused('the signature does not hold') from None


def _check_date(text: str) -> None:
    try:
        then = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        raise Refused(f'no date: {text!r}') from None
    if abs(time.time() - then) > _MOST_SKEW_S:
        raise Refused('the date is too far from the time here')
