"""What signs requests: a key of the user's own, or any signer of the SDK's.

A key signs here, without the SDK: a process that only reads never imports it (200 ms and 46 MiB for each DataLoader worker).
Everything else is wrapped. All are renewed at most once for each time that they turn out stale, whatever the number of threads.
"""

import base64
import functools
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streaming.errors import CredentialsError

__all__ = ['Credential', 'KeyCredential', 'NoCredential', 'SignerCredential', 'TokenFileCredential', 'load_key']

logger = logging.getLogger(__name__)

# A credential that is rejected again so soon after it was renewed is not stale but wrong.
_RENEW_PAUSE_S = 5.0


class Credential(ABC):
    """Signs requests. Any thread may use it.

    Attributes:
        source: Where it comes from, for messages.
        region: The region that its profile names, if any.
        machine_region: The region of the machine, where the credential is a machine's.
        generation: Grows when it is renewed.
    """

    def __init__(self, source: str, region: str | None) -> None:
        self.source = source
        self.region = region
        self.machine_region: str | None = None
        self.generation = 0
        self._pause_s = _RENEW_PAUSE_S
        self._lock = threading.Lock()
        self._renewed_at = float('-inf')

    @abstractmethod
    def sign(self, method: str, host: str, target: str, date: str) -> dict[str, str]:
        """The headers, Date included, that let a request without signed content pass."""

    @abstractmethod
    def sign_prepared(self, request: Any, *, content: bool) -> Any:
        """Sign a request of the SDK's, with its content's length and hash if ``content``."""

    def keep_fresh(self) -> None:
        """Renew what is about to end, or take up what somebody else has renewed. Called before each request, so it is cheap where
        there is nothing to do.
        """

    def refresh(self, seen: int) -> bool:
        """Renew what was rejected.

        Args:
            seen: The generation that was rejected. If it is not the present one, somebody else has renewed it already.

        Returns:
            Whether another try makes sense.

        Raises:
            StoreError: it could not be renewed.
        """
        with self._lock:
            if self.generation != seen:
                return True
            if time.monotonic() - self._renewed_at < self._pause_s:
                return False
            self._renewed_at = time.monotonic()
            if not self._renew():
                return False
            self.generation += 1
            logger.info('renewed the credential of %s', self.source)
            return True

    def _renew(self) -> bool:
        """Get a new one, if there can be one. Called under the lock."""
        return False


class KeyCredential(Credential):
    """An API key.

    Args:
        key_id: What the service knows it by: tenancy, user and fingerprint.
        key: The private key, of the package cryptography.
        source: Where it comes from, for messages.
        region: The region that it came with, if any.
    """

    def __init__(self, key_id: str, key: Any, source: str, region: str | None) -> None:
        super().__init__(source, region)
        # Together, so that no thread ever pairs one's id with another's key.
        self._pair = (key_id, key)

    def current(self) -> tuple[str, Any]:
        """Id and key to sign with now."""
        self.keep_fresh()
        return self._pair

    def sign(self, method: str, host: str, target: str, date: str) -> dict[str, str]:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        key_id, key = self.current()
        text = f'date: {date}\n(request-target): {method.lower()} {target}\nhost: {host}'
        signature = base64.b64encode(key.sign(text.encode(), PKCS1v15(), SHA256())).decode()
        return {
            'date': date,
            'authorization': 'Signature algorithm="rsa-sha256",headers="date (request-target) host",'
            f'keyId="{key_id}",signature="{signature}",version="1"',
        }

    def sign_prepared(self, request: Any, *, content: bool) -> Any:
        from oci.signer import AbstractBaseSigner

        signer = AbstractBaseSigner()
        key_id, key = self.current()
        signer.create_signers(
            key_id, key, ['date', '(request-target)', 'host'], ['content-length', 'content-type', 'x-content-sha256']
        )
        return signer.do_request_sign(request, enforce_content_headers=content)


