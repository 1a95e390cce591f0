"""Entries that are checked together: what is taken so is what is taken one by one, and nothing else."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import FormatError
from streaming.format import entries
from streaming.format.index import ShardTable
from streaming.format.layout import Layout


def file(name: str, size: int, digest: str = 'a01f') -> dict[str, Any]:
    return {'basename': name, 'bytes': size, 'hashes': {'md5': digest, 'xxh64': digest * 2}}


def mds(number: int, **changes: Any) -> dict[str, Any]:
    return {
        'column_encodings': ['int', 'str'],
        'column_names': ['a', 'b'],
        'column_sizes': [8, None],
        'compression': 'zstd',
        'format': 'mds',
        'hashes': ['md5', 'xxh64'],
        'raw_data': file(f'shard.{number:05}.mds', 100_000 + number),
        'samples': 10 + number,
        'size_limit': 1000,
        'version': 2,
        'zip_data': file(f'shard.{number:05}.mds.zstd', 50_000 + number),
        **changes,
    }


def jsonl(number: int, folder: str = '') -> dict[str, Any]:
    return {
        'columns': {'samples': 'int', 'basename': 'str'},
        'compression': None,
        'format': 'json',
        'hashes': [],
        'newline': '\n',
        'raw_data': file(f'{folder}shard.{number:05}.json', 90_000 + number),
        'raw_meta': file(f'{folder}shard.{number:05}.json.meta', 90_000 + number),
        'samples': number,
        'size_limit': None,
        'version': 2,
        'zip_data': None,
        'zip_meta': None,
    }


def text_of(shards: list[dict[str, Any]]) -> bytes:
    return json.dumps({'shards': shards, 'version': 2}, sort_keys=True).encode()


def read(data: bytes, *, together: bool) -> ShardTable | FormatError:
    """The table, or why there is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, '_LEAST_ROWS', 1 if together else sys.maxsize)
        try:
            return ShardTable.from_json(data, 'the/index.json')
        except FormatError as error:
            return error


def is_refused_in_the_end(found: ShardTable | FormatError) -> bool:
    """Some of what nothing depends on, like digests, is looked at when an entry is read."""
    if isinstance(found, FormatError):
        return True
    try:
        list(found)
    except FormatError:
        return True
    return False


def is_as_said(table: ShardTable, shards: list[dict[str, Any]]) -> bool:
    """Whether a table has what an index says, and could be believed: slow and obvious."""
    names = []
    for number, shard in enumerate(shards):
        raw, packed = (
            [shard[f'{state}_{kind}'] for kind in ('data', 'meta') if shard.get(f'{state}_{kind}')] for state in ('raw', 'zip')
        )
        sizes = [sum(file['bytes'] for file in files) for files in (raw, packed if shard.get('compression') else raw)]
        names += [file['basename'] for file in raw + packed]
        counts = (table.samples[number], table.raw_bytes[number], table.stored_bytes[number])
        if any(type(file['bytes']) is not int for file in raw + packed) or counts != (shard['samples'], *sizes):
            return False
    parts = [part for name in names for part in name.split('/')]
    odd = any(part in ('', '.', '..') or len(part.encode()) > 255 for part in parts)
    return not odd and len(set(names)) == len(names) and not any(name.startswith('.streaming/') or '\0' in name for name in names)


def agree(data: bytes) -> None:
    """What is checked together is what is checked one by one."""
    one_by_one, together = read(data, together=False), read(data, together=True)
    if isinstance(together, FormatError):
        assert is_refused_in_the_end(one_by_one), together
        return
    try:
        shards = json.loads(data)['shards']
    except ValueError:
        assert is_refused_in_the_end(together)
        return
    assert is_as_said(together, shards)
    assert not is_refused_in_the_end(one_by_one) or is_refused_in_the_end(together), one_by_one


