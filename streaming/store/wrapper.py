"""A store around a store that changes nothing: what retries, latency, faults and counters derive from."""

from collections.abc import Callable, Iterator
from pathlib import Path

from streaming.store.protocol import ObjectInfo, Store

__all__ = ['WrapperStore']


class WrapperStore(Store):
    """Hands every call on.

    Args:
        inner: The store that does the work.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.url = inner.url

    def head(self, key: str) -> ObjectInfo:
        return self.inner.head(key)

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        return self.inner.get(key, limit_bytes=limit_bytes)

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        return self.inner.read_into(key, start, buffer, if_match=if_match, on_bytes=on_bytes)

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        return self.inner.put(key, source, overwrite=overwrite)

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, after=after)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def close(self) -> None:
        self.inner.close()

    def url_of(self, key: str) -> str:
        return self.inner.url_of(key)
