"""Where a dataset is written, what lies there already, and what becomes of that."""

import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, cast

from streaming.errors import (
    AlreadyExistsError,
    ArgumentError,
    CancelledError,
    FormatError,
    NotFoundError,
    PreconditionError,
    StoreError,
)
from streaming.format.index import FORMATS, ShardTable
from streaming.store import RetryPolicy, RetryStore, open_store
from streaming.store.local import LocalStore
from streaming.store.protocol import Store

__all__ = ['INDEX', 'Destination', 'split_out']

logger = logging.getLogger(__name__)

INDEX = 'index.json'

# The names that writers give, and no others: what is deleted of a writer that was killed must be of a writer.
_SHARD = re.compile(rf'shard\.(\d{{5,}})\.(?:{"|".join(FORMATS)})(?:\.meta)?(?:\.[a-z0-9]+)?')
_PARALLEL = 16


def _is_url(place: str) -> bool:
    """Whether a place is not a plain path (nor a ``file://`` URL)."""
    return ('://' in place or place.startswith('dbfs:/')) and not place.startswith('file://')


class Destination:
    """One store, or a remote one and a local copy. Any thread may put.

    Args:
        out: A path, a URL, or ``(local, remote)``.
        keep_local: Whether to keep the local copy, where ``out`` has both. Without, nothing is put there at all: shards go to
            the remote from memory.
        retry: How often a failed upload is tried again at the least.
        exist_ok: False: refuse to write where a dataset is, or a part of one. True: overwrite it. ``'append'``: add to it.

    Attributes:
        local: The path, None where there is none.
        remote: The URL, None where there is none.
        existing: The dataset to append to; None where a new one is written.
        first_number: Number of the first shard to be written.

    Raises:
        ArgumentError: values that cannot work.
    """

    def __init__(
        self,
        out: str | Path | tuple[str | Path, str | Path],
        *,
        keep_local: bool = False,
        retry: int = 2,
        exist_ok: bool | Literal['append'] = False,
    ) -> None:
        if retry < 0:
            raise ArgumentError(f'retry must not be negative, got {retry}')
        if exist_ok not in (False, True, 'append'):
            raise ArgumentError(f"exist_ok must be False, True or 'append', got {exist_ok!r}")
        self.local, self.remote = split_out(out)
        self.existing: ShardTable | None = None
        self.first_number = 0
        self._mode = exist_ok
        policy = RetryPolicy(tries=max(RetryPolicy().tries, retry + 1))
        # The dataset itself is last: with its index, it is there.
        places = [self.local] if self.remote is None else [*([self.local] if keep_local else []), self.remote]
        self._once = [open_store(place, retry=None) for place in places if place is not None]
        self._stores: list[Store] = [RetryStore(store, policy) for store in self._once]
        self._stale: dict[Store, set[str]] = {store: set() for store in self._stores}
        self._etag: str | None = None
        self._stored: dict[Store, set[str]] = {store: set() for store in self._once}
        self._cancelled = False

    @property
    def url(self) -> str:
        """Of the dataset, for messages."""
        return self._stores[-1].url

    def prepare(self) -> None:
        """See that nothing is overwritten by accident; of what is to be overwritten, remove the index.

        Raises:
            AlreadyExistsError: there is a dataset, or a part of one, and ``exist_ok`` is False.
            FormatError: what is to be appended to is no dataset.
        """
        try:
            if self._mode == 'append':
                self._open_existing()
                return
            for store in self._stores:
                if self._mode:
                    self._begin_overwriting(store)
                else:
                    _refuse_existing(store)
        except BaseException:
            self.close()
            raise

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Put a file of a shard in every store, and see that all of it arrived.

        Raises:
            CancelledError: the writer has given up.
            AlreadyExistsError: another writer is appending to the dataset.
        """
        # When appending, two writers would take the same numbers; so the second one has to fail.
        for once, store in zip(self._once, self._stores, strict=True):
            self._put(store, key, data, overwrite=self._mode != 'append')
            self._stored[once].add(key)

    def commit(self, index: bytes, names: Iterable[str]) -> None:
        """Put the index. From now on there is a dataset; what an older one had beside it goes.

        Args:
            index: The index.
            names: Of all files that it names.

        Raises:
            PreconditionError: another writer has changed the dataset that was to be appended to.
        """
        main = self._stores[-1]
        if self._mode == 'append' and _etag(main) != self._etag:
            raise PreconditionError(
                f'{main.url_of(INDEX)} was changed by another writer while this one appended to it; write again'
            )
        # What was put is no longer ours to delete: an index that may have arrived names it.
        self._stored.clear()
        for store in self._stores:
            self._put(store, INDEX, index, overwrite=True)
        named = set(names)
        for store, stale in self._stale.items():
            _delete_all(store, stale - named)

    def cancel(self) -> None:
        """Let all puts end, with CancelledError where they wait for another try."""
        self._cancelled = True
        self.close()

    def withdraw(self) -> None:
        """Delete the files that were put, as far as that goes at the first try. Nothing names them."""
        for store, keys in self._stored.items():
            _delete_all(store, keys)
        self._stored.clear()

    def close(self) -> None:
        """Give back connections."""
        for store in self._stores:
            store.close()

    def _put(self, store: Store, key: str, data: bytes | memoryview, *, overwrite: bool) -> None:
        if self._cancelled:
            raise CancelledError(f'{store.url_of(key)} was not put: its writer has given up')
        info = store.put(key, _source(store, data), overwrite=overwrite)
        if info.size != len(data):
            raise StoreError(f'{store.url_of(key)}: {len(data)} bytes were put, the store has {info.size}')

    def _open_existing(self) -> None:
        main = self._stores[-1]
        self._etag = _etag(main)
        found = None if self._etag is None else main.get(INDEX)
        for store in self._stores[:-1]:
            if _index_of(store) != found:
                raise ArgumentError(
                    f'{store.url} is no copy of {main.url}, so nothing can be appended to both: copy the dataset there, '
                    'or leave out keep_local'
                )
        self.existing = None if found is None else ShardTable.from_json(found, main.url_of(INDEX))
        names = [info.key for store in self._stores for info in store.list('shard.')]
        names += [file.basename for shard in self.existing or () for file in shard.stored]
        self.first_number = max((int(match[1]) + 1 for name in names if (match := _SHARD.fullmatch(name))), default=0)

    def _begin_overwriting(self, store: Store) -> None:
        """Remove the index, so that nobody reads a mixture. The rest is overwritten, or deleted when the new dataset is there."""
        index = _index_of(store)
        stale = self._stale[store]
        try:
            table = None if index is None else ShardTable.from_json(index, store.url_of(INDEX))
        except FormatError:
            table = None
        if table is None:
            # Of a writer that was killed, or unreadable: go by the names that writers give.
            stale.update(info.key for info in store.list('shard.') if _SHARD.fullmatch(info.key))
        else:
            # Sub-folders are datasets of their own that were merged.
            stale.update(file.basename for shard in table for file in shard.stored if '/' not in file.basename)
        if index is not None:
            store.delete(INDEX)
        if (files := _files_of(store)) is not None:
            files.sweep()


def split_out(out: object) -> tuple[str | None, str | None]:
    """The path and the URL of an ``out``; None for the one that it does not have.

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(out, (str, Path)) and str(out):
        return (None, str(out)) if _is_url(str(out)) else (str(out), None)
    if isinstance(out, (tuple, list)) and len(out) == 2 and all(isinstance(part, (str, Path)) and str(part) for part in out):
        return str(out[0]), str(out[1])
    raise ArgumentError(f'out must be a path, a URL or (local, remote), got {out!r}')