def calls_of(run: Callable[[], Any]) -> int:
    """Calls of functions of Python and C."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ('call', 'c_call')

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


INDEXES: dict[str, Callable[[int], dict[str, Any]]] = {
    'compressed': mds,
    'not compressed': lambda number: mds(number, compression=None, zip_data=None),
    'text': jsonl,
    'merged': lambda number: jsonl(number % 10, f'part-{number // 10:05}/'),
    'in odd folders': lambda number: jsonl(number % 10, f'2026 "träin" [a=1]/part-{number // 10}/'),
    'numbers of any length': lambda number: mds(number, samples=number, raw_data=file(f'{number}', 50_000 + number**2)),
    'two writers': lambda number: mds(number) if number % 2 else jsonl(number),
}


@pytest.mark.parametrize('kind', INDEXES)
def test_as_one_by_one(kind: str) -> None:
    shards = [INDEXES[kind](number) for number in range(200)]
    table = read(text_of(shards), together=True)
    assert isinstance(table, ShardTable)
    assert is_as_said(table, shards)
    assert [shard.to_json() for shard in table] == shards
    agree(text_of(shards))


@pytest.mark.parametrize('kind', INDEXES)
def test_little_is_done_for_each_shard(kind: str) -> None:
    data = text_of([INDEXES[kind](number) for number in range(10_000)])
    # Names go through Python where a prefix is put before each.
    assert calls_of(lambda: ShardTable.from_json(data, 'the/index.json')) < 10_000


# What some letters of a valid index are replaced by.
PIECES = [
    '"',
    '\\',
    '\\u002e',
    '..',
    '/',
    './',
    '-',
    '0',
    '00',
    '9' * 19,
    'e1',
    '.5',
    ',',
    ':',
    '{',
    ' ',
    '\n',
    '\0',
    'é',
    'null',
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_entries_are_as_one_by_one(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*INDEXES]))
    text = text_of([INDEXES[kind](number) for number in range(4)])
    places = [match.span(1) for match in re.finditer(rb'"(?:samples|bytes|basename|md5)": "?([^",}]+)', text)]
    changed = bytearray(text)
    for _ in range(data.draw(st.integers(1, 3))):
        begin, end = data.draw(st.sampled_from(places) | st.just((0, len(text))))
        where = data.draw(st.integers(begin, end))
        piece = data.draw(st.sampled_from(PIECES) | st.text(max_size=2)).encode(errors='replace')
        # Mostly in the place of as many bytes, so that the lengths stay those of the others.
        changed[where : where + data.draw(st.sampled_from([len(piece), len(piece), len(piece), 0, 3]))] = piece
    agree(bytes(changed))


BAD_VALUES = {
    'shard.00033.mds"': [
        '../rd.00033.mds"',
        'sh/../0033.mds"',
        '/hard.00033.mds"',
        'shard.00033.md/"',
        'sha//.00033.mds"',
        'sha/./00033.mds"',
        '.streaming/0033"',
        'shard.00033.m"s"',
        'sha\\\\d00033.mds"',
        'shard\0.00033.mds"',
        'index.json"',
        '"',
        'shard.00034.mds"',
        '\\u002e./rd33.mds"',
    ],
    '"bytes": 3999000033': [
        '"bytes": 0000000033',
        '"bytes": -000000033',
        '"bytes": 399900003x',
        '"bytes": 399900.033',
        '"bytes": 39990e9999',
        '"bytes": 3999 00033',
        '"bytes":       null',
        '"bytes": 9999000033',
    ],
    '"samples": 900000033': [
        '"samples": 000000033',
        '"samples": -00000033',
        '"samples": 9000000.0',
        '"samples": 999999999',
        '"samples": "9000033"',
        '"samples": [0000033]',
    ],
    'shard00033"': ['index.json"', 'shard00034"', '../../../a"'],
}


def alike(number: int) -> dict[str, Any]:
    raw, packed = file(f'shard.{number:05}.mds', 3_999_000_000 + number, f'b{number:03}'), file(f'shard{number:05}', 500)
    return mds(number, samples=900_000_000 + number, raw_data=raw, zip_data=packed)


@pytest.mark.parametrize(('good', 'bad'), [(good, bad) for good, some in BAD_VALUES.items() for bad in some])
def test_one_bad_value_among_good_ones(good: str, bad: str) -> None:
    text = text_of([alike(number) for number in range(50)]).decode()
    assert text.count(good) == 1
    error = read(text.replace(good, bad).encode(), together=True)
    assert isinstance(error, FormatError)
    assert 'shard 33' in str(error) or 'shard 34' in str(error) or 'JSON' in str(error)


@pytest.mark.parametrize('bad', ['"b03"b033"', '"b03\\b033"', '"b03\nb033"', '"b03\\"033"', '["b0b033"]', '     b033b0'])
def test_one_bad_digest_among_good_ones(bad: str) -> None:
    text = text_of([alike(number) for number in range(50)]).decode().replace('"b033b033"', bad)
    found = read(text.encode(), together=True)
    if bad in ('"b03\\b033"', '"b03\\"033"'):
        assert not is_refused_in_the_end(found)  # odd, but text
        agree(text.encode())
    else:
        assert is_refused_in_the_end(found)


@pytest.mark.parametrize(
    'change',
    [('"samples": 9', '"samples": 0'), ('"bytes": 3', '"bytes": 0'), ('b001b001', '","a":"b'), ('b001b001', 'b00\\n001')],
)
def test_what_a_layout_does_not_match(change: tuple[str, str]) -> None:
    first, second = (json.dumps(alike(number)) for number in range(2))
    layout = Layout(first.encode(), ('raw_data', 'zip_data'))
    texts = [first, second, second.replace(*change)]
    assert layout.match(np.array([list(text.encode()) for text in texts], np.uint8)).tolist() == [True, True, False]


@pytest.mark.parametrize('places', [(3, 40), (40, 41), (0, 49)])
@pytest.mark.parametrize('kind', ['compressed', 'in odd folders', 'two writers'])
def test_a_name_that_stands_twice(kind: str, places: tuple[int, int]) -> None:
    shards = [INDEXES[kind](number) for number in range(50)]
    first, second = places
    # The same name in another spelling, too.
    for spell in (lambda name: json.dumps(name), lambda name: json.dumps(name, ensure_ascii=False).replace('s', '\\u0073')):
        text = (
            text_of(shards)
            .decode()
            .replace(json.dumps(shards[second]['raw_data']['basename']), spell(shards[first]['raw_data']['basename']))
        )
        error = read(text.encode(), together=True)
        assert f'shard {second}: the file' in str(error)
        assert 'is named twice' in str(error)


def test_keys_that_stand_twice_around_the_entries() -> None:
    text = text_of([mds(number) for number in range(50)])
    for key in (b'"shards": [], "shards"', b'"sh\\u0061rds": [], "shards"', b'"x": 1, "x": 2, "shards"'):
        with pytest.raises(FormatError, match='twice'):
            ShardTable.from_json(text.replace(b'"shards"', key), 'the/index.json')
    with pytest.raises(FormatError, match='twice'):
        ShardTable.from_json(text[:-1] + b', "shards": []}', 'the/index.json')
    assert len(ShardTable.from_json(text.replace(b'"shards"', b'"x": [{"shards": [1]}], "shards"'), 'the/index.json')) == 50


@pytest.mark.parametrize(
    'change',
    [
        ('"samples"', '"s\\u0061mples"'),
        ('"raw_data"', '"raw\\u005fdata"'),
        ('"bytes": 100000', '"bytes": -0'),
        ('shard', 'sh\\u0061rd'),
    ],
)
def test_what_is_written_oddly_has_no_layout(change: tuple[str, str]) -> None:
    text = json.dumps(mds(0))
    assert len(Layout(text.encode(), ('raw_data', 'zip_data'))) == len(text)
    with pytest.raises(ValueError, match=r'odd|escapes|number'):
        Layout(text.replace(*change).encode(), ('raw_data', 'zip_data'))
