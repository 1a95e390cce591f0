"""Large objects in parts: planned and carried out alike for every store that takes an object in parts.

Parts are filled exactly, each has its own tries, and a few are on their way at a time, so memory stays bounded however
large the object is. Whatever fails, the upload is aborted and the object is what it was before.
"""

import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from streaming.errors import AlreadyExistsError, NotFoundError, StoreError
from streaming.store.protocol import ObjectInfo, Store, check_key

__all__ = ['Part', 'PartsStore', 'TryAgain', 'open_source', 'put_in_parts', 'size_of']

logger = logging.getLogger(__name__)

T = TypeVar('T')

_MOST_PARTS = 10_000
# Requests in flight for one object. More add memory (one part each) and, from one process, little speed.
_PARALLEL = 4


class TryAgain(Protocol):
    """Calls a function, perhaps more than once. ``what`` names the request in messages."""

    def __call__(self, what: str, function: Callable[[], T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the store has acknowledged.

    Args:
        number: From 1.
        etag: What the store calls it.
        md5: Of its bytes.
    """

    number: int
    etag: str
    md5: bytes


class PartsStore(Store):
    """A store that takes large objects in parts.

    Attributes:
        single_put_bytes: Objects up to this size are put in one request.
        part_bytes: Size of a part, unless that makes more than 10,000 of them.
    """

    single_put_bytes: int
    part_bytes: int

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        check_key(key)
        if size_of(source) > self.single_put_bytes:
            return put_in_parts(self, _once, key, source, overwrite=overwrite)
        return self.put_whole(key, source.read_bytes() if isinstance(source, Path) else source, overwrite=overwrite)

    @abstractmethod
    def put_whole(self, key: str, data: bytes, *, overwrite: bool) -> ObjectInfo:
        """Put a small object in one request."""

    @abstractmethod
    def begin_parts(self, key: str, *, overwrite: bool) -> str:
        """Begin an upload and return its id."""

    @abstractmethod
    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """Put a part; putting it again replaces it."""

    @abstractmethod
    def commit_parts(self, key: str, upload: str, parts: Sequence[Part], size: int, *, overwrite: bool) -> ObjectInfo:
        """Make the parts an object, and check it.

        Raises:
            NotFoundError: there is no such upload (any more).
            AlreadyExistsError: the object exists and ``overwrite`` is False.
        """

    @abstractmethod
    def find_made_of(self, key: str, parts: Sequence[Part], size: int) -> ObjectInfo | None:
        """The object, if it is the one that these parts make."""

    @abstractmethod
    def abort_parts(self, key: str, upload: str) -> None:
        """Forget an upload and its parts; one that does not exist is no error."""


def put_in_parts(store: PartsStore, try_again: TryAgain, key: str, source: bytes | Path, *, overwrite: bool) -> ObjectInfo:
    """Put an object in parts, each request through ``try_again``.

    Raises:
        AlreadyExistsError: the object exists and ``overwrite`` is False.
        StoreError: a part failed; the upload has been aborted.
    """
    url, size = store.url_of(check_key(key)), size_of(source)
    if not overwrite:
        _refuse_existing(store, try_again, key)
    step = max(store.part_bytes, -(-size // _MOST_PARTS))
    count = -(-size // step)
    upload = try_again(f'begin the upload of {url}', lambda: store.begin_parts(key, overwrite=overwrite))

    def put_part(number: int, data: bytes) -> Part:
        what = f'PUT {url}, part {number} of {count}'
        return try_again(what, lambda: store.put_part(key, upload, number, data))

    try:
        with open_source(source) as file:
            parts = _put_all(file, size, step, put_part, url)
        return _commit(store, try_again, key, upload, parts, size, overwrite=overwrite)
    except BaseException:  # Ctrl-C too: parts that nobody commits are paid for
        _abort(store, key, upload)
        raise


def _put_all(file: BinaryIO, size: int, step: int, put_part: Callable[[int, bytes], Part], url: str) -> list[Part]:
    pending: deque[Future[Part]] = deque()
    parts: list[Part] = []
    pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix='streaming-part')
    try:
        for number, start in enumerate(range(0, size, step), 1):
            wanted = min(step, size - start)
            data = file.read(wanted)
            if len(data) != wanted:
                raise StoreError(f'PUT {url}: its source became shorter than {size} bytes while it was read')
            pending.append(pool.submit(put_part, number, data))
            if len(pending) > _PARALLEL:
                parts.append(pending.popleft().result())
        while pending:
            parts.append(pending.popleft().result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return parts


def _commit(
    store: PartsStore, try_again: TryAgain, key: str, upload: str, parts: Sequence[Part], size: int, *, overwrite: bool
) -> ObjectInfo:
    tries = 0

    def commit() -> ObjectInfo:
        nonlocal tries
        tries += 1
        try:
            return store.commit_parts(key, upload, parts, size, overwrite=overwrite)
        except (NotFoundError, AlreadyExistsError):
            # Perhaps an earlier try of ours was carried out and only its answer was lost.
            found = store.find_made_of(key, parts, size) if tries > 1 else None
            if found is None:
                raise
            return found

    return try_again(f'commit the upload of {store.url_of(key)}', commit)


def _abort(store: PartsStore, key: str, upload: str) -> None:
    try:
        store.abort_parts(key, upload)
    except StoreError as error:
        # The failure that led here is what the caller shall see.
        logger.warning('the unfinished upload of %s could not be aborted, its parts take up space: %s', key, error)


def _refuse_existing(store: PartsStore, try_again: TryAgain, key: str) -> None:
    """Fail before the upload, not after it. What is put meanwhile is caught by the commit."""
    try:
        try_again(f'HEAD {store.url_of(key)}', lambda: store.head(key))
    except NotFoundError:
        return
    raise AlreadyExistsError(f'{store.url_of(key)} exists already')


def _once(what: str, function: Callable[[], T]) -> T:
    return function()


def size_of(source: bytes | Path) -> int:
    """Bytes to be put.

    Raises:
        NotFoundError: the file does not exist.
    """
    if not isinstance(source, Path):
        return len(source)
    try:
        return source.stat().st_size
    except FileNotFoundError as error:
        raise NotFoundError(f'{source} does not exist') from error


def open_source(source: bytes | Path) -> BinaryIO:
    """Read what is to be put like a file."""
    return source.open('rb') if isinstance(source, Path) else BytesIO(source)
