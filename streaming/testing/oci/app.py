"""The server's answers: the native API of OCI Object Storage, as far as a dataset needs it."""

import asyncio
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from streaming.testing.oci.bodies import Body, tear
from streaming.testing.oci.faults import Fault, Faults
from streaming.testing.oci.objects import Bucket, Objects, StoredObject, Upload, spool
from streaming.testing.oci.signature import Refused, check_signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ['Service']

_CHUNK = 1 << 20
_PAGE = 1000
_CODES = {
    400: 'InvalidParameter',
    401: 'NotAuthenticated',
    404: 'NotAuthorizedOrNotFound',
    409: 'Conflict',
    429: 'TooManyRequests',
}
_BUCKET = re.compile(r'/n/([^/]+)/b/([^/]+)(?:/(o|u)(?:/(.*))?)?')


class Failure(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers or {})


class Service:
    """One namespace of Object Storage.

    Args:
        namespace: Its name.
        objects: Its buckets.
        keys: Public keys by key id.
        control_token: What a control request must show.
        latency_s: How long every request takes at least.
        bytes_per_s: Most bytes of a body a second, each connection. None: no limit.
    """

    def __init__(
        self,
        namespace: str,
        objects: Objects,
        keys: 'Mapping[str, RSAPublicKey]',
        control_token: str,
        *,
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
    ) -> None:
        self._namespace = namespace
        self._objects = objects
        self._keys = keys
        self._control_token = control_token
        self._latency_s = latency_s
        self._bytes_per_s = bytes_per_s
        self._faults = Faults()
        self._requests: Counter[str] = Counter()
        self._served: Counter[str] = Counter()

    def application(self) -> web.Application:
        """The application, to be served on one loop."""
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route('*', '/{any:.*}', self._handle)
        return application

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        target = request.raw_path
        raw_path, _, _ = target.partition('?')
        if raw_path.startswith('/control/'):
            return await self._control(request, raw_path.removeprefix('/control/'))
        request_id = uuid.uuid4().hex
        path = unquote(raw_path)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        fault = self._faults.find(request.method, path)
        self._requests[f'{request.method} {path}'] += 1
        try:
            early = await self._act_early(fault, request)
            if early is not None:
                return early
            await self._authenticate(request, target, raw_path)
            answer = await self._route(request, raw_path, fault, request_id)
            if fault is not None and fault.kind == 'lose':
                tear(request)
            return answer
        except Failure as failure:
            body = b'' if request.method == 'HEAD' else json.dumps({'code': failure.code, 'message': str(failure)}).encode()
            headers = {'opc-request-id': request_id, 'content-type': 'application/json', **failure.headers}
            return web.Response(status=failure.status, body=body, headers=headers)
        except ConnectionResetError:
            return web.Response(status=500)  # goes nowhere: the client has left

    async def _act_early(self, fault: Fault | None, request: web.Request) -> web.StreamResponse | None:
        """Do what a fault does before the request is looked at."""
        if fault is None:
            return None
        if fault.kind == 'status':
            retry = {} if fault.retry_after is None else {'retry-after': f'{fault.retry_after:g}'}
            code = fault.code or _CODES.get(fault.status, 'ServiceUnavailable' if fault.status == 503 else 'InternalServerError')
            raise Failure(fault.status, code, 'told to fail', retry)
        if fault.kind == 'skew':
            headers = {'date': formatdate(time.time() + fault.seconds, usegmt=True)}
            raise Failure(401, 'NotAuthenticated', 'the date is too far from the time here', headers)
        if fault.kind == 'reset' and fault.offset is None:
            tear(request)
            return web.Response(status=500)
        if fault.kind == 'stall' and fault.offset is None:
            await asyncio.sleep(fault.seconds)
        return None

    async def _authenticate(self, request: web.Request, target: str, raw_path: str) -> None:
        puts = request.method == 'PUT' and re.match(r'/n/[^/]+/b/[^/]+/[ou]/', raw_path) is not None
        signs_body = request.method in ('POST', 'PUT', 'PATCH') and not puts
        body = await request.read() if signs_body else b''
        try:
            check_signature(request.method, target, request.headers, self._keys, signs_body=signs_body, body=body)
        except Refused as error:
            raise Failure(401, 'NotAuthenticated', f'The required information to complete authentication: {error}') from None

    async def _route(self, request: web.Request, raw_path: str, fault: Fault | None, request_id: str) -> web.StreamResponse:
        method = request.method
        answer = {'opc-request-id': request_id}
        if raw_path in ('/n', '/n/') and method == 'GET':
            return web.json_response(self._namespace, headers=answer)
        if raw_path.rstrip('/') == f'/n/{self._namespace}/b' and method == 'POST':
            name = (await request.json())['name']
            self._objects.create(name)
            return web.json_response({'namespace': self._namespace, 'name': name}, headers=answer)
        bucket, kind, name = self._find(raw_path)
        if kind is None:
            if method in ('GET', 'HEAD'):
                return web.json_response(
                    {'namespace': self._namespace, 'name': unquote(raw_path.rsplit('/', 1)[-1])}, headers=answer
                )
        elif kind == 'o' and name is None:
            if method == 'GET':
                return web.json_response(_list(bucket, request.query), headers=answer)
        elif kind == 'o' and name is not None:
            if method == 'PUT':
                return await self._put(request, bucket, name, answer)
            if method in ('GET', 'HEAD'):
                return await self._get(request, bucket, name, fault, answer)
            if method == 'DELETE':
                _object(bucket, name)
                bucket.delete(name)
                return web.Response(status=204, headers=answer)
        elif kind == 'u':
            return await self._multipart(request, bucket, name, answer)
        raise Failure(405, 'MethodNotAllowed', f'{method} is not served here')

    def _find(self, raw_path: str) -> tuple[Bucket, str | None, str | None]:
        match = _BUCKET.fullmatch(raw_path)
        bucket = self._objects.buckets.get(unquote(match.group(2))) if match else None
        if match is None or unquote(match.group(1)) != self._namespace or bucket is None:
            raise Failure(
                404, 'BucketNotFound', f'Either the bucket does not exist or you are not allowed to access it: {raw_path}'
            )
        name = match.group(4)
        return bucket, match.group(3), unquote(name) if name else None

    # ---- objects -----------------------------------------------------------------------------------------------------------

    async def _put(self, request: web.Request, bucket: Bucket, name: str, answer: dict[str, str]) -> web.StreamResponse:
        _check_conditions(bucket.objects.get(name), request.headers, putting=True)
        path, md5, _ = await self._spool(request, bucket)
        try:
            _check_conditions(bucket.objects.get(name), request.headers, putting=True)
        except Failure:
            path.unlink()
            raise
        stored = bucket.commit(name, path, md5)
        modified = formatdate(stored.modified, usegmt=True)
        return web.Response(headers={**answer, 'etag': stored.etag, 'opc-content-md5': md5, 'last-modified': modified})

    async def _spool(self, request: web.Request, bucket: Bucket) -> tuple[Any, str, int]:
        path, md5, size = await spool(request.content.iter_chunked(_CHUNK), bucket.spool)
        length, wanted = request.headers.get('content-length'), request.headers.get('content-md5')
        if (length is not None and int(length) != size) or (wanted is not None and wanted != md5):
            path.unlink()
            raise Failure(
                400, 'UnmatchedContentMD5', f'the body has MD5 {md5} and {size} bytes, announced were {wanted} and {length}'
            )
        return path, md5, size

    async def _get(
        self, request: web.Request, bucket: Bucket, name: str, fault: Fault | None, answer: dict[str, str]
    ) -> web.StreamResponse:
        stored = _object(bucket, name)
        _check_conditions(stored, request.headers, putting=False)
        span, status = _range(request.headers.get('range'), stored.size)
        headers = {
            **answer,
            'etag': stored.etag,
            'last-modified': formatdate(stored.modified, usegmt=True),
            'accept-ranges': 'bytes',
            'content-type': 'application/octet-stream',
            'opc-multipart-md5' if stored.parts else 'content-md5': stored.md5,
        }
        if status == 206:
            headers['content-range'] = f'bytes {span.start}-{span.stop - 1}/{stored.size}'
        if fault is not None and fault.kind == 'short':
            span = span[: fault.offset or 0]
        if request.method == 'HEAD':
            response = web.StreamResponse(status=status, headers=headers)
            response.content_length = len(span)
            return response
        body = Body(bucket.path(stored), span, self._bytes_per_s, fault)
        try:
            return await body.send(request, status, headers)
        finally:
            self._served[unquote(request.raw_path.partition('?')[0])] += body.sent

    # ---- uploads in parts --------------------------------------------------------------------------------------------------

    async def _multipart(
        self, request: web.Request, bucket: Bucket, name: str | None, answer: dict[str, str]
    ) -> web.StreamResponse:
        if request.method == 'POST' and name is None:
            target: str = (await request.json())['object']
            _check_conditions(bucket.objects.get(target), request.headers, putting=True)
            upload = Upload(target, bucket.spool)
            bucket.uploads[upload.id] = upload
            about = {'namespace': self._namespace, 'bucket': bucket.folder.name, 'object': target, 'uploadId': upload.id}
            return web.json_response({**about, 'timeCreated': _time(time.time())}, headers=answer)
        found = bucket.uploads.get(request.query.get('uploadId', ''))
        if found is None or found.name != name:
            raise Failure(404, 'InvalidUploadId', f'there is no such upload of {name}')
        if request.method == 'PUT':
            number = int(request.query.get('uploadPartNum', '0'))
            if not 1 <= number <= 10_000:
                raise Failure(400, 'InvalidUploadPart', f'part {number}')
            path, md5, size = await self._spool(request, bucket)
            path.replace(found.path(number))
            part = StoredObject(name or '', size, uuid.uuid4().hex, md5, 0, time.time())
            found.parts[number] = part
            return web.Response(headers={**answer, 'etag': part.etag, 'opc-content-md5': md5})
        if request.method == 'GET':
            parts = sorted(found.parts.items())
            listed = [{'partNumber': n, 'size': part.size, 'md5': part.md5, 'etag': part.etag} for n, part in parts]
            return web.json_response(listed, headers=answer)
        if request.method == 'DELETE':
            bucket.abort(found)
            return web.Response(status=204, headers=answer)
        if request.method == 'POST':
            return self._commit(bucket, found, await request.json(), request.headers, answer)
        raise Failure(405, 'MethodNotAllowed', f'{request.method} is not served here')

    @staticmethod
    def _commit(
        bucket: Bucket, upload: Upload, asked: Mapping[str, Any], headers: Mapping[str, str], answer: dict[str, str]
    ) -> web.StreamResponse:
        _check_conditions(bucket.objects.get(upload.name), headers, putting=True)
        etags = {part['partNum']: part['etag'] for part in asked['partsToCommit']}
        numbers = sorted(etags)
        known = [upload.parts[number].etag for number in numbers if number in upload.parts]
        if not numbers or [etags[number] for number in numbers] != known:
            raise Failure(400, 'InvalidUploadPart', 'the parts to commit are not those that were put')
        stored = bucket.commit_parts(upload, numbers)
        modified = formatdate(stored.modified, usegmt=True)
        return web.Response(headers={**answer, 'etag': stored.etag, 'opc-multipart-md5': stored.md5, 'last-modified': modified})

    # ---- control -----------------------------------------------------------------------------------------------------------

    async def _control(self, request: web.Request, action: str) -> web.StreamResponse:
        if request.headers.get('x-control-token') != self._control_token:
            return web.Response(status=403)
        if action == 'faults' and request.method == 'POST':
            self._faults.add(**await request.json())
        elif action == 'faults' and request.method == 'DELETE':
            self._faults.clear()
        elif action == 'faults':
            return web.json_response(self._faults.unspent())
        elif action == 'buckets' and request.method == 'POST':
            self._objects.create(await request.json())
        elif action == 'stats' and request.method == 'DELETE':
            self._requests.clear()
            self._served.clear()
        elif action == 'stats':
            return web.json_response({'requests': self._requests, 'bytes': self._served})
        else:
            return web.Response(status=404)
        return web.json_response(None)


