"""The bodies of objects on their way out: as fast as the kernel sends a file, or as slow and as broken as a fault says."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from aiohttp import web

from streaming.testing.oci.faults import Fault

__all__ = ['Body', 'tear']

_CHUNK = 1 << 20
# Up to here, one write of head and body costs less than sendfile.
_SMALL = 128 << 10


class Body:
    """Some bytes of a file, to be sent once.

    Args:
        path: The file.
        span: Which bytes.
        bytes_per_s: Most bytes a second. None: no limit.
        fault: What goes wrong on the way. None: nothing.

    Attributes:
        sent: How many bytes have gone out.
    """

    def __init__(self, path: Path, span: range, bytes_per_s: float | None, fault: Fault | None) -> None:
        self._path = path
        self._span = span
        self._bytes_per_s = bytes_per_s
        self._fault = fault
        self.sent = 0

    async def send(self, request: web.Request, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        """Answer with them."""
        if self._fault is not None or self._bytes_per_s is not None:
            return await self._send_badly(request, status, headers)
        with self._path.open('rb', buffering=0) as file:
            file.seek(self._span.start)
            if len(self._span) <= _SMALL:
                data = file.read(len(self._span))
                self.sent = len(data)
                return web.Response(body=data, status=status, headers=headers)
            response = await _begin(request, status, headers, len(self._span))
            if request.transport is None:
                return response
            try:
                # The head is written through at once.
                await asyncio.get_running_loop().sendfile(request.transport, file, self._span.start, len(self._span))
            finally:
                self.sent = file.tell() - self._span.start
        await response.write_eof()
        return response

    async def _send_badly(self, request: web.Request, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        response = await _begin(request, status, headers, len(self._span))
        async for chunk in self._chunks():
            if chunk is None:
                tear(request)
                return response
            await response.write(chunk)
            self.sent += len(chunk)
        if self._fault is not None and self._fault.kind == 'truncate':
            # Closed in good order, but too early.
            if request.transport is not None:
                request.transport.close()
            return response
        await response.write_eof()
        return response

    async def _chunks(self) -> AsyncIterator[bytes | None]:
        """The bytes as they shall go out; None where the connection is to be torn."""
        fault, bytes_per_s = self._fault, self._bytes_per_s
        start, stop = self._span.start, self._span.stop
        kind = None if fault is None else fault.kind
        offset = None if fault is None or fault.offset is None else start + fault.offset
        if fault is not None and kind == 'drip':
            bytes_per_s = fault.bytes_per_s
        step = _CHUNK if bytes_per_s is None else max(1, min(_CHUNK, int(bytes_per_s / 20)))
        with self._path.open('rb', buffering=0) as file:
            file.seek(start)
            at = start
            while at < stop:
                end = min(at + step, stop)
                if kind in ('reset', 'truncate', 'stall') and offset is not None and at <= offset < end:
                    end = offset
                chunk = file.read(end - at)
                if kind == 'corrupt' and at <= (offset if offset is not None else start) < end:
                    where = (offset if offset is not None else start) - at
                    chunk = chunk[:where] + bytes([chunk[where] ^ 0xFF]) + chunk[where + 1 :]
                if chunk:
                    yield chunk
                at = end
                if bytes_per_s is not None:
                    await asyncio.sleep(len(chunk) / bytes_per_s)
                if fault is not None and offset is not None and at == offset and kind in ('reset', 'truncate', 'stall'):
                    if kind == 'reset':
                        yield None
                    if kind != 'stall':
                        return
                    await asyncio.sleep(fault.seconds)
                    kind = None


async def _begin(request: web.Request, status: int, headers: Mapping[str, str], size: int) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = size
    await response.prepare(request)
    return response


def tear(request: web.Request) -> None:
    """Tear the connection: the peer gets a reset, not an end."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info('socket')
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        transport.abort()
