"""Tars of webdataset: files that follow each other and share all of their name before its first dot are one sample.

A tar of this machine that is not compressed is cut between samples; any other is one range.
"""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from streaming.errors import FormatError
from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files, InputFile
from streaming.writers.convert.sources.packed import is_packed, open_packed, unpacked
from streaming.writers.convert.values import text_parser

__all__ = ['WebDatasetSource']

_BATCH_SAMPLES = 256
_BATCH_BYTES = 8 << 20
_KEY = '__key__'
_ENCODINGS = {
    'jpg': 'jpeg',
    'jpeg': 'jpeg',
    'png': 'png',
    'json': 'json',
    'cls': 'int',
    'cls2': 'int',
    'index': 'int',
    'inx': 'int',
    'id': 'str',
    'txt': 'str',
    'text': 'str',
    'transcript': 'str',
}


class WebDatasetSource(Source):
    """Tar files. Records have ``__key__`` and a value for each of their files, by its extension.

    Args:
        files: Where they lie.
        suffixes: What their names end in.

    Raises:
        NotFoundError: there is no such file.
        FormatError: a file is no tar.
    """

    name = 'webdataset'
    is_ragged = True

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        self._files = files
        files.select(suffixes)
        self.url = files.url

    def describe(self) -> Mapping[str, Any]:
        return self._files.describe()

    def total_bytes(self) -> int:
        return self._files.total_bytes()

    def suggest(self, column: str, value: Any) -> str | None:
        if column == _KEY:
            return 'str'
        last = column.rpartition('.')[2].lower()
        if last == 'npy' and isinstance(value, np.ndarray):
            return None
        return _ENCODINGS.get(last, 'bytes')

    def ranges(self, part_bytes: int) -> list[Range]:
        found = []
        for file in self._files.find():
            cuts = self._cuts(file, part_bytes)
            for start, end in zip([0, *cuts], [*cuts, None], strict=True):
                size = (file.size if end is None else end) - start
                found.append(Range(place=file.place, key=file.key, start=start, end=end, bytes=size))
        return found

    def _cuts(self, file: InputFile, part_bytes: int) -> list[int]:
        """Where samples begin that are about a part apart: by going from head to head, which are not far to seek on a disk."""
        if is_packed(file.key) or file.size < 2 * part_bytes or self._files.path(file.place, file.key) is None:
            return []
        cuts: list[int] = []
        last = None
        with self._files.open(file.place, file.key) as opened:
            for _, member in _members(opened, self._files.name(file.place, file.key), can_seek=True):
                key = _split_name(member.name)[0]
                if key != last and member.offset - (cuts[-1] if cuts else 0) >= part_bytes:
                    cuts.append(member.offset)
                last = key
        return cuts

    def read(self, piece: Range, wanted: Wanted) -> Iterator[Batch]:
        name = self._files.name(piece.place, piece.key)
        records: list[Any] = []
        keys: list[str] = []
        size = 0
        with unpacked(name), self._files.open(piece.place, piece.key) as opened, open_packed(opened, piece.key) as content:
            for key, parts in _samples(content, piece, name):
                records.append(self._record(key, parts, wanted))
                keys.append(f'{name}, sample {key}')
                size += sum(map(len, parts.values()))
                if len(records) == _BATCH_SAMPLES or size > _BATCH_BYTES:
                    yield Batch(records, keys.__getitem__, size)
                    records, keys, size = [], [], 0
        if records:
            yield Batch(records, keys.__getitem__, size)

    def _record(self, key: str, parts: Mapping[str, bytes], wanted: Wanted) -> Mapping[str, Any] | BadRecord:
        record: dict[str, Any] = {_KEY: key}
        for column, data in parts.items():
            if wanted.columns is not None and column not in wanted.columns:
                continue
            try:
                record[column] = _value(column, data, wanted.encodings.get(column))
            except ValueError as error:
                return BadRecord(f'{column}: {error}', f'{key}.{column}, {len(data)} bytes')
        return record

    def close(self) -> None:
        self._files.close()


def _value(column: str, data: bytes, encoding: str | None) -> Any:
    """The value of a file, by its extension and what is to become of it."""
    last = column.rpartition('.')[2].lower()
    wanted = _ENCODINGS.get(last, 'bytes') if encoding is None else encoding
    if last == 'npy' and encoding != 'bytes':
        return np.load(BytesIO(data), allow_pickle=False)
    if wanted in ('bytes', 'jpeg', 'png', 'pil'):
        return data
    parse = text_parser(wanted)
    return data.decode() if parse is None else parse(data.decode())


def _split_name(name: str) -> tuple[str, str]:
    """What the files of a sample share, and what tells this one from the others."""
    folder, slash, base = name.rpartition('/')
    stem, _, extension = base.partition('.')
    return f'{folder}{slash}{stem}', extension.lower()


def _members(content: BinaryIO, name: str, *, can_seek: bool) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The files of a tar, from where the content stands."""
    try:
        with tarfile.open(fileobj=content, mode='r:' if can_seek else 'r|') as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                if member.isfile():
                    yield tar, member
    except tarfile.TarError as error:
        raise FormatError(f'{name} is no tar, or only a part of one: {error}') from error


def _samples(content: BinaryIO, piece: Range, name: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a range, as their key and their files by extension."""
    last = ''
    parts: dict[str, bytes] = {}
    can_seek = not is_packed(piece.key)
    if piece.start:
        content.seek(piece.start)
    for tar, member in _members(content, name, can_seek=can_seek):
        if piece.end is not None and member.offset >= piece.end:
            break
        key, extension = _split_name(member.name)
        if not extension:
            continue
        if key != last and parts:
            yield last, parts
            parts = {}
        last = key
        file = tar.extractfile(member)
        data = b'' if file is None else file.read()
        if len(data) != member.size:
            raise FormatError(f'{name} is only a part of a tar: {member.name} has {len(data)} of {member.size} bytes')
        parts[extension] = data
    if parts:
        yield last, parts
