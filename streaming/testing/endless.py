"""A bucket of OCI Object Storage as large as one likes, in no space: what is put is counted and forgotten, every object is zeros,
a listing is made as it is asked for. In a thread of this process; it lets everybody in.

    with EndlessBucket(object_bytes=10 << 30, keys=1_000_000) as bucket:
        store = open_store(bucket.url, bucket.options)
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

from typing_extensions import Self

__all__ = ['EndlessBucket']

_PAGE = 1000
_ZEROS = memoryview(bytes(1 << 20))


class EndlessBucket:
    """The bucket and its server.

    Args:
        object_bytes: Size of every object. Default: 0.
        keys: How many objects a listing shows. Default: 0.

    Attributes:
        url: For `open_store`, together with ``options``.
        options: See ``url``.
        put_bytes: How many bytes have been put.
    """

    def __init__(self, *, object_bytes: int = 0, keys: int = 0) -> None:
        self.object_bytes = object_bytes
        self.keys = keys
        self.put_bytes = 0
        self.lock = threading.Lock()
        # Upload -> number of the part -> base64 MD5
        self.parts: dict[str, dict[int, str]] = {}
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), type('Handler', (_Handler,), {'bucket': self}))
        self._server.daemon_threads = True
        self.url = f'oci://bucket@endless?endpoint=http://127.0.0.1:{self._server.server_port}'
        self.options: dict[str, object] = {'signer': _no_signer}
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.02})
        self._thread.start()

    def name(self, number: int) -> str:
        """The key of an object of the listing, 0-based."""
        return f'shard.{number:09d}.mds'

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()


class _NoSigner:
    def do_request_sign(self, request: Any, **_: object) -> Any:
        return request

    __call__: Callable[..., Any] = do_request_sign


def _no_signer() -> _NoSigner:
    return _NoSigner()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    bucket: EndlessBucket

    def do_PUT(self) -> None:
        left = int(self.headers['content-length'])
        room = memoryview(bytearray(min(left, 1 << 20)))
        with self.bucket.lock:
            self.bucket.put_bytes += left
        while left:
            left -= self.rfile.readinto(room[: min(left, len(room))])
        md5 = self.headers['content-md5']
        query = self._query()
        if 'uploadId' in query:
            with self.bucket.lock:
                self.bucket.parts[query['uploadId']][int(query['uploadPartNum'])] = md5
        self._answer(200, {'etag': md5, 'opc-content-md5': md5})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers['content-length'] or 0))
        upload = self._query().get('uploadId')
        with self.bucket.lock:
            if upload is None:
                upload = f'upload-{len(self.bucket.parts)}'
                self.bucket.parts[upload] = {}
                return self._json({'uploadId': upload})
            parts = self.bucket.parts.pop(upload)
        digest = hashlib.md5(b''.join(base64.b64decode(parts[number]) for number in sorted(parts)), usedforsecurity=False)
        md5 = f'{base64.b64encode(digest.digest()).decode()}-{len(parts)}'
        return self._answer(200, {'etag': md5, 'opc-multipart-md5': md5})

    def do_HEAD(self) -> None:
        self._answer(200, {'etag': 'zeros'}, self.bucket.object_bytes)

    def do_GET(self) -> None:
        if self.path.partition('?')[0].endswith('/o'):
            return self._list()
        match = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers['range'] or 'bytes=0-')
        assert match is not None
        size = self.bucket.object_bytes
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        self._answer(206, {'etag': 'zeros', 'content-range': f'bytes {start}-{stop - 1}/{size}'}, stop - start)
        for at in range(start, stop, len(_ZEROS)):
            self.wfile.write(_ZEROS[: stop - at])

    def _list(self) -> None:
        query, bucket = self._query(), self.bucket
        start = query.get('start', '')
        first = int(start.split('.')[1]) if start else 0
        last = min(bucket.keys, first + int(query.get('limit', _PAGE)))
        page: dict[str, Any] = {
            'objects': [
                {'name': bucket.name(number), 'size': bucket.object_bytes, 'etag': 'zeros'} for number in range(first, last)
            ]
        }
        if last < bucket.keys:
            page['nextStartWith'] = bucket.name(last)
        self._json(page)

    def _query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.path.partition('?')[2]).items()}

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self._answer(200, {'content-type': 'application/json'}, len(data))
        self.wfile.write(data)

    def _answer(self, status: int, headers: dict[str, str], size: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('content-length', str(size))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
