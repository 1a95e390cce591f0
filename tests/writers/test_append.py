"""Appending: readers see the old dataset or the new one, and two that append at a time do not mix."""

from pathlib import Path
from typing import Any

import pytest

from streaming import LocalDataset, MDSWriter
from streaming.errors import AlreadyExistsError, ArgumentError, FormatError, PreconditionError

COLUMNS = {'number': 'int', 'text': 'str'}


def sample(number: int) -> dict[str, Any]:
    return {'number': number, 'text': f'sample {number} ' * (number % 5)}


def append(out: Any, numbers: Any, **options: Any) -> None:
    with MDSWriter(out=out, **{'columns': COLUMNS, 'size_limit': 500, 'exist_ok': 'append', **options}) as writer:
        for number in numbers:
            writer.write(sample(number))


def numbers(folder: Path) -> list[int]:
    return [sample['number'] for sample in LocalDataset(folder)]


def test_append_is_as_if_written_in_one_go_but_for_the_cut(tmp_path: Path) -> None:
    append(tmp_path, range(60))
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    append(tmp_path, range(60, 100), compression='zstd', hashes=['xxh64'], size_limit=900)
    append(tmp_path, [])
    append(tmp_path, range(100, 103), columns=None)
    assert numbers(tmp_path) == list(range(103))
    for name, data in first.items():
        assert name == 'index.json' or (tmp_path / name).read_bytes() == data
    shards = sorted(path.name for path in tmp_path.iterdir() if path.name != 'index.json')
    assert [int(name.split('.')[1]) for name in shards] == list(range(len(shards)))


def test_the_old_dataset_stays_until_the_end(tmp_path: Path) -> None:
    append(tmp_path, range(10))
    before = {path.name for path in tmp_path.iterdir()}
    with MDSWriter(out=tmp_path, exist_ok='append', size_limit=100) as writer:
        for number in range(10, 50):
            writer.write(sample(number))
        assert numbers(tmp_path) == list(range(10))
    assert numbers(tmp_path) == list(range(50))
    after = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(KeyError), MDSWriter(out=tmp_path, exist_ok='append', size_limit=100) as writer:
        for number in range(10, 50):
            writer.write(sample(number))
        raise KeyError
    assert {path.name for path in tmp_path.iterdir()} == after > before
    assert numbers(tmp_path) == list(range(50))


def test_only_the_same_columns(tmp_path: Path) -> None:
    append(tmp_path, range(10))
    with pytest.raises(ArgumentError, match=r"column_encodings.*'str'.*'bytes'"):
        append(tmp_path, range(10), columns={**COLUMNS, 'text': 'bytes'})
    assert numbers(tmp_path) == list(range(10))


def test_not_a_dataset(tmp_path: Path) -> None:
    (tmp_path / 'index.json').write_bytes(b'{"version": 1}')
    with pytest.raises(FormatError, match=r'index\.json'):
        append(tmp_path, range(10))


def test_after_a_writer_that_was_killed(tmp_path: Path) -> None:
    append(tmp_path, range(10))
    (tmp_path / 'shard.00041.mds').write_bytes(b'left over')
    append(tmp_path, range(10, 20))
    assert numbers(tmp_path) == list(range(20))
    assert (tmp_path / 'shard.00041.mds').read_bytes() == b'left over'


def test_two_at_a_time(tmp_path: Path) -> None:
    append(tmp_path, range(10))
    first = MDSWriter(out=tmp_path, columns=COLUMNS, exist_ok='append')
    second = MDSWriter(out=tmp_path, columns=COLUMNS, exist_ok='append')
    for writer, number in ((first, 10), (second, 20)):
        writer.write(sample(number))
    first.finish()
    with pytest.raises(AlreadyExistsError, match=r'shard\.00\d\d\d\.mds exists already'):
        second.finish()
    assert numbers(tmp_path) == list(range(11))
    empty = MDSWriter(out=tmp_path, columns=COLUMNS, exist_ok='append')
    append(tmp_path, [11])
    with pytest.raises(PreconditionError, match='changed by another writer'):
        empty.finish()
    assert numbers(tmp_path) == list(range(12))


def test_local_and_remote(tmp_path: Path) -> None:
    local, remote = tmp_path / 'local', tmp_path / 'remote'
    append((local, remote), range(10), keep_local=True)
    append((local, remote), range(10, 20), keep_local=True)
    assert numbers(local) == numbers(remote) == list(range(20))
    append((local, remote), range(20, 30))
    assert numbers(local) == list(range(20))
    assert numbers(remote) == list(range(30))
    with pytest.raises(ArgumentError, match='no copy of'):
        append((local, remote), range(30, 40), keep_local=True)
