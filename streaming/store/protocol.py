"""What an object store is to the rest of the library: objects under keys, read by range, put whole, listed, deleted.

A store is one dataset's root: a bucket and a prefix, or a folder. Keys are relative to it, with `/` between their
parts, and never start with `/` nor hold `..`. A backend is one file beside this one and the only home of its SDK, its
environment variables and its errors: everything it raises is of `streaming.errors`. Retries are not its business (see
`streaming.store.retry`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streaming.errors import ArgumentError

__all__ = ['ObjectInfo', 'Store', 'check_key', 'check_prefix', 'check_range']


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object without sending it.

    Args:
        key: Its key, relative to the store's root.
        size: Its size in bytes.
        etag: What changes when the object does; None where a store has nothing of the kind.
    """

    key: str
    size: int
    etag: str | None = None


class Store(ABC):
    """Objects under keys. Any thread of a process may call any method; a store pickles (without its connections) and
    works after a fork.

    Attributes:
        url: The root, fit for messages: without secrets.
    """

    url: str

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Size and ETag of an object.

        Raises:
            NotFoundError: there is no such object.
        """

    @abstractmethod
    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """A whole object in memory, in one request where the store can.

        Args:
            key: The object's key.
            limit_bytes: Refuse an object larger than this (CorruptError). Default: None, no limit.

        Raises:
            NotFoundError: there is no such object.
        """

    @abstractmethod
    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        """Fill ``buffer`` with the object's bytes from ``start``: exactly ``len(buffer)`` of them, or an error.

        Returns what the store said of the object on the way; None where it says nothing.

        Args:
            key: The object's key.
            start: First byte to read, 0-based.
            buffer: Writable and contiguous, one byte an item, at least one byte long.
            if_match: The ETag that the object must still have. Default: None, any.
            on_bytes: Called in this thread with the number of bytes that just arrived at the front of what was still
                missing, so that a cut request is taken up where it stopped. May raise to cancel the read.

        Raises:
            NotFoundError: there is no such object.
            PreconditionError: the object has another ETag.
            CorruptError: the object ends before the range does.
        """

    @abstractmethod
    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        """Store an object, atomically: a reader sees the whole of it or what was there before.

        Returns only when the store has acknowledged every byte (size, and checksum where the store has one).

        Raises:
            AlreadyExistsError: the object exists and ``overwrite`` is False.
        """

    @abstractmethod
    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, in the order of their keys, page by page.

        Args:
            prefix: What the keys start with, whole parts or not. Default: every key.
            after: Leave out this key and all before it, so that a listing that broke off can go on. Default: leave out
                none.

        Raises:
            NotFoundError: the bucket does not exist. A folder that does not exist holds no objects.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is no error."""

    def close(self) -> None:
        """Give back connections, and cancel what other threads still do here: their calls end within a second, with
        CancelledError where they wait for another try. The store may be used again afterwards.
        """

    def url_of(self, key: str) -> str:
        """The object's URL, fit for messages."""
        return f'{self.url.rstrip("/")}/{key}' if key else self.url


def check_key(key: str) -> str:
    """Return ``key`` if it stays inside a store's root.

    Raises:
        ArgumentError: it is empty, absolute, holds a NUL or a backslash, or a part that is empty, ``.`` or ``..``.
    """
    if not key or '\0' in key or '\\' in key or any(part in ('', '.', '..') for part in key.split('/')):
        raise ArgumentError(
            f'not a key inside a dataset: {key!r} (parts must not be empty, "." or "..", nor hold NUL or backslash)'
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if some key could start with it.

    Raises:
        ArgumentError: none could.
    """
    if prefix:
        check_key(prefix.removesuffix('/'))
    return prefix


def check_range(start: int, buffer: memoryview) -> None:
    """Refuse a range that no store can read.

    Raises:
        ArgumentError: the start is negative, or the buffer is empty, read-only, not contiguous or not of bytes.
    """
    if start < 0:
        raise ArgumentError(f'a range starts at byte 0 or later, got {start}')
    if buffer.readonly or not buffer.c_contiguous or buffer.itemsize != 1 or buffer.ndim != 1 or not buffer.nbytes:
        raise ArgumentError(
            'a range is read into a writable, contiguous memoryview of at least one byte, got '
            f'{buffer.nbytes} bytes of format {buffer.format!r}, strides {buffer.strides}, read-only: {buffer.readonly}'
        )
