"""A remote that was overwritten: noticed, and on request followed, without losing what is the same or is not ours."""

from pathlib import Path
from typing import Any

import pytest

from streaming import MDSWriter, StreamingDataset
from streaming.errors import ArgumentError, StaleCacheError


def write(remote: Path, first: int, samples: int = 100) -> None:
    with MDSWriter(out=str(remote), columns={'id': 'int'}, hashes=['xxh64'], size_limit=400, exist_ok=True) as writer:
        for number in range(samples):
            # The first shards are the same in all versions.
            writer.write({'id': number if number < 50 else first + number})


def make(remote: Path, local: Path, **options: Any) -> StreamingDataset:
    return StreamingDataset(remote=str(remote), local=str(local), batch_size=10, **options)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    remote, local = tmp_path / 'remote', tmp_path / 'local'
    write(remote, 0)
    dataset = make(remote, local)
    assert [sample['id'] for sample in dataset] == list(range(100))
    dataset._shards.close()
    return remote, local


def test_an_overwritten_remote_is_an_error_unless_asked_for(places: tuple[Path, Path]) -> None:
    remote, local = places
    write(remote, 1000)
    with pytest.raises(StaleCacheError, match="on_stale='refresh'"):
        make(remote, local)
    with pytest.raises(ArgumentError, match="on_stale must be 'error' or 'refresh', got 'maybe'"):
        make(remote, local, on_stale='maybe')


def test_refresh_fetches_what_has_changed_only(places: tuple[Path, Path]) -> None:
    remote, local = places
    write(remote, 1000)
    dataset = make(remote, local, on_stale='refresh')
    same = {path.name for path in local.glob('*.mds')}
    assert len(same) >= 2
    assert all((local / name).read_bytes() == (remote / name).read_bytes() for name in same)
    assert [sample['id'] for sample in dataset] == [*range(50), *range(1050, 1100)]
    shards = len(list(remote.glob('*.mds')))
    assert dataset.stats()[str(local)]['fetched_shards'] == shards - len(same)
    again = make(remote, local)
    assert [sample['id'] for sample in again][-1] == 1099


def test_refresh_with_fewer_shards_leaves_none_behind(places: tuple[Path, Path]) -> None:
    remote, local = places
    for path in remote.iterdir():
        path.unlink()
    write(remote, 1000, samples=60)
    dataset = make(remote, local, on_stale='refresh')
    assert [sample['id'] for sample in dataset] == [*range(50), *range(1050, 1060)]
    assert {path.name for path in local.glob('*.mds')} == {path.name for path in remote.glob('*.mds')}


def test_what_is_read_or_was_not_fetched_is_not_touched(places: tuple[Path, Path], tmp_path: Path) -> None:
    remote, local = places
    reading = make(remote, local)
    write(remote, 1000)
    before = sorted(path.name for path in local.glob('*.mds'))
    with pytest.raises(StaleCacheError, match='a running process reads'):
        make(remote, local, on_stale='refresh')
    reading._shards.close()
    theirs = local / before[-1]
    theirs.chmod(0o644)
    with pytest.raises(StaleCacheError, match='not fetched but put there'):
        make(remote, local, on_stale='refresh')
    assert sorted(path.name for path in local.glob('*.mds')) == before


def test_another_remote_is_never_refreshed_from(places: tuple[Path, Path], tmp_path: Path) -> None:
    _, local = places
    write(tmp_path / 'other', 5000)
    with pytest.raises(StaleCacheError, match='another dataset'):
        make(tmp_path / 'other', local, on_stale='refresh')
