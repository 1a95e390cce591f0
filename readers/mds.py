"""Reading an MDS shard: one map a shard, one look at two offsets a sample."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.errors import FormatError
from streaming.format.columns import get_encoding
from streaming.format.index import ShardInfo
from streaming.format.mds import read_offsets
from streaming.readers.compiled import compile_reader
from streaming.readers.decoding import sample_decoder
from streaming.readers.gather import Column, Empty, Mapped, Schema, gather_run
from streaming.readers.raw import map_raw
from streaming.readers.rows import FEW, RowReader
from streaming.readers.windows import Windows

__all__ = ['MDSReader']

# Not larger than the system's, so that no page is left out.
_PAGE = 4096


class MDSReader:
    """An open MDS shard. Values are copies: writable, and good after the shard is gone.

    Args:
        folder: The dataset's root, or a cache of it.
        shard: The shard.
        columns: Decode only these. Default: None, all.
        allow_unsafe_types: Whether ``pkl`` columns, which can run any code, may be read. Default: False.

    Raises:
        FormatError: the file is not what the index says.
        ArgumentError: there is no such column, or reading it is not allowed.
        NotFoundError: there is no such file.
    """

    def __init__(
        self, folder: Path, shard: ShardInfo, *, columns: Sequence[str] | None = None, allow_unsafe_types: bool = False
    ) -> None:
        data, path, self.owned_bytes = map_raw(folder, shard.raw_data, shard.stored[0], shard.compression)
        self._begin(data, path, shard, columns, allow_unsafe_types)

    @classmethod
    def of_bytes(
        cls,
        data: memoryview,
        source: str,
        shard: ShardInfo,
        *,
        columns: Sequence[str] | None = None,
        allow_unsafe_types: bool = False,
    ) -> 'MDSReader':
        """Read a raw shard that lies in memory; ``source`` names it in messages. See the class for the rest."""
        reader = cls.__new__(cls)
        reader.owned_bytes = 0
        reader._begin(data, source, shard, columns, allow_unsafe_types)
        return reader

    def _begin(
        self, data: memoryview, path: str, shard: ShardInfo, columns: Sequence[str] | None, allow_unsafe_types: bool
    ) -> None:
        decode = sample_decoder(shard, path, columns=columns, allow_unsafe_types=allow_unsafe_types)
        self._data, self._path, self._samples = data, path, shard.samples
        checked = read_offsets(data, shard.samples, path)
        # Items of a cast memoryview are Python ints, which NumPy's would have to become.
        little = sys.byteorder == 'little'
        offsets: Any = data[4 : 8 + 4 * shard.samples].cast('I') if little else checked.tolist()
        self.read = _explainer(decode, data, offsets, path)
        self._mapped: Mapped | None = None
        windows = Windows.of(data)
        if windows is not None:
            encodings = tuple(get_encoding(name) for name in shard.column_encodings)
            wanted = tuple(columns is None or name in columns for name in shard.column_names)
            schema = shard.column_names, encodings, wanted
            bounds: NDArray[np.uint32] = np.ndarray((shard.samples, 2), '<u4', data, 4, (4, 4))
            gathered = Schema.of(*schema)
            self._mapped = Mapped(gathered, windows, bounds, gathered.grid(windows, checked))
            self._make_rows = partial(RowReader, *schema, self._mapped, self.read)
            self._rows: RowReader | None = None
            self.read, self._read_each = compile_reader(*schema, windows, offsets, self.read)

    @property
    def data(self) -> memoryview:
        """The raw shard."""
        return self._data

    def read_each(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Decode some samples (N,) as `read` does, each when it is taken."""
        if self._mapped is None:
            return map(self.read, numbers.tolist())
        if len(numbers) >= FEW:
            if self._rows is None:
                self._rows = self._make_rows()
            samples = self._rows.read_each(numbers)
            if samples is not None:
                return samples
        starts, ends = self._mapped.bounds[numbers].T.tolist()
        return self._read_each(numbers.tolist(), starts, ends)

    def mapped(self, leases: ExitStack, numbers: NDArray[np.int64]) -> Mapped | None:
        """What whole columns can be gathered from; None where samples have to be read one by one."""
        return self._mapped

    def run_columns(self, first: int, count: int, empty: Empty) -> dict[str, Column] | None:
        """The columns of so many samples from one on, where all of the shard are alike; None if they have to be looked at."""
        grid = None if self._mapped is None else self._mapped.grid
        return None if grid is None else gather_run(grid, first, count, empty)

    def bring_to_memory(self, first: int, count: int) -> bool:
        """Have the system read some samples from the disk, if no more is to be done to them than to copy their values.

        Args:
            first: The number of the first sample.
            count: How many, of those that follow it; one or more.

        Returns:
            Whether they are in memory now.
        """
        if self._mapped is None or not self._mapped.schema.is_plain:
            return False
        start, end = int(self._mapped.bounds[first, 0]), int(self._mapped.bounds[first + count - 1, 1])
        # A byte of each page: the first and the last are others' too.
        np.frombuffer(self._data, np.uint8)[start:end:_PAGE].max(initial=0)
        return True

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Decode sample ``number``, from 0.

        Raises:
            FormatError: its bytes are not what the format says; names the file and the sample.
            IndexError: there is no such sample.
        """
        if not 0 <= number < self._samples:
            raise IndexError(f'sample {number} of {self._samples} in {self._path}')
        return self.read(number)


# Not a method: a function that held its reader, which holds it, would keep the map until the garbage collector comes.
def _explainer(
    decode: Callable[[memoryview], dict[str, Any]], data: memoryview, offsets: Sequence[int], path: str
) -> Callable[[int], dict[str, Any]]:
    """A function that reads a sample, or raises what is wrong with it."""

    def explain(number: int) -> dict[str, Any]:
        try:
            return decode(data[offsets[number] : offsets[number + 1]])
        except FormatError as error:
            raise type(error)(f'{path}, sample {number}: {error}') from error

    return explain
