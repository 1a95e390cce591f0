"""Stores around stores that make a good network bad: latency and bandwidth, and failures on purpose."""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from streaming.errors import ArgumentError, StoreError, UnavailableError
from streaming.store.protocol import ObjectInfo, Store
from streaming.store.wrapper import WrapperStore

__all__ = ['Fault', 'FaultyStore', 'LatencyStore']

_OPERATIONS = ('head', 'get', 'read_into', 'put', 'list', 'delete')


class LatencyStore(WrapperStore):
    """Answers late and slowly, as a store at some distance does.

    Args:
        inner: The store.
        latency_s: Before every answer. A listing waits once. Default: 0.03.
        bytes_per_s: Of one request; parallel ones do not share it. Default: None, no limit.
    """

    def __init__(self, inner: Store, *, latency_s: float = 0.03, bytes_per_s: float | None = None) -> None:
        super().__init__(inner)
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s

    def _wait(self, size: int = 0, *, latency: bool = True) -> None:
        seconds = (self.latency_s if latency else 0.0) + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
        if seconds:
            threading.Event().wait(seconds)

    def head(self, key: str) -> ObjectInfo:
        self._wait()
        return self.inner.head(key)

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        self._wait()
        data = self.inner.get(key, limit_bytes=limit_bytes)
        self._wait(len(data), latency=False)
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
        def note(count: int) -> None:
            self._wait(count, latency=False)
            if on_bytes is not None:
                on_bytes(count)

        self._wait()
        return self.inner.read_into(key, start, buffer, if_match=if_match, on_bytes=note)

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        self._wait(source.stat().st_size if isinstance(source, Path) else len(source))
        return self.inner.put(key, source, overwrite=overwrite)

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        self._wait()
        return self.inner.list(prefix, after=after)

    def delete(self, key: str) -> None:
        self._wait()
        self.inner.delete(key)


@dataclass
class Fault:
    """A failure on purpose.

    Args:
        operation: ``head``, ``get``, ``read_into``, ``put``, ``list`` or ``delete``; ``*`` is any.
        key: Regular expression that the whole key (of a list: the prefix) must match. Default: any.
        error: Made anew for each failure. Default: UnavailableError.
        times: How often it strikes; None is for ever. Default: 1.
        skip: How many matching calls go well before it does. Default: 0.
        after_bytes: For ``read_into``: so many bytes arrive before it breaks off. Default: 0, none.
        after_effect: The call does its work and only its answer is lost. Default: False.
        corrupt: For ``read_into`` and ``get``: instead of an error, one bit arrives wrong. Default: False.

    Raises:
        ArgumentError: an operation that there is not.
    """

    operation: str
    key: str = '.*'
    error: Callable[[str], Exception] = UnavailableError
    times: int | None = 1
    skip: int = 0
    after_bytes: int = 0
    after_effect: bool = False
    corrupt: bool = False
    struck: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.operation not in (*_OPERATIONS, '*'):
            raise ArgumentError(f'no operation {self.operation!r}; there are {", ".join(_OPERATIONS)} and *')


class FaultyStore(WrapperStore):
    """Fails where its faults say. The first fault that matches a call decides.

    Args:
        inner: The store.
        faults: Its faults.

    Attributes:
        calls: Every call, as (operation, key).
    """

    def __init__(self, inner: Store, *faults: Fault) -> None:
        super().__init__(inner)
        self.faults = list(faults)
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[Store, list[Fault]]:
        return self.inner, self.faults

    def __setstate__(self, state: tuple[Store, list[Fault]]) -> None:
        self.__init__(state[0], *state[1])  # type: ignore[misc]

    def add(self, fault: Fault) -> Fault:
        """Fail by this fault, too."""
        with self._lock:
            self.faults.append(fault)
        return fault

    def _strike(self, operation: str, key: str) -> Fault | None:
        with self._lock:
            self.calls.append((operation, key))
            for fault in self.faults:
                if fault.operation not in (operation, '*') or not re.fullmatch(fault.key, key):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None and fault.struck >= fault.times:
                    continue
                fault.struck += 1
                return fault
        return None

    def _error(self, fault: Fault, operation: str, key: str) -> Exception:
        return fault.error(f'{operation} {self.url_of(key)}: failed on purpose')

    def head(self, key: str) -> ObjectInfo:
        if fault := self._strike('head', key):
            raise self._error(fault, 'head', key)
        return self.inner.head(key)

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        fault = self._strike('get', key)
        if fault and not fault.corrupt:
            raise self._error(fault, 'get', key)
        data = self.inner.get(key, limit_bytes=limit_bytes)
        return bytes([data[0] ^ 1]) + data[1:] if fault and data else data

    def read_into(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        *,
        if_match: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ObjectInfo | None:
        fault = self._strike('read_into', key)
        if fault is None or fault.corrupt:
            info = self.inner.read_into(key, start, buffer, if_match=if_match, on_bytes=on_bytes)
            if fault:
                buffer[0] ^= 1
            return info
        error = self._error(fault, 'read_into', key)
        if fault.after_bytes:
            if isinstance(error, StoreError):
                error.etag = self.inner.head(key).etag
            self.inner.read_into(key, start, buffer[: fault.after_bytes], if_match=if_match, on_bytes=on_bytes)
        raise error

    def put(self, key: str, source: bytes | Path, *, overwrite: bool = True) -> ObjectInfo:
        fault = self._strike('put', key)
        if fault and not fault.after_effect:
            raise self._error(fault, 'put', key)
        info = self.inner.put(key, source, overwrite=overwrite)
        if fault:
            raise self._error(fault, 'put', key)
        return info

    def list(self, prefix: str = '', *, after: str = '') -> Iterator[ObjectInfo]:
        if fault := self._strike('list', prefix):
            raise self._error(fault, 'list', prefix)
        return self.inner.list(prefix, after=after)

    def delete(self, key: str) -> None:
        fault = self._strike('delete', key)
        if fault and not fault.after_effect:
            raise self._error(fault, 'delete', key)
        self.inner.delete(key)
        if fault:
            raise self._error(fault, 'delete', key)