def _files_of(store: Store) -> LocalStore | None:
    """The folder that a store is, None where it is none."""
    inner = store.inner if isinstance(store, RetryStore) else store
    return inner if isinstance(inner, LocalStore) else None


def _source(store: Store, data: bytes | memoryview) -> bytes:
    """What a store takes. A file is written from where the bytes lie; a copy would take longer than writing them."""
    if isinstance(data, memoryview) and _files_of(store) is None:
        return bytes(data)
    return cast(bytes, data)


def _etag(store: Store) -> str | None:
    """Of the index; None where there is none."""
    try:
        info = store.head(INDEX)
    except NotFoundError:
        return None
    return info.etag or f'{info.size} bytes'


def _index_of(store: Store) -> bytes | None:
    try:
        return store.get(INDEX)
    except NotFoundError:
        return None


def _refuse_existing(store: Store) -> None:
    if _etag(store) is not None:
        found = INDEX
    else:
        unfinished = next((info.key for info in store.list('shard.') if _SHARD.fullmatch(info.key)), None)
        if unfinished is None:
            return
        found = f'{unfinished}, of a writer that did not finish'
    raise AlreadyExistsError(
        f"{store.url} holds a dataset already ({found}); pass exist_ok=True to overwrite it, exist_ok='append' to add to it"
    )


def _delete_all(store: Store, keys: Iterable[str]) -> None:
    """Delete what no index names. That it stays is no error: it takes up space, and that is all."""
    keys = sorted(keys)
    if not keys:
        return
    with ThreadPoolExecutor(min(_PARALLEL, len(keys)), thread_name_prefix='streaming-delete') as pool:
        futures = [pool.submit(store.delete, key) for key in keys]
        for future in futures:
            try:
                future.result()
            except StoreError as error:
                logger.warning('files that belong to no dataset are left in %s: %s', store.url, error)
                pool.shutdown(wait=False, cancel_futures=True)
                return
