"""Parts of an object of which the whole is not here yet: all of one version, and counted apart from what is fetched to stay."""

from collections.abc import Callable

from streaming.cache.fetch import ObjectVersion
from streaming.format.shard import FileInfo
from streaming.store.protocol import Store

__all__ = ['ObjectRanges']


class ObjectRanges:
    """Reads ranges of one object. Any thread may.

    Args:
        store: Where the object is.
        file: What the index says of it.
        on_bytes: Called from the reading threads with the number of bytes that just came. May raise to cancel.
    """

    def __init__(self, store: Store, file: FileInfo, on_bytes: Callable[[int], None]) -> None:
        self._store = store
        self._file = file
        self._version = ObjectVersion(store.url_of(file.basename), file.bytes)
        self._on_bytes = on_bytes

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the object's bytes from ``start``.

        Raises:
            CorruptError: the object has not the size that the index says, or is another one than it was.
            StoreError: the store failed, after its retries.
        """
        self._version.check(self._store.read_into(self._file.basename, start, buffer, on_bytes=self._on_bytes))
