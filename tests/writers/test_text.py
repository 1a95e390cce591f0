"""What the writers of text write, against files of mosaicml-streaming 0.13 and against what was put in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streaming import CSVWriter, JSONWriter, LocalDataset, TSVWriter, XSVWriter
from streaming.errors import ArgumentError, ColumnTypeError
from streaming.format.compression import get_codec
from streaming.format.index import ShardTable
from streaming.writers.base import Writer

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'
COLUMNS = {'number': 'int', 'ratio': 'float', 'words': 'str'}
WRITERS: dict[str, Callable[..., Writer]] = {
    'json': JSONWriter,
    'csv': CSVWriter,
    'tsv': TSVWriter,
    'xsv': lambda **options: XSVWriter(separator='|', **options),
}
each = pytest.mark.parametrize('name', list(WRITERS))


def golden_rows() -> list[dict[str, Any]]:
    parse: dict[str, Callable[[str], Any]] = {'int': int, 'float': float.fromhex, 'str': str}
    lines = (GOLDEN / 'text.expected.jsonl').read_text().splitlines()
    return [{name: parse[kind](value) for name, (kind, value) in json.loads(line).items()} for line in lines]


def raw_files(folder: Path, table: ShardTable) -> list[bytes]:
    found = []
    for shard in table:
        for raw, stored in zip(shard.raw_files, shard.stored, strict=True):
            data = (folder / stored.basename).read_bytes()
            found.append(data if shard.compression is None else get_codec(shard.compression).decompress(data, raw.bytes))
    return found


@each
def test_same_files(tmp_path: Path, name: str) -> None:
    theirs = ShardTable.from_json((GOLDEN / name / 'index.json').read_bytes(), name)
    shard = theirs[0]
    options = {'compression': shard.compression, 'hashes': shard.hashes, 'size_limit': shard.size_limit}
    with WRITERS[name](out=tmp_path, columns=COLUMNS, **options) as writer:
        for row in golden_rows():
            writer.write(row)
    ours = ShardTable.from_json((tmp_path / 'index.json').read_bytes(), 'ours')
    assert raw_files(tmp_path, ours) == raw_files(GOLDEN / name, theirs)
    assert [shard.raw_files for shard in ours] == [shard.raw_files for shard in theirs]
    if shard.compression is None:
        assert (tmp_path / 'index.json').read_bytes() == (GOLDEN / name / 'index.json').read_bytes()


@each
def test_round_trip_and_append(tmp_path: Path, name: str) -> None:
    rows = [{'number': number, 'ratio': number / 3, 'words': f'ü{number}' * (number % 7)} for number in range(500)]
    for part in (rows[:300], rows[300:]):
        with WRITERS[name](out=tmp_path, columns=COLUMNS, size_limit=2000, hashes=['xxh64'], exist_ok='append') as writer:
            for row in part:
                writer.write(row)
    assert list(LocalDataset(tmp_path)) == rows
    other = {**COLUMNS, 'more': 'int'}
    with pytest.raises(ArgumentError, match='more'):
        WRITERS[name](out=tmp_path, columns=other, exist_ok='append')
    with WRITERS[name](out=tmp_path, columns=COLUMNS, exist_ok=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['index.json']


@each
def test_refused_values(tmp_path: Path, name: str) -> None:
    good = {'number': 1, 'ratio': 0.5, 'words': 'fine'}
    with WRITERS[name](out=tmp_path, columns=COLUMNS) as writer:
        writer.write(good)
        unwritable: list[dict[str, Any]] = [{'number': 10**5000}, {'ratio': 10**5000}, {'words': 10**5000}]
        if name != 'json':  # which has escapes for those
            unwritable.append({'words': 'a\ud800'})
        for bad in ({'number': 'x'}, {'number': True}, {'words': 5}, {'words': None}, *unwritable):
            with pytest.raises(ColumnTypeError, match=f'column {next(iter(bad))!r}'):
                writer.write({**good, **bad})
        with pytest.raises(ColumnTypeError, match='has no words'):
            writer.write({'number': 1, 'ratio': 0.5})
        if name != 'json':
            for words in ('two\nlines', {'csv': 'a,b', 'tsv': 'a\tb', 'xsv': 'a|b'}[name]):
                with pytest.raises(ColumnTypeError, match='cannot quote'):
                    writer.write({**good, 'words': words})
        writer.write(good)
    assert list(LocalDataset(tmp_path)) == [good, good]


@each
def test_bad_columns(tmp_path: Path, name: str) -> None:
    for columns in ({}, {'x': 'ndarray'}, None, {'a': 'int', 'b': 'strr'}, {1: 'int'}, {'a\ud800': 'int', 'b': 'int'}):
        with pytest.raises(ArgumentError):
            WRITERS[name](out=tmp_path / 'x', columns=columns)
    assert not (tmp_path / 'x').exists()


def test_other_format_is_not_appended_to(tmp_path: Path) -> None:
    with CSVWriter(out=tmp_path, columns=COLUMNS) as writer:
        writer.write({'number': 1, 'ratio': 0.5, 'words': 'fine'})
    with pytest.raises(ArgumentError, match="format 'csv'"):
        TSVWriter(out=tmp_path, columns=COLUMNS, exist_ok='append')
