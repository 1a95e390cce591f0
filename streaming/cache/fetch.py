"""Bringing one shard from a store to a folder: ranges in parallel, hashed and decompressed in order as they arrive, then renamed.

Nothing here decides what is fetched when, or who else may be fetching it.
"""

import heapq
import logging
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from streaming.errors import CancelledError, CorruptError, StoreError
from streaming.format.compression import get_codec
from streaming.format.hashing import cheapest, new_hash
from streaming.format.index import FileInfo, ShardInfo
from streaming.store.protocol import ObjectInfo, Store
from streaming.threads import CallerThreads

__all__ = ['FetchPolicy', 'ObjectVersion', 'ShardFetch', 'zip_scratch']

logger = logging.getLogger(__name__)

# The most requests in flight for the shards of one process: each has a buffer, and a few dozen fill any link.
_REQUESTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """How shards are brought.

    Args:
        range_bytes: Bytes asked for in one request. Default: 8 MiB, where the round trip is a small part of the time.
        parallel: Requests in flight for one shard, of at most 12 of this process, in which the shard that was begun first has its
            turn first. Default: 8, all of a shard of 64 MiB.
        refetches: How often bytes that turn out wrong are fetched anew before it is an error. Default: 2.
        validate_hash: The hash that must match, of those the index records. Default: None, the cheapest recorded one.
        keep_zip: Keep the compressed file beside the decompressed one. Default: False.
    """

    range_bytes: int = 8 << 20
    parallel: int = 8
    refetches: int = 2
    validate_hash: str | None = None
    keep_zip: bool = False


@dataclass(frozen=True, slots=True)
class ShardFetch:
    """One shard on its way from a store to a folder. The caller holds the shard's lock.

    Args:
        store: Where the shard's objects are.
        shard: The shard.
        folder: Where its raw files shall lie, under their names in the index.
        scratch: Path of the temporary file, on the same file system; whatever is there is overwritten.
        policy: How.
        on_bytes: Called from several threads with the number of bytes that just came over the network. May raise to cancel.
    """

    store: Store
    shard: ShardInfo
    folder: Path
    scratch: Path
    policy: FetchPolicy
    on_bytes: Callable[[int], None]

    def run(self) -> None:
        """Bring every file of the shard that is not there yet.

        Raises:
            CorruptError: the bytes were wrong every time.
            StoreError: the store failed, after its retries.
        """
        for stored, raw in zip(self.shard.stored, self.shard.raw_files, strict=True):
            if _has_size(self.folder / raw.basename, raw.bytes):
                continue
            for attempt in range(self.policy.refetches + 1):
                try:
                    with _buffers:
                        self._bring(stored, raw)
                except CorruptError as error:
                    if attempt == self.policy.refetches:
                        raise
                    logger.warning('%s; fetching it again (%d of %d)', error, attempt + 1, self.policy.refetches)
                except FileNotFoundError as error:
                    # Somebody removed the cache folder under our hands.
                    if isinstance(error, StoreError) or attempt == self.policy.refetches:
                        raise
                    self.scratch.parent.mkdir(parents=True, exist_ok=True)
                else:
                    break

    def _bring(self, stored: FileInfo, raw: FileInfo) -> None:
        """Bring one file, from the store or from a compressed copy that an earlier run kept."""
        compressed = self.shard.compression is not None
        kept = self.folder / stored.basename
        from_disk = compressed and _has_size(kept, stored.bytes)
        packed = zip_scratch(self.scratch)
        keep = self.policy.keep_zip and compressed and not from_disk
        # What a killed process left may be read-only.
        self.scratch.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)
        try:
            with _Scratch(self.scratch) as file, packed.open('wb') if keep else nullcontext() as zip_file:
                # Raw bytes are written where they come, by the threads that read them.
                target = None if compressed else file
                # Closed at once, not when the traceback of an error is forgotten: it has threads.
                with closing(_read_file(kept, self.policy) if from_disk else self._read_object(stored, target)) as chunks:
                    self._unpack(chunks, stored, raw, file, zip_file)
            if keep:
                _rename(packed, kept)
            _rename(self.scratch, self.folder / raw.basename)
        except BaseException as error:
            for leftover in (self.scratch, packed):
                leftover.unlink(missing_ok=True)
            if from_disk and isinstance(error, CorruptError):
                # The kept file is the culprit; the next attempt shall ask the store.
                kept.unlink(missing_ok=True)
            raise

    def _unpack(
        self, chunks: Iterator[memoryview], stored: FileInfo, raw: FileInfo, file: '_Scratch', zip_file: BinaryIO | None
    ) -> None:
        """Hold the stored bytes and the raw ones against the index as they arrive, and write to ``file`` what is decompressed."""
        url = self.store.url_of(stored.basename)
        check = _Check(stored, url, self.policy.validate_hash)
        if self.shard.compression is None:
            for chunk in chunks:
                check.update(chunk)
            check.finish()
            return
        # The compressed bytes' hash vouches for the raw ones too.
        check_raw = _Check(raw, f'{url}, decompressed', self.policy.validate_hash, hashing=not check.has_hash)
        decompressor = get_codec(self.shard.compression).decompressor(raw.bytes)
        done = 0
        try:
            for chunk in chunks:
                check.update(chunk)
                if zip_file is not None:
                    zip_file.write(chunk)
                data = decompressor.feed(chunk)
                check_raw.update(data)
                file.write_at(data, done)
                done += len(data)
            check.finish()
            data = decompressor.finish()
        except CorruptError as error:
            # A codec does not know what it decompresses.
            raise error if url in str(error) else CorruptError(f'{url}: {error}') from error
        check_raw.update(data)
        file.write_at(data, done)
        check_raw.finish()

    def _read_object(self, file: FileInfo, target: '_Scratch | None') -> Generator[memoryview, None, None]:
        """The object's bytes in order, read as parallel ranges, each good until the next is asked for.

        Args:
            file: The object.
            target: Where the ranges are written to their places, by the threads that read them. None: nowhere.
        """
        step = self.policy.range_bytes
        version = ObjectVersion(self.store.url_of(file.basename), file.bytes)
        ranges = [(start, min(step, file.bytes - start)) for start in range(0, file.bytes, step)]
        if len(ranges) <= 1:
            for start, size in ranges:
                yield from _buffers.lend(self._read_range(file.basename, start, size, version, target))
            return
        pending: deque[Future[memoryview]] = deque()
        with (
            _turns.of_one_shard() as turn,
            CallerThreads[memoryview](min(self.policy.parallel, len(ranges)), 'streaming-range') as threads,
        ):
            for start, size in ranges:
                pending.append(threads.submit(partial(self._read_in_turn, turn, file.basename, start, size, version, target)))
                if len(pending) > self.policy.parallel:
                    yield from _buffers.lend(pending.popleft().result())
            while pending:
                yield from _buffers.lend(pending.popleft().result())

    def _read_in_turn(
        self, turn: '_Turn', key: str, start: int, size: int, version: 'ObjectVersion', target: '_Scratch | None'
    ) -> memoryview:
        with turn:
            return self._read_range(key, start, size, version, target)

    def _read_range(self, key: str, start: int, size: int, version: 'ObjectVersion', target: '_Scratch | None') -> memoryview:
        buffer = _buffers.take(size)
        version.check(self.store.read_into(key, start, buffer, on_bytes=self.on_bytes))
        if target is not None:
            target.write_at(buffer, start)
        return buffer


