"""Credentials of machines: the instance, the resource (a function, a job), the pod of an OKE cluster.

The SDK fetches their tokens; signing and the decision when to fetch are ours. The SDK's own signers fetch a token for every
request once it has less than a minute to live, and one in each thread that met a 401.
"""

import base64
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import urllib3

from streaming.errors import CredentialsError, StoreError, UnavailableError
from streaming.store.oci.credentials import KeyCredential
from streaming.store.oci.options import OCIOptions

__all__ = ['PrincipalCredential', 'find_metadata_service', 'make_principal']

logger = logging.getLogger(__name__)

_METADATA = ('http://169.254.169.254/opc/v2', 'http://[fd00:c1::a9fe:a9fe]/opc/v2')
_PROBE_S = 1.0
# A token is renewed when it has this much to live, or a fifth of its life where that is less.
_MARGIN_S = 60.0


class PrincipalCredential(KeyCredential):
    """A token that the SDK knows how to get.

    Args:
        make: Makes the SDK's signer; called once.
        source: What it is, for messages.

    Raises:
        UnavailableError: who gives out the tokens could not be reached.
        CredentialsError: they refuse.
    """

    def __init__(self, make: Callable[[], Any], source: str) -> None:
        self._signer = _asked(make, source)
        key_id, key = _pair_of(self._signer)
        super().__init__(key_id, key, source, None)
        self.machine_region = getattr(self._signer, 'region', None)
        self._note_life()

    def keep_fresh(self) -> None:
        if time.monotonic() >= self._renew_by:
            try:
                self.refresh(self.generation)
            except StoreError as error:
                # It may still be good for a while; if it is not, the service says so.
                logger.warning('%s', error)

    def _renew(self) -> bool:
        before = self._pair[0]
        _asked(self._signer.refresh_security_token, self.source)
        self._pair = _pair_of(self._signer)
        self._note_life()
        return self._pair[0] != before

    def _note_life(self) -> None:
        """Decide when to renew, on the monotonic clock and by how long the token lives: a clock that is off does no harm."""
        life_s = _life_s(self._pair[0])
        self._renew_by = time.monotonic() + life_s - min(_MARGIN_S, life_s / 5)
        self._pause_s = min(self._pause_s, life_s / 5)


def _asked(call: Callable[[], Any], source: str) -> Any:
    """What the SDK answers, or an error of ours."""
    from oci.exceptions import ServiceError

    try:
        return call()
    except StoreError:
        raise
    except ServiceError as error:
        kind = UnavailableError if error.status == 429 or error.status >= 500 else CredentialsError
        raise kind(f'{source}: no token: {error.status} {error.code or ""} {error.message or ""}'.rstrip()) from error
    except FileNotFoundError as error:
        raise CredentialsError(f'{source}: no token: {error}') from error
    except OSError as error:  # what requests raises, too
        raise UnavailableError(f'{source}: no token: {type(error).__name__}: {error}') from error
    except Exception as error:  # the SDK raises ValueError, RuntimeError, TypeError, jwt's and its own, as it comes
        raise CredentialsError(f'{source}: no token: {type(error).__name__}: {error}') from error


def _pair_of(signer: Any) -> tuple[str, Any]:
    """Key id and private key that belong together, of any of the SDK's signers that hold a token."""
    client = getattr(signer, 'federation_client', None)
    if client is not None:
        # Not get_security_token(): that may fetch another one.
        return f'ST${client.security_token.security_token}', client.session_key_supplier.get_key_pair()['private']
    return str(signer.api_key), signer.private_key


def _life_s(key_id: str) -> float:
    """How long a token is good for, infinity if it does not say: then a 401 will."""
    try:
        payload = key_id.split('.')[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + '=' * (-len(payload) % 4)))
        return max(0.0, float(claims['exp']) - float(claims.get('iat', time.time())))
    except (IndexError, ValueError, KeyError, TypeError):
        return float('inf')


def find_metadata_service() -> str | None:
    """The address of the instance's metadata service if this is an instance of OCI, found out within a second or two."""
    named = os.environ.get('OCI_METADATA_BASE_URL', '').strip()
    pool = urllib3.PoolManager()
    for base in (named,) if named else _METADATA:
        try:
            answer = pool.request(
                'GET',
                f'{base}/instance/region',
                headers={'authorization': 'Bearer Oracle'},
                timeout=urllib3.Timeout(total=_PROBE_S),
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError):
            continue
        if answer.status == 200:
            return base
    return None


def make_principal(auth: str, options: OCIOptions) -> PrincipalCredential:
    """The credential of a kind of principal.

    Args:
        auth: ``instance_principal``, ``resource_principal`` or ``oke_workload``.
        options: Where and how.

    Raises:
        CredentialsError: this is not such a place, or the token was refused.
        UnavailableError: who gives out the tokens could not be reached.
    """
    source = f'{options.url}: {auth.replace("_", " ")}'
    makers = {
        'instance_principal': _instance_signer,
        'resource_principal': _resource_signer,
        'oke_workload': _workload_signer,
    }
    return PrincipalCredential(lambda: makers[auth](options, source), source)


def _instance_signer(options: OCIOptions, source: str) -> Any:
    if find_metadata_service() is None:
        raise CredentialsError(f'{source}: no metadata service answered within {_PROBE_S:g} s; this is not an instance of OCI')
    from oci.auth.signers import InstancePrincipalsSecurityTokenSigner
    from oci.circuit_breaker import NoCircuitBreakerStrategy
    from oci.retry import NoneRetryStrategy

    return InstancePrincipalsSecurityTokenSigner(
        federation_endpoint=options.federation_endpoint,
        retry_strategy=NoneRetryStrategy(),
        federation_client_retry_strategy=NoneRetryStrategy(),
        federation_client_circuit_breaker_strategy=NoCircuitBreakerStrategy(),
    )


def _resource_signer(options: OCIOptions, source: str) -> Any:
    if not os.environ.get('OCI_RESOURCE_PRINCIPAL_VERSION'):
        raise CredentialsError(f'{source}: OCI_RESOURCE_PRINCIPAL_VERSION is not set; this is not a resource with a principal')
    from oci.auth.signers import get_resource_principals_signer

    return get_resource_principals_signer()


def _workload_signer(options: OCIOptions, source: str) -> Any:
    if not os.environ.get('KUBERNETES_SERVICE_HOST'):
        raise CredentialsError(f'{source}: KUBERNETES_SERVICE_HOST is not set; this is not a pod')
    from oci.auth.signers import get_oke_workload_identity_resource_principal_signer
    from oci.retry import NoneRetryStrategy

    return get_oke_workload_identity_resource_principal_signer(retry_strategy=NoneRetryStrategy())
