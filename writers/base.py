"""What all writers do: take samples, cut them into shards, publish those, and commit once."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict

import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError
from streaming.format.compression import get_codec
from streaming.format.hashing import new_hash
from streaming.format.index import ShardInfo
from streaming.units import bytes_to_int
from streaming.writers.buffer import BufferPool, ShardBuffer
from streaming.writers.destination import Destination
from streaming.writers.publish import FilePacker, PackedFile, Publisher, Put

if TYPE_CHECKING:
    from tqdm import tqdm
    from typing_extensions import Self

__all__ = ['Sizes', 'Writer', 'WriterOptions', 'check_hashes', 'check_size_limit']

# Bytes of each sample of a shard, (samples,).
Sizes = NDArray[np.unsignedinteger[Any]]

# Offsets are 32 bits wide in every format.
_MOST_BYTES = (1 << 32) - 1
# Of a buffer where there is no size_limit to go by, and where that is tiny.
_USUAL_BYTES = 1 << 26
_LEAST_BYTES = 1 << 16


class WriterOptions(TypedDict, total=False):
    """The keywords of every writer; `Writer` says what they mean."""

    out: str | Path | tuple[str | Path, str | Path]
    keep_local: bool
    compression: str | None
    hashes: Sequence[str] | None
    size_limit: int | str | None
    progress_bar: bool
    max_workers: int | None
    retry: int
    exist_ok: bool | Literal['append']


class Writer(ABC):
    """Writes a dataset. Use it as a context manager; where the block raises, there is no dataset. One thread may write.

    Args:
        out: A path, a URL, or ``(local, remote)``.
        keep_local: Whether to keep a copy in ``local``. Default: False; nothing is written there then.
        compression: ``zstd``, ``zstd:7``, ``gz``... Default: None.
        hashes: Hashes to record of every file, such as ``['xxh64']``. Default: None.
        size_limit: A shard's most bytes before compression, as an int or as ``'64mb'``; None or 0: one shard. Default: 64 MiB.
        progress_bar: Whether to show the samples that are stored. Default: False.
        max_workers: Threads that compress and put. Each holds a shard in memory, and one more waits. Default: None, two more than
            CPUs, at most 8.
        retry: How often a failed upload is tried again at the least. Default: 2.
        exist_ok: What to do where a dataset is already. False: raise. True: remove its index, and when the new dataset is there,
            the shards that only the old one had. ``'append'``: add shards to it; readers see the old dataset until the new
            index takes the place of its. Default: False.

    Attributes:
        local: The path that is written to, None where there is none.
        remote: The URL that is written to, None where there is none.

    Raises:
        ArgumentError: values that cannot work.
        AlreadyExistsError: there is a dataset, or a part of one, and ``exist_ok`` is False.
    """

    format: str

    def __init__(
        self,
        *,
        out: str | Path | tuple[str | Path, str | Path],
        keep_local: bool = False,
        compression: str | None = None,
        hashes: Sequence[str] | None = None,
        size_limit: int | str | None = 1 << 26,
        progress_bar: bool = False,
        max_workers: int | None = None,
        retry: int = 2,
        exist_ok: bool | Literal['append'] = False,
    ) -> None:
        self.compression = compression or None
        self.hashes = check_hashes(hashes)
        self.size_limit = check_size_limit(size_limit)
        codec = None if self.compression is None else get_codec(self.compression)
        if codec is not None:
            codec.compress(b'')  # a package that lacks shall be missed now, and not by the first shard
        self._files = FilePacker(codec, self.hashes)
        self._destination = Destination(out, keep_local=keep_local, retry=retry, exist_ok=exist_ok)
        self.local, self.remote = self._destination.local, self._destination.remote
        self._publisher = Publisher(self._destination, max_workers, on_stored=self._note_stored, on_failure=self._stop)
        # Last of all that may raise: from here on an old dataset may be gone.
        self._destination.prepare()
        self._check_format()
        self._number = self._destination.first_number
        self._bar = _open_bar() if progress_bar else None
        self._encode: Callable[[Mapping[str, Any]], bytes]
        # The shard that is being filled. Its size is counted as mosaicml-streaming does; past the threshold there is more to do.
        self._buffers = BufferPool(max(self.size_limit or _USUAL_BYTES, _LEAST_BYTES))
        self._size = self._head_bytes = self._bytes_a_sample = 0
        self._open_shard()
        # One look a sample: the writer has ended, or a shard has failed.
        self._stopped = False
        self._state: Literal['open', 'committed', 'aborted'] = 'open'

    def _begin(self, encode: Callable[[Mapping[str, Any]], bytes], *, head_bytes: int = 0, bytes_a_sample: int = 0) -> None:
        """Begin to take samples.

        Args:
            encode: Gives a sample's bytes, or raises ColumnTypeError.
            head_bytes: How many bytes count for a shard beside its samples.
            bytes_a_sample: How many count for each sample beside its own.
        """
        self._encode = encode
        self._head_bytes = self._size = head_bytes
        self._bytes_a_sample = bytes_a_sample

    def _open_shard(self) -> None:
        self._buffer = self._buffers.take()
        self._sizes = array('I')
        self._size = self._head_bytes
        self._threshold = min(self.size_limit or _MOST_BYTES, self._buffer.capacity)
        # Looked up once a shard, not once a sample.
        self._append, self._append_size = self._buffer.append, self._sizes.append

    @property
    def _existing(self) -> ShardInfo | None:
        """The last shard of the dataset that is appended to, None where a new one is written."""
        table = self._destination.existing
        return table[len(table) - 1] if table else None

    def _check_like_existing(self) -> None:
        """Refuse to append shards of other columns than those that are there.

        Raises:
            ArgumentError: they are.
        """
        last = self._existing
        if last is None:
            return
        ours = self._describe()
        theirs = {key: getattr(last, key) for key in ours}
        if ours != theirs:
            found = {key: value for key, value in theirs.items() if value != ours[key]}
            raise ArgumentError(
                f'shards of other columns cannot be appended to {self._destination.url}: it has {found}, '
                f'this writer { ({key: ours[key] for key in found}) }'
            )

    def _check_format(self) -> None:
        last = self._existing
        if last is not None and last.format != self.format:
            raise ArgumentError(
                f'{self._destination.url} has shards of format {last.format!r}, none of {self.format!r} can be appended'
            )

    @abstractmethod
    def _head(self, sizes: Sizes) -> bytes:
        """What stands before the samples in their file. Runs in another thread."""

    def _meta(self, sizes: Sizes) -> bytes | None:
        """The meta file, None where there is none. Runs in another thread."""
        return None

    @abstractmethod
    def _describe(self) -> dict[str, Any]:
        """What the index says of every shard: the fields of ShardInfo that are of this format."""

    def write(self, sample: Mapping[str, Any]) -> None:
        """Add a sample.

        Raises:
            ColumnTypeError: a value is not what its column takes; nothing was added.
            StreamingError: an earlier shard could not be published; there will be no dataset.
            ArgumentError: the writer is finished, or the sample is too large for a shard.
        """
        if self._stopped:
            self._refuse()
        data = self._encode(sample)
        size = self._size + len(data) + self._bytes_a_sample
        if size > self._threshold:
            size = self._make_room(len(data) + self._bytes_a_sample)
        self._append(data)
        self._append_size(len(data))
        self._size = size

    def _make_room(self, added: int) -> int:
        """Make room for a sample, in a new shard if it goes over this one's limit; say how many bytes the shard has with it."""
        if self.size_limit is not None and self._sizes and self._size + added > self.size_limit:
            self._flush()
        size = self._size + added
        if size > _MOST_BYTES:
            raise ArgumentError(
                f'the sample makes a shard of {size} bytes; shards are under 4 GiB, as their offsets have 32 bits: '
                f'{"give a size_limit" if self._sizes else "split the sample"}'
            )
        if size > self._buffer.capacity:
            self._buffer = self._buffer.grown(max(size, 2 * self._buffer.capacity))
            self._append = self._buffer.append
        self._threshold = min(max(size, self.size_limit or _MOST_BYTES), self._buffer.capacity)
        return size

    def _flush(self) -> None:
        buffer, sizes, number = self._buffer, self._sizes, self._number

        def publish(put: Put) -> ShardInfo:
            return self._publish(number, buffer, np.frombuffer(sizes, np.uint32), put)

        self._publisher.submit(number, publish)
        self._number += 1
        self._open_shard()

    def _publish(self, number: int, buffer: ShardBuffer, sizes: Sizes, put: Put) -> ShardInfo:
        """Pack and put a shard's files. Runs in another thread."""
        name = f'shard.{number:05}.{self.format}'
        head, meta = self._head(sizes), self._meta(sizes)
        files = [] if meta is None else [self._files.pack(f'{name}.meta', meta)]
        with buffer.whole(head) as whole:
            if len(whole) > _MOST_BYTES:
                raise ArgumentError(f'{name} has {len(whole)} bytes; shards are under 4 GiB: lower size_limit')
            data = self._files.pack(name, whole)
            if data.packed is None:
                put(data.key, data.data)
        self._buffers.give_back(buffer)
        if data.packed is not None:
            files.append(data)
        for file in files:
            put(file.key, file.data)
        return self._entry(len(sizes), data, files[0] if meta is not None else None)

    def _entry(self, samples: int, data: PackedFile, meta: PackedFile | None) -> ShardInfo:
        return ShardInfo(
            format=self.format,
            samples=samples,
            raw_data=data.raw,
            raw_meta=meta.raw if meta else None,
            zip_data=data.packed,
            zip_meta=meta.packed if meta else None,
            compression=self.compression,
            hashes=self.hashes,
            size_limit=self.size_limit,
            **self._describe(),
        )

    def finish(self) -> None:
        """Publish what is left, wait until everything is stored, and put the index: from then on there is a dataset.

        Once more does nothing.

        Raises:
            StreamingError: something could not be stored; there is no dataset.
        """
        if self._state == 'committed':
            return
        if self._state == 'aborted':
            self._refuse()
        try:
            self._stopped = True
            self._publisher.check()
            if self._sizes:
                self._flush()
            self._publisher.commit()
        except BaseException:
            self._abort()
            raise
        self._state = 'committed'
        self._buffers.close()
        self._close_bar()

    def _abort(self) -> None:
        self._stopped = True
        self._state = 'aborted'
        self._publisher.abort()
        self._buffers.close()
        self._close_bar()

    def _refuse(self) -> NoReturn:
        """Raise why nothing can be written any more."""
        if self._state == 'open':
            try:
                self._publisher.check()
            finally:
                self._abort()
        if self._publisher.error is not None:
            raise self._publisher.error
        if self._state == 'aborted':
            raise ArgumentError(f'this writer has given up; there is no dataset at {self._destination.url}')
        raise ArgumentError('this writer is finished: write before finish(), and inside the with block')

    def _stop(self) -> None:
        self._stopped = True

    def _note_stored(self, shard: ShardInfo) -> None:
        if self._bar is not None:
            self._bar.update(shard.samples)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> 'Self':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        elif self._state == 'open':
            self._abort()


def check_hashes(hashes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of hashes, sorted, each once.

    Raises:
        ArgumentError: there is no such hash.
    """
    if isinstance(hashes, str):
        raise ArgumentError(f'hashes must be a list of names, got {hashes!r}')
    names = tuple(sorted(set(hashes or ())))
    for name in names:
        new_hash(name)
    return names


def check_size_limit(size_limit: int | str | None) -> int | None:
    """A shard's most bytes, None for no limit.

    Raises:
        ArgumentError: it is none, or more than a shard can have.
    """
    limit = None if size_limit is None else bytes_to_int(size_limit) or None
    if limit is not None and limit > _MOST_BYTES:
        raise ArgumentError(f'size_limit must be under 4 GiB, as offsets have 32 bits; got {size_limit!r}')
    return limit


def _open_bar() -> 'tqdm[Any]':
    from tqdm import tqdm

    return tqdm(desc='writing', unit=' samples', unit_scale=True)
