"""The plane on which a bucket is written: the SDK's own client, with its habits that lose data or time turned off.

No circuit breaker (32 threads that meet a few 503 would all fail), no retries of the SDK's (ours honour Retry-After and cover
broken bodies), parts filled and checked here (its upload manager commits short reads and sends no MD5).
"""

import base64
import threading
from collections.abc import Callable, Sequence
from typing import Any

from streaming.errors import NotFoundError
from streaming.store.network import ca_bundle_of, network_error, proxy_of
from streaming.store.oci.headers import base64_md5, compare_md5, multipart_md5, sse_headers
from streaming.store.oci.session import Mending, Session, error_of
from streaming.store.parts import Part
from streaming.store.transport import OpenConnections

__all__ = ['SDKWriter']


class SDKWriter:
    """Puts, commits and deletes, under whole names. Any thread of the process that made it may use it.

    Args:
        session: Credential, endpoint, namespace and clock.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client: Any = None
        self._connections = OpenConnections()
        self._making = threading.Lock()

    def put(self, name: str, data: bytes, overwrite: bool, url: str) -> str | None:
        """Put an object whole and return its ETag."""
        what, md5 = f'PUT {url}', base64_md5(data)
        headers = self._call(
            what,
            lambda client, bucket: client.put_object(
                *bucket, name, data, content_md5=md5, **_condition(overwrite), **self._encryption()
            ),
        )
        compare_md5(headers.get('opc-content-md5'), md5, what)
        etag: str | None = headers.get('etag')
        return etag

    def begin(self, name: str, overwrite: bool, url: str) -> str:
        """Begin an upload in parts and return its id."""
        from oci.object_storage.models import CreateMultipartUploadDetails

        details = CreateMultipartUploadDetails(object=name)

        def begin(client: Any, bucket: tuple[str, str]) -> Any:
            return client.create_multipart_upload(*bucket, details, **_condition(overwrite), **self._encryption())

        upload: str = self._call(f'begin the upload of {url}', begin, want=lambda response: response.data.upload_id)
        return upload

    def put_part(self, name: str, upload: str, number: int, data: bytes, url: str) -> Part:
        """Put a part."""
        what, md5 = f'PUT {url}, part {number}', base64_md5(data)
        headers = self._call(
            what,
            lambda client, bucket: client.upload_part(
                *bucket, name, upload, number, data, content_md5=md5, **self._encryption(kms=False)
            ),
        )
        compare_md5(headers.get('opc-content-md5'), md5, what)
        return Part(number, headers['etag'], base64.b64decode(md5))

    def commit(self, name: str, upload: str, parts: Sequence[Part], overwrite: bool, url: str) -> str | None:
        """Make the parts an object and return its ETag."""
        from oci.object_storage.models import CommitMultipartUploadDetails, CommitMultipartUploadPartDetails

        what = f'commit the upload of {url}'
        details = CommitMultipartUploadDetails(
            parts_to_commit=[CommitMultipartUploadPartDetails(part_num=part.number, etag=part.etag) for part in parts]
        )
        headers = self._call(
            what,
            lambda client, bucket: client.commit_multipart_upload(*bucket, name, upload, details, **_condition(overwrite)),
        )
        compare_md5(headers.get('opc-multipart-md5'), multipart_md5(parts), what)
        etag: str | None = headers.get('etag')
        return etag

    def abort(self, name: str, upload: str, url: str) -> None:
        """Forget an upload; one that there is not is no error."""
        what = f'abort the upload of {url}'
        self._forget(what, lambda client, bucket: client.abort_multipart_upload(*bucket, name, upload))

    def delete(self, name: str, url: str) -> None:
        """Delete an object; one that there is not is no error."""
        self._forget(f'DELETE {url}', lambda client, bucket: client.delete_object(*bucket, name))

    def close(self) -> None:
        """Give back the client's connections; requests under way in other threads break off."""
        client, self._client = self._client, None
        if client is not None:
            self._connections.shut()
            client.base_client.session.close()

    def _forget(self, what: str, function: Callable[[Any, tuple[str, str]], Any]) -> None:
        try:
            self._call(what, function)
        except NotFoundError as error:
            # A missing bucket is an error all the same.
            if 'Bucket' in str(error) or 'Namespace' in str(error):
                raise

    def _call(
        self,
        what: str,
        function: Callable[[Any, tuple[str, str]], Any],
        want: Callable[[Any], Any] = lambda response: response.headers,
    ) -> Any:
        """Make a request of the SDK's, given its client and (namespace, bucket)."""
        from oci.exceptions import ServiceError

        session = self._session
        mending = Mending(session)
        client, bucket = self._get_client(), (session.namespace(), session.options.bucket)
        while True:
            try:
                return want(function(client, bucket))
            except ServiceError as error:
                headers = {name.lower(): value for name, value in error.headers.items()}
                if error.status == 401 and mending.try_to_mend(headers.get('date')):
                    continue
                code, message = str(error.code or ''), str(error.message or '')
                raise error_of(error.status, code, message, headers, what, session.credential.source) from error
            except OSError as error:  # what requests raises, too
                raise network_error(error, what, session.options.transport) from error

    def _get_client(self) -> Any:
        with self._making:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _make_client(self) -> Any:
        from oci.circuit_breaker import NoCircuitBreakerStrategy
        from oci.object_storage import ObjectStorageClient
        from oci.retry import NoneRetryStrategy

        limits = self._session.options.transport
        client = ObjectStorageClient(
            {},
            signer=_signer_of(self._session),
            service_endpoint=self._session.transport.endpoint,
            retry_strategy=NoneRetryStrategy(),
            circuit_breaker_strategy=NoCircuitBreakerStrategy(),
            timeout=(min(limits.connect_timeout_s, limits.timeout_s), limits.timeout_s),
            # A whole name is one part of the path, as where we sign ourselves.
            enable_strict_url_encoding=True,
        )
        requests: Any = client.base_client.session
        # Its own reading of the environment would put REQUESTS_CA_BUNDLE before what the options say.
        requests.trust_env = False
        requests.verify = ca_bundle_of(limits) or True
        proxy = proxy_of(limits, self._session.transport.endpoint)
        requests.proxies = {'http': proxy, 'https': proxy} if proxy else {}
        for adapter in requests.adapters.values():
            self._connections.watch_manager(adapter.proxy_manager_for(proxy) if proxy else adapter.poolmanager)
        return client

    def _encryption(self, *, kms: bool = True) -> dict[str, str]:
        options = self._session.options
        found = {name.replace('-', '_'): value for name, value in sse_headers(options).items()}
        if kms and options.kms_key_id:
            found['opc_sse_kms_key_id'] = options.kms_key_id
        return found


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {'if_none_match': '*'}


def _signer_of(session: Session) -> Any:
    """The session's credential and clock as a signer that the SDK takes."""
    from oci.auth.signers import SecurityTokenSigner

    class Signer(SecurityTokenSigner):  # type: ignore[misc]
        # Of this class only so that the client does not ask for the entries of a config file.
        def __init__(self) -> None:
            pass

        def __call__(self, request: Any, enforce_content_headers: bool = True) -> Any:
            request.headers['date'] = session.date()
            return session.credential.sign_prepared(request, content=enforce_content_headers)

    return Signer()
