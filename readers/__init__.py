"""Raw shards -> samples, a file a format."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streaming.format.index import ShardInfo

if TYPE_CHECKING:
    from streaming.readers.gather import Mapped

__all__ = ['Reader', 'open_shard']


class Reader(Protocol):
    """An open shard. Any thread may read."""

    @property
    def owned_bytes(self) -> int:
        """Disk space that goes when the reader does; 0 where it reads a file that stays."""

    @property
    def data(self) -> memoryview:
        """The raw shard, which `read` looks at."""

    @property
    def read(self) -> Callable[[int], dict[str, Any]]:
        """Decodes a sample as brackets do, by a number that is known to be one of the shard's."""

    def read_each(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Decode some samples (N,) as `read` does, each when it is taken."""

    def mapped(self, leases: ExitStack, numbers: NDArray[np.int64]) -> 'Mapped | None':
        """What whole columns of samples (N,) can be gathered from, until ``leases`` is closed; None if that cannot be."""

    def __len__(self) -> int:
        """How many samples it has."""

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Decode sample ``number``, from 0.

        Raises:
            FormatError: its bytes are not what the format says; names the file and the sample.
        """


def open_shard(
    folder: Path, shard: ShardInfo, *, columns: Sequence[str] | None = None, allow_unsafe_types: bool = False
) -> Reader:
    """Open a shard that lies in a folder, compressed or not.

    Args:
        folder: The dataset's root, or a cache of it.
        shard: The shard.
        columns: Decode only these. Default: None, all.
        allow_unsafe_types: Whether columns that run code when read may be read. Default: False.

    Raises:
        FormatError: the file is not what the index says.
        ArgumentError: there is no such column, or reading it is not allowed.
        NotFoundError: there is no such file.
    """
    if shard.format == 'mds':
        from streaming.readers.mds import MDSReader

        return MDSReader(folder, shard, columns=columns, allow_unsafe_types=allow_unsafe_types)
    from streaming.readers.text import TextReader

    return TextReader(folder, shard, columns=columns)
