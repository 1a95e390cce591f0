"""Reading a range of an object from an HTTP answer, trusting nothing that the answer says of itself."""

import re
from collections.abc import Callable

from streaming.errors import CorruptError, StoreError, UnavailableError
from streaming.store.transport import Response

__all__ = ['WHOLE', 'range_header', 'read_range', 'read_whole']

_CONTENT_RANGE = re.compile(r'bytes (\d+)-(\d+)/(\d+|\*)')


# A range that is the whole object: unlike an answer without a range, one to it says how long the object is. An empty object has
# no ranges and is answered with 416.
WHOLE = 'bytes=0-'


def range_header(start: int, size: int) -> str:
    """The value of a Range header; ends are inclusive there."""
    return f'bytes={start}-{start + size - 1}'


def read_range(
    response: Response, start: int, buffer: memoryview, on_bytes: Callable[[int], None] | None, what: str
) -> int | None:
    """Fill ``buffer`` from an answer of status 206 (or 200, if it is the whole object that was asked for).

    Returns the object's size; None if the answer does not say it.

    Raises:
        CorruptError: the object ends before the range does.
        UnavailableError: the body broke off or was another one; its ``etag`` is the answer's.
        StoreError: the server ignores ranges.
    """
    wanted = len(buffer)
    total: int | None = response.size
    if response.status == 206:
        first, last, total = _parse(response.headers.get('content-range', ''), what)
        if total is not None and total < start + wanted:
            raise CorruptError(f'{what}: the object has {total} bytes')
        if first != start or last >= start + wanted:
            raise UnavailableError(f'{what}: bytes {first} to {last + 1} were answered')
    elif start or response.size != wanted:
        size = 'an unknown number of' if response.size is None else f'{response.size}'
        if response.size is not None and response.size < start + wanted:
            raise CorruptError(f'{what}: the object has {size} bytes')
        raise StoreError(f'{what}: the server does not do ranges, it answered with {size} bytes')
    try:
        if response.size is not None and response.size < wanted:
            response.read_into(buffer[: response.size], on_bytes)
            raise UnavailableError(f'{what}: {response.size} bytes were answered, {wanted} were asked for')
        response.read_into(buffer, on_bytes)
    except UnavailableError as error:
        error.etag = response.headers.get('etag')
        raise
    return total


def read_whole(response: Response, limit_bytes: int | None, what: str) -> bytes:
    """The whole object from an answer to a request for the range ``WHOLE``.

    Raises:
        CorruptError: it is longer than ``limit_bytes``.
        UnavailableError: the body broke off, or was not the whole.
    """
    if response.status != 206:
        return response.read(limit_bytes)
    first, _, total = _parse(response.headers.get('content-range', ''), what)
    if limit_bytes is not None and total is not None and total > limit_bytes:
        raise CorruptError(f'{what}: {total} bytes, more than the {limit_bytes} that can be right')
    data = response.read(limit_bytes)
    if first != 0 or total not in (None, len(data)):
        raise UnavailableError(f'{what}: {len(data)} bytes from {first} were answered, the object has {total}')
    return data


def _parse(value: str, what: str) -> tuple[int, int, int | None]:
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        raise UnavailableError(f'{what}: the answer has the Content-Range {value!r}')
    first, last, total = match.groups()
    return int(first), int(last), None if total == '*' else int(total)
