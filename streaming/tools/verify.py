"""Whether every object of a dataset is what its index says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streaming.errors import CorruptError, CredentialsError, FormatError, MissingExtraError, NotFoundError, StoreError
from streaming.format.compression import get_codec
from streaming.format.index import FileInfo, ShardInfo
from streaming.format.mds import read_offsets
from streaming.format.meta import read_meta
from streaming.store.protocol import Store
from streaming.tools.objects import FileCheck, check_size, read_object
from streaming.tools.parallel import OnBytes, in_parallel
from streaming.tools.source import DatasetSource

__all__ = ['Problem', 'Verification', 'verify_dataset']


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that is not what it should be.

    Args:
        url: The object's.
        kind: ``'missing'``, ``'corrupt'`` or, where the store would not say, ``'unread'``.
        message: What is wrong.
    """

    url: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What became of a verification.

    Args:
        url: The dataset's root, without secrets.
        shards: How many it has.
        objects: How many were looked at.
        bytes: Of them, by the index.
        hashed: How many of them had a hash that was checked.
        problems: Those that are bad, by URL.
    """

    url: str
    shards: int
    objects: int
    bytes: int
    hashed: int
    problems: tuple[Problem, ...]

    @property
    def is_good(self) -> bool:
        """Whether all is as it should be."""
        return not self.problems


def verify_dataset(
    url: str | Path,
    *,
    sizes_only: bool = False,
    workers: int = 16,
    on_begin: Callable[[int], None] | None = None,
    on_bytes: OnBytes | None = None,
) -> Verification:
    """Read every object of a dataset and hold it against the index: its size, every hash that is recorded, what it decompresses
    to, and the offsets of its samples. Samples are not decoded.

    Args:
        url: A path or a URL of its root.
        sizes_only: Ask the store for sizes and read nothing. Default: False.
        workers: Objects at a time. Each takes some 20 MiB, and what a codec takes. Default: 16.
        on_begin: Called once with the number of bytes that will be read. Default: None.
        on_bytes: Called from several threads with the number of bytes that were just read. Default: None.

    Raises:
        NotFoundError: there is no dataset.
        FormatError: its index is not one.
        CredentialsError: nobody was let in.
        MissingExtraError: its codec needs a package that is not installed.
    """
    with DatasetSource(url) as source:
        files = [(shard, number) for shard in source.table for number in range(len(shard.stored))]
        if on_begin is not None:
            on_begin(0 if sizes_only else int(source.table.stored_bytes.sum()))

        def verify(item: tuple[ShardInfo, int], note: OnBytes) -> 'bool | Problem':
            shard, number = item
            file = shard.stored[number]
            try:
                if sizes_only:
                    check_size(source.store.head(file.basename), file, source.store.url_of(file.basename))
                    return False
                return _verify(source.store, shard, number, note)
            except (CredentialsError, MissingExtraError):
                raise
            except (FormatError, StoreError) as error:
                kind = (
                    'missing' if isinstance(error, NotFoundError) else 'corrupt' if isinstance(error, FormatError) else 'unread'
                )
                return Problem(source.store.url_of(file.basename), kind, str(error))

        results = list(in_parallel(files, verify, workers=workers, stores=[source.store], on_bytes=on_bytes))
        problems = [result for result in results if isinstance(result, Problem)]
        return Verification(
            url=source.url,
            shards=len(source.table),
            objects=len(files),
            bytes=int(source.table.stored_bytes.sum()),
            hashed=sum(result is True for result in results),
            problems=tuple(sorted(problems, key=lambda problem: problem.url)),
        )


def _verify(store: Store, shard: ShardInfo, number: int, on_bytes: OnBytes) -> bool:
    """Read one file of a shard; whether it has a hash that was checked."""
    stored, raw = shard.stored[number], shard.raw_files[number]
    url = store.url_of(stored.basename)
    check = FileCheck(stored, url)
    offsets = _Offsets(shard, raw, url)
    if shard.compression is None:
        for piece in read_object(store, stored, on_bytes):
            check.update(piece)
            offsets.update(piece)
    else:
        check_raw = FileCheck(raw, f'{url}, decompressed')
        decompressor = get_codec(shard.compression).decompressor(raw.bytes)
        try:
            for piece in read_object(store, stored, on_bytes):
                check.update(piece)
                data = decompressor.feed(piece)
                check_raw.update(data)
                offsets.update(data)
            check.finish()  # before the codec complains of what it cannot know
            data = decompressor.finish()
        except CorruptError as error:
            raise error if url in str(error) else CorruptError(f'{url}: {error}') from error
        check_raw.update(data)
        offsets.update(data)
        check_raw.finish()
    check.finish()
    offsets.finish()
    return bool(check.names)


class _Offsets:
    """The offsets at the beginning of a raw file, as its bytes go by; nothing where they are in another file.

    They are all that tells a good shard from one of the same size, where no hashes are recorded.
    """

    def __init__(self, shard: ShardInfo, raw: FileInfo, url: str) -> None:
        self._shard = shard
        self._url = url
        self._wanted = 4 * (shard.samples + 2) if raw is shard.raw_files[-1] else 0
        self._data = bytearray()

    def update(self, data: bytes | memoryview) -> None:
        missing = self._wanted - len(self._data)
        if missing > 0:
            self._data += data[:missing]

    def finish(self) -> None:
        if self._wanted and self._shard.raw_meta is None:
            read_offsets(memoryview(self._data), self._shard.samples, self._url, self._shard.raw_data.bytes)
        elif self._wanted:
            read_meta(memoryview(self._data), self._shard.samples, self._shard.raw_data.bytes, self._url)