def _object(bucket: Bucket, name: str) -> StoredObject:
    stored = bucket.objects.get(name)
    if stored is None:
        raise Failure(404, 'ObjectNotFound', f"The object '{name}' was not found in the bucket '{bucket.folder.name}'")
    return stored


def _check_conditions(stored: StoredObject | None, headers: Mapping[str, str], *, putting: bool) -> None:
    if_match, if_none_match = headers.get('if-match'), headers.get('if-none-match')
    if if_match is not None and (stored is None or if_match not in ('*', stored.etag)):
        raise Failure(412, 'IfMatchFailed', f'the ETag is {stored.etag if stored else None}, not {if_match}')
    if if_none_match is not None and stored is not None and if_none_match in ('*', stored.etag):
        if putting:
            raise Failure(412, 'IfNoneMatchFailed', f'the object exists with ETag {stored.etag}')
        raise Failure(304, 'NotModified', 'not modified')


def _range(header: str | None, size: int) -> tuple[range, int]:
    """The bytes that a request is for, and the status of its answer."""
    if header is None:
        return range(size), 200
    match = re.fullmatch(r'bytes=(\d*)-(\d*)', header.strip())
    if match is None or match.group() == 'bytes=-':
        raise Failure(400, 'InvalidRange', f'no range: {header}')
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise Failure(416, 'InvalidRange', f'{header} of {size} bytes', {'content-range': f'bytes */{size}'})
    return range(start, stop), 206


def _list(bucket: Bucket, query: Mapping[str, str]) -> dict[str, Any]:
    prefix, start, after, end = (query.get(name, '') for name in ('prefix', 'start', 'startAfter', 'end'))
    limit = min(_PAGE, int(query.get('limit', _PAGE)))
    delimiter = query.get('delimiter')
    wanted = set(query.get('fields', 'name').split(','))
    found: list[dict[str, Any]] = []
    prefixes: list[str] = []
    following = None
    for name in sorted(bucket.objects):
        if not name.startswith(prefix) or name < start or (after and name <= after) or (end and name >= end):
            continue
        if len(found) + len(prefixes) == limit:
            following = name
            break
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if delimiter and cut >= 0:
            folder = name[: cut + len(delimiter)]
            if folder not in prefixes:
                prefixes.append(folder)
            continue
        stored = bucket.objects[name]
        about = {'size': stored.size, 'md5': stored.md5, 'etag': stored.etag, 'timeCreated': _time(stored.modified)}
        found.append({'name': name, **{field: value for field, value in about.items() if field in wanted}})
    page: dict[str, Any] = {'objects': found, 'prefixes': prefixes}
    if following is not None:
        page['nextStartWith'] = following
    return page


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec='milliseconds')
