"""What all writers do: take samples, cut them into shards, publish those, and commit once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm
from typing_extensions import Self

from streaming.errors import ArgumentError
from streaming.format.compression import get_codec
from streaming.format.hashing import new_hash
from streaming.format.index import ShardInfo
from streaming.units import bytes_to_int
from streaming.writers.publish import Destination, Packer, Publisher

__all__ = ['Writer']


class Writer(ABC):
    """Writes a dataset. Use it as a context manager; where the block raises, there is no dataset.

    Args:
        out: A path, a URL, or ``(local, remote)``.
        keep_local: Whether to keep a copy in ``local``. Default: False.
        compression: ``zstd``, ``zstd:7``, ``gz``... Default: None.
        hashes: Hashes to record of every file. Default: None.
        size_limit: A shard's most bytes before compression, as an int or as ``'64mb'``; None: one shard. Default: 64 MiB.
        progress_bar: Whether to show one. Default: False.
        max_workers: Threads that compress and put. Default: None, the number of CPUs, at most 8.
        retry: How often a failed upload is tried again at the least. Default: 2.
        exist_ok: Overwrite a dataset that is there. Default: False.

    Raises:
        ArgumentError: values that cannot work.
        AlreadyExistsError: there is a dataset and ``exist_ok`` is False.
    """

    format: str

    def __init__(
        self,
        *,
        out: str | Path | tuple[str, str],
        keep_local: bool = False,
        compression: str | None = None,
        hashes: Sequence[str] | None = None,
        size_limit: int | str | None = 1 << 26,
        progress_bar: bool = False,
        max_workers: int | None = None,
        retry: int = 2,
        exist_ok: bool = False,
    ) -> None:
        if compression is not None:
            get_codec(compression)
        if isinstance(hashes, str):
            raise ArgumentError(f'hashes must be a list of names, got {hashes!r}')
        self.compression = compression
        self.hashes = tuple(sorted(set(hashes or ())))
        for name in self.hashes:
            new_hash(name)
        self.size_limit = None if size_limit is None else bytes_to_int(size_limit) or None
        destination = Destination(out, keep_local, retry)
        self.local, self.remote = destination.local, destination.remote
        destination.prepare(exist_ok)
        self._publisher = Publisher(destination, max_workers, self._note_published)
        self._bar: tqdm[Any] | None = tqdm(desc='writing', unit=' samples', unit_scale=True) if progress_bar else None
        self._samples: list[bytes] = []
        self._head_bytes, self._bytes_a_sample = 0, 0
        self._size = 0
        self._shards = 0
        self._finished = False

    def _account(self, head_bytes: int, bytes_a_sample: int) -> None:
        """Say how many bytes a shard has beside its samples, and each sample beside its own."""
        self._head_bytes, self._bytes_a_sample = head_bytes, bytes_a_sample
        self._size = head_bytes

    @abstractmethod
    def _encode(self, sample: Mapping[str, Any]) -> bytes:
        """The bytes of a sample."""

    @abstractmethod
    def _packer(self, number: int, samples: list[bytes]) -> Packer:
        """What makes shard ``number``; runs in another thread."""

    def write(self, sample: Mapping[str, Any]) -> None:
        """Add a sample.

        Raises:
            ColumnTypeError: a value is not what its column takes; nothing was added.
            StreamingError: an earlier shard could not be published; there will be no dataset.
            ArgumentError: the writer is finished, or the sample is too large for a shard.
        """
        if self._finished:
            raise ArgumentError('this writer is finished: write before finish(), and inside the with block')
        data = self._encode(sample)
        size = len(data) + self._bytes_a_sample
        if self.size_limit is not None and self._samples and self._size + size > self.size_limit:
            self._flush()
        self._check_size(self._size + size)
        self._samples.append(data)
        self._size += size

    def _check_size(self, size: int) -> None:
        """Refuse a shard that its format cannot hold."""

    def _flush(self) -> None:
        samples, self._samples = self._samples, []
        self._size = self._head_bytes
        self._publisher.submit(self._packer(self._shards, samples))
        self._shards += 1

    def finish(self) -> None:
        """Publish what is left, wait until everything is stored, and put the index: from then on there is a dataset.

        Once more does nothing.

        Raises:
            StreamingError: something could not be stored; there is no dataset.
        """
        if self._finished:
            return
        self._finished = True
        try:
            if self._samples:
                self._flush()
            self._publisher.commit()
        except BaseException:
            self._publisher.abort()
            raise
        finally:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _note_published(self, shard: ShardInfo) -> None:
        if self._bar is not None:
            self._bar.update(shard.samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        elif not self._finished:
            self._finished = True
            self._publisher.abort()
            self._close_bar()