class TokenFileCredential(KeyCredential):
    """A session token that somebody else (``oci session refresh``) keeps fresh in a file.

    Args:
        token_file: The file.
        key: The private key that the token was issued for.
        source: Where both come from, for messages.
        region: The region that they came with, if any.

    Raises:
        CredentialsError: the file cannot be read.
    """

    def __init__(self, token_file: Path, key: Any, source: str, region: str | None) -> None:
        self._file = token_file
        self._seen = self._stamp()
        super().__init__(f'ST${self._read(source)}', key, source, region)

    def _read(self, source: str) -> str:
        try:
            return self._file.read_text().strip()
        except OSError as error:
            raise CredentialsError(f'{source}: the security_token_file {self._file}: {error.strerror}') from error

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def keep_fresh(self) -> None:
        if self._stamp() not in (self._seen, None):
            self.refresh(self.generation)

    def _renew(self) -> bool:
        before, self._seen = self._pair[0], self._stamp()
        self._pair = (f'ST${self._read(self.source)}', self._pair[1])
        return self._pair[0] != before


class SignerCredential(Credential):
    """Any signer of the SDK's, a principal's or the caller's own.

    Args:
        signer: The signer.
        source: Where it comes from, for messages.
        region: The region that its profile names. Default: None.
    """

    def __init__(self, signer: Any, source: str, region: str | None = None) -> None:
        super().__init__(source, region)
        self.machine_region = getattr(signer, 'region', None)
        self._signer = signer
        # Signers of principals change their key in place; two threads must not meet in there.
        self._signing = threading.Lock()

    def sign(self, method: str, host: str, target: str, date: str) -> dict[str, str]:
        request = _Unsigned(method, host, target, {'date': date, 'host': host})
        self.sign_prepared(request, content=False)
        kept = {name.lower(): str(value) for name, value in request.headers.items()}
        return {name: kept[name] for name in kept if name not in ('host', 'content-type')}

    def sign_prepared(self, request: Any, *, content: bool) -> Any:
        with self._signing:
            before = getattr(self._signer, 'api_key', None)
            signed = self._signer(request, enforce_content_headers=content)
            if getattr(self._signer, 'api_key', None) != before:
                # It renewed its token by itself: signatures with the one before are worth nothing.
                self.generation += 1
            return signed

    def _renew(self) -> bool:
        renew = getattr(self._signer, 'refresh_security_token', None)
        if renew is None:
            return False
        try:
            with self._signing:
                renew()
        except Exception as error:  # the SDK and requests have no common base for what can happen here
            raise CredentialsError(f'{self.source}: its token could not be renewed: {error}') from error
        return True


class NoCredential(Credential):
    """Of a pre-authenticated request, whose path is the credential."""

    def sign(self, method: str, host: str, target: str, date: str) -> dict[str, str]:
        return {}

    def sign_prepared(self, request: Any, *, content: bool) -> Any:
        return request


class _Unsigned:
    """As much of a prepared request as a signer looks at."""

    def __init__(self, method: str, host: str, target: str, headers: Mapping[str, str]) -> None:
        self.method = method
        self.url = f'https://{host}{target}'
        self.path_url = target
        self.headers = dict(headers)
        self.body = None


def load_key(pem: bytes, passphrase: str | None, source: str) -> Any:
    """A private key from PEM.

    Raises:
        CredentialsError: it is none, or the passphrase is missing or wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    password = passphrase.encode() if passphrase else None
    # The CLI appends a label that is no PEM.
    pem = pem.strip().removesuffix(b'OCI_API_KEY').strip()
    try:
        try:
            return _checked_key(pem, password)
        except TypeError as error:
            if password is None:
                raise CredentialsError(f'{source}: the private key needs a pass_phrase') from error
            return _checked_key(pem, None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CredentialsError(
            f'{source}: this is not a private key in PEM{", or the pass_phrase is wrong" if password else ""}'
        ) from error


@functools.lru_cache(maxsize=8)
def _checked_key(pem: bytes, password: bytes | None) -> Any:
    """To find out whether an RSA key is one takes 70 ms, or 300 ms of 4096 bits: once a process and not once a store."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(pem, password)
