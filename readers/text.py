"""Reading shards of text: a line a sample, offsets in a file of their own."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.errors import FormatError
from streaming.format.index import ShardInfo
from streaming.format.meta import read_meta
from streaming.format.xsv import XSVSchema
from streaming.readers.decoding import text_schema
from streaming.readers.raw import map_raw

__all__ = ['TextReader']


class TextReader:
    """An open shard of format json, csv, tsv or xsv.

    Args:
        folder: The dataset's root, or a cache of it.
        shard: The shard.
        columns: Decode only these. Default: None, all.

    Raises:
        FormatError: the files are not what the index says.
        ArgumentError: there is no such column.
        NotFoundError: there is no such file.
    """

    def __init__(self, folder: Path, shard: ShardInfo, *, columns: Sequence[str] | None = None) -> None:
        raw_data, raw_meta = shard.raw_files
        stored_data, stored_meta = shard.stored
        self._data, self._path, data_bytes = map_raw(folder, raw_data, stored_data, shard.compression)
        meta, meta_path, meta_bytes = map_raw(folder, raw_meta, stored_meta, shard.compression)
        self.owned_bytes = data_bytes + meta_bytes
        schema = text_schema(shard, self._path)
        self._offsets: list[int] = read_meta(meta, shard.samples, len(self._data), meta_path).tolist()
        header = schema.header if isinstance(schema, XSVSchema) else b''
        if self._offsets[0] != len(header) or self._data[: len(header)] != header:
            raise FormatError(f'{self._path}: its first sample is at {self._offsets[0]}, after a header of {len(header)} bytes')
        self._samples = shard.samples
        self._decode = schema.decoder(columns)

    @property
    def data(self) -> memoryview:
        """The raw file of samples."""
        return self._data

    def __len__(self) -> int:
        return self._samples

    def read_each(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Decode some samples (N,) as `read` does, each when it is taken."""
        return map(self.read, numbers.tolist())

    def mapped(self, leases: ExitStack, numbers: NDArray[np.int64]) -> None:
        """None: samples have to be read one by one."""

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Decode sample ``number``, from 0.

        Raises:
            FormatError: its line is not what the format says; names the file and the sample.
            IndexError: there is no such sample.
        """
        if not 0 <= number < self._samples:
            raise IndexError(f'sample {number} of {self._samples} in {self._path}')
        return self.read(number)

    def read(self, number: int) -> dict[str, Any]:
        """Decode a sample as brackets do, by a number that is known to be one of the shard's."""
        try:
            return self._decode(self._data[self._offsets[number] : self._offsets[number + 1]])
        except FormatError as error:
            raise type(error)(f'{self._path}, sample {number}: {error}') from error
