"""Headers and hashes that both planes send and compare."""

import base64
import hashlib
from collections.abc import Sequence

from streaming.errors import UnavailableError
from streaming.store.oci.options import OCIOptions
from streaming.store.parts import Part

__all__ = ['base64_md5', 'compare_md5', 'multipart_md5', 'sse_headers']


def sse_headers(options: OCIOptions) -> dict[str, str]:
    """What goes with every GET, HEAD, PUT and part where the caller holds the key."""
    if options.sse_customer_key is None:
        return {}
    key = base64.b64decode(options.sse_customer_key)
    return {
        'opc-sse-customer-algorithm': 'AES256',
        'opc-sse-customer-key': options.sse_customer_key,
        'opc-sse-customer-key-sha256': base64.b64encode(hashlib.sha256(key).digest()).decode(),
    }


def base64_md5(data: bytes) -> str:
    """As in a Content-MD5 header."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def multipart_md5(parts: Sequence[Part]) -> str:
    """What the service says of an object that these parts make: the hash of their hashes, and their number."""
    return f'{base64_md5(b"".join(part.md5 for part in parts))}-{len(parts)}'


def compare_md5(found: str | None, wanted: str, what: str) -> None:
    """Hold what the service says that it stored against what was sent.

    Raises:
        UnavailableError: they differ.
    """
    if found is not None and found != wanted:
        raise UnavailableError(f'{what}: the service stored bytes with the MD5 {found}, {wanted} were sent')
