"""A store around a store that counts what is asked of it."""

import threading
from collections.abc import Callable

from streaming.store.protocol import ObjectInfo, Store
from streaming.store.retry import RetryStore
from streaming.store.wrapper import WrapperStore

__all__ = ['CountedStore']


class CountedStore(WrapperStore):
    """Counts reads, and how often the store within tried again.

    Args:
        inner: The store. Its further tries are known where it is a `RetryStore`.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._reads = 0
        self._retries_before = self._retries()

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        with self._lock:
            self._reads += 1
        return self.inner.read_into(key, start, buffer, if_match=if_match, on_bytes=on_bytes)

    def take(self) -> dict[str, int]:
        """``requests``, further tries included, and ``retries`` since this was asked last."""
        with self._lock:
            reads, self._reads = self._reads, 0
            before, self._retries_before = self._retries_before, self._retries()
            # Less than before: this process was forked, and begins anew.
            retries = max(0, self._retries_before - before)
        return {'requests': reads + retries, 'retries': retries}

    def _retries(self) -> int:
        return self.inner.retrier.retries if isinstance(self.inner, RetryStore) else 0
