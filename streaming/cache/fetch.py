"""Bringing one shard from a store to a folder: ranges in parallel, hashed and decompressed in order as they arrive, then renamed.

Nothing here decides what is fetched when, or who else may be fetching it.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from streaming.cache import transfer
from streaming.cache.transfer import Scratch, Turn
from streaming.errors import CorruptError, StoreError
from streaming.format.compression import feed_to, get_codec
from streaming.format.hashing import cheapest, new_hash
from streaming.format.index import FileInfo, ShardInfo
from streaming.store.protocol import ObjectInfo, Store
from streaming.threads import CallerThreads

__all__ = ['FetchPolicy', 'ObjectVersion', 'ShardFetch', 'zip_scratch']

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """How shards are brought.

    Args:
        range_bytes: Bytes asked for in one request. Default: 8 MiB, where the round trip is a small part of the time.
        parallel: Requests in flight for one shard, of at most 12 to 24 of this process, where the shard begun first has its
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
                    with transfer.buffers:
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
            with Scratch(self.scratch) as file, packed.open('wb') if keep else nullcontext() as zip_file:
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
        self, chunks: Iterator[memoryview], stored: FileInfo, raw: FileInfo, file: 'Scratch', zip_file: BinaryIO | None
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

        def write(data: bytes) -> None:
            nonlocal done
            check_raw.update(data)
            file.write_at(data, done)
            done += len(data)

        try:
            for chunk in chunks:
                check.update(chunk)
                if zip_file is not None:
                    zip_file.write(chunk)
                feed_to(decompressor, chunk, write)
            check.finish()
            write(decompressor.finish())
        except CorruptError as error:
            # A codec does not know what it decompresses.
            raise error if url in str(error) else CorruptError(f'{url}: {error}') from error
        check_raw.finish()

    def _read_object(self, file: FileInfo, target: 'Scratch | None') -> Generator[memoryview, None, None]:
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
                yield from transfer.buffers.lend(self._read_range(file.basename, start, size, version, target))
            return
        pending: deque[Future[memoryview]] = deque()
        with (
            transfer.turns.of_one_shard() as turn,
            CallerThreads[memoryview](min(self.policy.parallel, len(ranges)), 'streaming-range') as threads,
        ):
            for start, size in ranges:
                pending.append(threads.submit(partial(self._read_in_turn, turn, file.basename, start, size, version, target)))
                if len(pending) > self.policy.parallel:
                    yield from transfer.buffers.lend(pending.popleft().result())
            while pending:
                yield from transfer.buffers.lend(pending.popleft().result())

    def _read_in_turn(
        self, turn: 'Turn', key: str, start: int, size: int, version: 'ObjectVersion', target: 'Scratch | None'
    ) -> memoryview:
        with turn:
            return self._read_range(key, start, size, version, target)

    def _read_range(self, key: str, start: int, size: int, version: 'ObjectVersion', target: 'Scratch | None') -> memoryview:
        buffer = transfer.buffers.take(size)
        version.check(self.store.read_into(key, start, buffer, on_bytes=self.on_bytes))
        if target is not None:
            target.write_at(buffer, start)
        return buffer


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
