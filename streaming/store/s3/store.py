"""Objects in an S3 bucket.

Reads go over our own connections (counted, into the caller's buffer, held to a floor on throughput), all else through boto3 (see
`session`). boto3's retries are off, ours are around this.
"""

import base64
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from streaming.errors import CorruptError, NotFoundError, UnavailableError
from streaming.store.parts import Part, PartsStore
from streaming.store.protocol import ObjectInfo, check_key, check_prefix, check_range
from streaming.store.ranges import WHOLE, range_header, read_range, read_whole
from streaming.store.s3.client import customer_key
from streaming.store.s3.options import S3Options
from streaming.store.s3.session import Session

__all__ = ['S3Store']

logger = logging.getLogger(__name__)


class S3Store(PartsStore):
    """A bucket, or a prefix in it.

    No request is made and nothing is imported before the first call. It pickles without anything live; each process has a session
    of its own.

    Args:
        options: Where and how.

    Attributes:
        page: Keys asked for in one request of a listing.
    """

    page = 1000

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self.url = options.url
        self.single_put_bytes = options.single_put_bytes
        self.part_bytes = options.part_bytes
        self._by_process: dict[int, Session] = {}

    @classmethod
    def open(cls, url: str, options: Mapping[str, object]) -> 'S3Store':
        """Make the store of an ``s3://`` URL; see S3Options for the options.

        Raises:
            ArgumentError: a URL or an option that cannot work.
        """
        return cls(S3Options.parse(url, options))

    def __getstate__(self) -> S3Options:
        return self.options

    def __setstate__(self, options: S3Options) -> None:
        self.__init__(options)  # type: ignore[misc]

    def _session(self) -> Session:
        pid = os.getpid()
        found = self._by_process.get(pid)
        if found is None:
            # The last one is of the process that this one was forked from, if that had any.
            known = list(self._by_process.values())  # at once: other threads may be here too
            found = self._by_process.setdefault(pid, Session(self.options, known[-1] if known else None))
        return found

    def _name(self, key: str) -> str:
        return self.options.prefix + check_key(key)

    def _call(self, operation: str, what: str, key: str, **arguments: Any) -> Any:
        """Make a request for an object through boto3."""
        return self._session().call(operation, what, Key=self._name(key), **arguments)

    # Reading

    def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, *self._session().head(self._name(key), f'HEAD {self.url_of(key)}'))

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        what, name = f'GET {self.url_of(key)}', self._name(key)
        try:
            opened = self._session().get(name, what, span=WHOLE)
        except CorruptError:
            opened = self._session().get(name, what)  # it is empty
        with opened as response:
            data = read_whole(response, limit_bytes, what)
            etag = response.headers.get('etag', '')
        wanted = etag.strip('"')
        # The ETag is the MD5 of what was put in one piece, unless a key of KMS or the caller's encrypts it.
        plain = response.headers.get('x-amz-server-side-encryption') in (None, 'AES256') and not self.options.sse_customer_key
        if plain and len(wanted) == 32 and wanted != (found := _md5(data).hex()):
            raise UnavailableError(f'{what}: its bytes have the MD5 {found}, its ETag is {etag}')
        return data

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        check_range(start, buffer)
        what = f'GET {self.url_of(key)}, bytes {start} to {start + len(buffer)}'
        span = range_header(start, len(buffer))
        with self._session().get(self._name(key), what, span=span, if_match=if_match) as response:
            size = read_range(response, start, buffer, on_bytes, what)
            return None if size is None else ObjectInfo(key, size, response.headers.get('etag'))

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix, after)

    def _list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        what, root = f'LIST {self.url_of(prefix)}', self.options.prefix
        arguments: dict[str, Any] = {'Prefix': root + prefix, 'MaxKeys': self.page}
        if after:
            arguments['StartAfter'] = root + after
        while True:
            page = self._session().call('list_objects_v2', what, **arguments)
            for item in page.get('Contents', ()):
                key = str(item['Key'])[len(root) :]
                # The folders that consoles make are empty objects whose names end in a slash.
                if key > after and not key.endswith('/'):
                    yield ObjectInfo(key, int(item['Size']), item.get('ETag'))
            if not page.get('IsTruncated'):
                return
            arguments['ContinuationToken'] = page['NextContinuationToken']

    # Writing

    def put_whole(self, key: str, data: bytes, *, overwrite: bool) -> ObjectInfo:
        found = self._call(
            'put_object',
            f'PUT {self.url_of(key)}',
            check_key(key),
            Body=data,
            ContentMD5=base64.b64encode(_md5(data)).decode(),
            **_condition(overwrite),
            **customer_key(self.options),
            **self._managed_key(),
        )
        return ObjectInfo(key, len(data), found.get('ETag'))

    def begin_parts(self, key: str, *, overwrite: bool) -> str:
        what = f'begin the upload of {self.url_of(key)}'
        found = self._call('create_multipart_upload', what, key, **customer_key(self.options), **self._managed_key())
        upload: str = found['UploadId']
        return upload

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        md5 = _md5(data)
        found = self._call(
            'upload_part',
            f'PUT {self.url_of(key)}, part {number}',
            key,
            UploadId=upload,
            PartNumber=number,
            Body=data,
            ContentMD5=base64.b64encode(md5).decode(),
            **customer_key(self.options),
        )
        return Part(number, found['ETag'], md5)

    def commit_parts(self, key: str, upload: str, parts: Sequence[Part], size: int, *, overwrite: bool) -> ObjectInfo:
        what = f'commit the upload of {self.url_of(key)}'
        listed = [{'PartNumber': part.number, 'ETag': part.etag} for part in parts]
        found = self._call(
            'complete_multipart_upload',
            what,
            key,
            UploadId=upload,
            MultipartUpload={'Parts': listed},
            **_condition(overwrite),
        )
        # It answers before it has said how much it stored.
        info = self.head(key)
        if info.size != size:
            raise UnavailableError(f'{what}: the service stored {info.size} bytes, {size} were sent')
        return ObjectInfo(key, size, found.get('ETag'))

    def find_made_of(self, key: str, parts: Sequence[Part], size: int) -> ObjectInfo | None:
        try:
            info = self.head(key)
        except NotFoundError:
            return None
        made = f'"{_md5(b"".join(part.md5 for part in parts)).hex()}-{len(parts)}"'
        return info if info.size == size and info.etag == made else None

    def abort_parts(self, key: str, upload: str) -> None:
        with suppress(NotFoundError):
            self._call('abort_multipart_upload', f'abort the upload of {self.url_of(key)}', key, UploadId=upload)

    def delete(self, key: str) -> None:
        self._call('delete_object', f'DELETE {self.url_of(key)}', check_key(key))

    def close(self) -> None:
        session = self._by_process.pop(os.getpid(), None)
        if session is not None:
            session.close()

    def _managed_key(self) -> dict[str, str]:
        if self.options.kms_key_id is None:
            return {}
        return {'ServerSideEncryption': 'aws:kms', 'SSEKMSKeyId': self.options.kms_key_id}


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {'IfNoneMatch': '*'}


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