class _Turns:
    """Whose request is next, where all shards of a process together may have so many in flight: that of the shard begun first.

    So shards come one after the other, each over many connections, and not all of them late.
    """

    def __init__(self, limit: int = _REQUESTS) -> None:
        self._lock = threading.Lock()
        self._free = limit
        self._shards = 0
        self._waiting: list[tuple[int, int, Future[None]]] = []
        self._waited = 0

    @contextmanager
    def of_one_shard(self) -> Iterator['_Turn']:
        """The turns of a shard that is begun now; at the end of the block whoever waits for one gets none."""
        with self._lock:
            self._shards += 1
            turn = _Turn(self, self._shards)
        try:
            yield turn
        finally:
            self._drop(turn.shard)

    def take(self, shard: int) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            granted: Future[None] = Future()
            self._waited += 1
            heapq.heappush(self._waiting, (shard, self._waited, granted))
        granted.result()

    def give_back(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set_result(None)
            else:
                self._free += 1

    def _drop(self, shard: int) -> None:
        with self._lock:
            dropped = [granted for other, _, granted in self._waiting if other == shard]
            self._waiting = [waiting for waiting in self._waiting if waiting[0] != shard]
            heapq.heapify(self._waiting)
        for granted in dropped:
            granted.set_exception(CancelledError('the fetch of the shard was given up'))


@dataclass(frozen=True, slots=True)
class _Turn:
    """A shard's turns; a block is one of them."""

    turns: _Turns
    shard: int

    def __enter__(self) -> None:
        self.turns.take(self.shard)

    def __exit__(self, *_: object) -> None:
        self.turns.give_back()


_turns = _Turns()


class _Buffers:
    """Memory for ranges, which goes from one to the next while anything is fetched: the system takes longer to make some than the
    network to fill it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fetches = 0
        self._free: list[memoryview] = []

    def take(self, size: int) -> memoryview:
        """A buffer of so many bytes, whatever they are."""
        with self._lock:
            while self._free:
                found = self._free.pop()
                if len(found) >= size:
                    return found[:size]
        # Not a bytearray: it would be cleared here, with Python's lock held.
        made = mmap.mmap(-1, size)
        if hasattr(mmap, 'MADV_HUGEPAGE'):
            with suppress(OSError):  # a kernel without huge pages
                made.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(made)

    def lend(self, buffer: memoryview) -> Iterator[memoryview]:
        """Yield a buffer that was taken, and give it back when the next thing is asked for."""
        yield buffer
        with self._lock:
            if self._fetches:
                self._free.append(memoryview(buffer.obj))

    def __enter__(self) -> None:
        with self._lock:
            self._fetches += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._fetches -= 1
            if not self._fetches:
                self._free.clear()


_buffers = _Buffers()


def _forget_inherited() -> None:
    """In a forked process: they are of another's fetches, and perhaps another's thread has a lock."""
    global _turns, _buffers
    _turns, _buffers = _Turns(), _Buffers()


os.register_at_fork(after_in_child=_forget_inherited)


class _Scratch:
    """The temporary file of a shard, written by several threads. Once it is closed, a late one changes nothing any more."""

    def __init__(self, path: Path) -> None:
        self._file = path.open('wb', buffering=0)
        self._changed = threading.Condition()
        self._writing = 0
        self._closed = False

    def write_at(self, data: bytes | memoryview, start: int) -> None:
        """Write bytes to their place."""
        with self._changed:
            if self._closed:
                raise CancelledError(f'the fetch into {self._file.name} was given up')
            self._writing += 1
        try:
            rest = memoryview(data)
            while rest:
                done = os.pwrite(self._file.fileno(), rest, start)
                rest, start = rest[done:], start + done
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def __enter__(self) -> '_Scratch':
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            # Its descriptor may be another file's the next moment.
            self._changed.wait_for(lambda: not self._writing)
        self._file.close()


class ObjectVersion:
    """Which version of an object the ranges are of, as far as its store says: all of one, and of the size in the index."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._etags: set[str] = set()

    def check(self, info: ObjectInfo | None) -> None:
        """Take in what the store said with one range."""
        if info is None:
            return
        if info.size != self._size:
            raise CorruptError(f'{self._url} has {info.size} bytes, the index says {self._size}')
        if info.etag is not None:
            self._etags.add(info.etag)
        if len(self._etags) > 1:
            raise CorruptError(f'{self._url} was overwritten while it was read')


class _Check:
    """Length and hash of a file, as its bytes go by."""

    def __init__(self, file: FileInfo, url: str, validate_hash: str | None, *, hashing: bool = True) -> None:
        self._file = file
        self._url = url
        name = validate_hash if validate_hash in file.hashes else cheapest(file.hashes)
        self._name = name = name if hashing else None
        self._hash = new_hash(name) if name is not None else None
        self._size = 0

    @property
    def has_hash(self) -> bool:
        return self._hash is not None

    def update(self, data: bytes | memoryview) -> None:
        self._size += len(data)
        if self._hash is not None:
            self._hash.update(data)

    def finish(self) -> None:
        if self._size != self._file.bytes:
            raise CorruptError(f'{self._url}: {self._size} bytes, the index says {self._file.bytes}')
        if self._hash is not None and self._name is not None:
            found, wanted = self._hash.hexdigest(), self._file.hashes[self._name]
            if found != wanted:
                raise CorruptError(f'{self._url}: its {self._name} is {found}, the index says {wanted}')


def _read_file(path: Path, policy: FetchPolicy) -> Generator[memoryview, None, None]:
    with path.open('rb') as file:
        while chunk := file.read(policy.range_bytes):
            yield memoryview(chunk)


def zip_scratch(scratch: Path) -> Path:
    """The temporary file beside ``scratch`` in which a compressed copy grows that is kept."""
    return scratch.with_name(scratch.name + '.zip')


def _rename(source: Path, target: Path) -> None:
    # Read-only tells what we fetched, and may delete, from what others put into the folder.
    source.chmod(source.stat().st_mode & ~0o222)
    try:
        source.replace(target)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except (FileNotFoundError, NotADirectoryError):
        return False
