"""Pre-authenticated requests: a URL that is its own credential, for one bucket or a prefix in it.

They are plain HTTP under their own path, `https://host/p/<secret>/n/<namespace>/b/<bucket>/o/`; the SDK has no part in it. What
they allow (reading, listing, writing) was decided when they were made; deleting they never allow.
"""

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from streaming.errors import ArgumentError, CredentialsError, DeniedError, UnavailableError
from streaming.store.oci.headers import base64_md5, compare_md5, multipart_md5, sse_headers
from streaming.store.oci.options import OCIOptions
from streaming.store.parts import Part

if TYPE_CHECKING:
    from streaming.store.oci.session import Session

__all__ = ['PAR', 'PARWriter', 'is_par_url', 'par_of']

_PATH = re.compile(r'(/p/[^/]+/n/([^/]+)/b/([^/]+))/o(?:/(.*))?')


@dataclass(frozen=True, slots=True)
class PAR:
    """A pre-authenticated request's URL, taken apart.

    Args:
        endpoint: ``https://host[:port]``.
        target: Path of the bucket, the secret in it.
        namespace: The tenancy's.
        bucket: The bucket's name.
        prefix: What it is for in the bucket; empty for all.
    """

    endpoint: str
    target: str = field(repr=False)
    namespace: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> 'PAR':
        """Take a URL apart.

        Raises:
            ArgumentError: it is none of a pre-authenticated request; it is not shown.
        """
        parts = urlsplit(url)
        match = _PATH.fullmatch(parts.path)
        if parts.scheme not in ('http', 'https') or match is None:
            raise ArgumentError('the URL of a pre-authenticated request is https://HOST/p/SECRET/n/NAMESPACE/b/BUCKET/o/...')
        target, namespace, bucket, prefix = match.groups()
        return cls(f'{parts.scheme}://{parts.netloc}', target, unquote(namespace), unquote(bucket), unquote(prefix or ''))


def is_par_url(url: str) -> bool:
    """Whether an ``http(s)://`` URL is one of a pre-authenticated request."""
    return _PATH.fullmatch(urlsplit(url).path) is not None


def par_of(options: OCIOptions) -> PAR:
    """The pre-authenticated request to use.

    Raises:
        CredentialsError: there is none.
        ArgumentError: it is for another bucket.
    """
    url = options.par_url or os.environ.get('OCI_PAR_URL')
    if not url:
        raise CredentialsError(f'{options.url}: auth=par needs the option par_url or OCI_PAR_URL')
    par = PAR.parse(url)
    if par.bucket != options.bucket or options.namespace not in (None, par.namespace):
        raise ArgumentError(f'{options.url}: the pre-authenticated request is for oci://{par.bucket}@{par.namespace}')
    return par


class PARWriter:
    """Puts under whole names, like SDKWriter. Any thread of the process that made it may use it.

    Args:
        session: The way in.
    """

    def __init__(self, session: 'Session') -> None:
        self._session = session

    def put(self, name: str, data: bytes, overwrite: bool, url: str) -> str | None:
        """Put an object whole and return its ETag."""
        headers = {'content-type': 'application/octet-stream', **self._managed_key()}
        answer = self._put(self._target('o', name), data, f'PUT {url}', {**headers, **_condition(overwrite)})
        return answer.get('etag')

    def begin(self, name: str, overwrite: bool, url: str) -> str:
        """Begin an upload in parts and return the path that its parts are put under."""
        what = f'begin the upload of {url}'
        headers = {'opc-multipart': 'true', **_condition(overwrite), **self._managed_key(), **sse_headers(self._session.options)}
        with self._session.send('PUT', self._target('o', name), what=what, headers=headers, body=b'') as response:
            try:
                path = str(json.loads(response.read(1 << 16))['accessUri'])
            except (ValueError, KeyError, TypeError) as error:
                raise UnavailableError(f'{what}: the answer does not say where the parts go') from error
        return path.rstrip('/')

    def put_part(self, name: str, upload: str, number: int, data: bytes, url: str) -> Part:
        """Put a part."""
        answer = self._put(f'{upload}/{number}', data, f'PUT {url}, part {number}', {})
        return Part(number, answer.get('etag', ''), base64.b64decode(base64_md5(data)))

    def commit(self, name: str, upload: str, parts: Sequence[Part], overwrite: bool, url: str) -> str | None:
        """Make the parts an object and return its ETag."""
        what = f'commit the upload of {url}'
        with self._session.send('POST', f'{upload}/', what=what, headers=_condition(overwrite), body=b'') as response:
            response.read(1 << 16)
        compare_md5(response.headers.get('opc-multipart-md5'), multipart_md5(parts), what)
        return response.headers.get('etag')

    def abort(self, name: str, upload: str, url: str) -> None:
        """Forget an upload."""
        with self._session.send('DELETE', f'{upload}/', what=f'abort the upload of {url}') as response:
            response.read(1 << 16)

    def delete(self, name: str, url: str) -> None:
        """Refuse: no pre-authenticated request allows it.

        Raises:
            DeniedError: always.
        """
        raise DeniedError(f'DELETE {url}: a pre-authenticated request does not allow it')

    def close(self) -> None:
        """Nothing of its own is open."""

    def _put(self, target: str, data: bytes, what: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        md5 = base64_md5(data)
        sent = {'content-md5': md5, **headers, **sse_headers(self._session.options)}
        with self._session.send('PUT', target, what=what, headers=sent, body=data) as response:
            response.read(1 << 16)
        compare_md5(response.headers.get('opc-content-md5'), md5, what)
        return response.headers

    def _target(self, kind: str, name: str) -> str:
        return f'{self._session.bucket_target()}/{kind}/{quote(name, safe="")}'

    def _managed_key(self) -> dict[str, str]:
        key = self._session.options.kms_key_id
        return {'opc-sse-kms-key-id': key} if key else {}


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {'if-none-match': '*'}
