"""Going on without a bad shard: the same samples stand in on any number of workers and ranks, and every rank keeps its steps."""

import logging
from pathlib import Path
from typing import Any

import pytest

from streaming import MDSWriter, Stream, StreamingDataLoader, StreamingDataset, World
from streaming.errors import ArgumentError, CorruptError, NotFoundError, UnavailableError
from streaming.store import open_store
from streaming.testing.wrappers import Fault, FaultyStore

BATCH = 4
SAMPLES = 200
SHARD = 10


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    folder = tmp_path / 'remote'
    with MDSWriter(out=str(folder), columns={'id': 'int'}, hashes=['xxh64'], size_limit=300) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number})
    assert len(list(folder.glob('shard.*'))) == SAMPLES // SHARD
    return folder


def break_shards(remote: Path) -> None:
    """Shard 3 is gone, shard 7 has a wrong byte, shard 19 (the last) is cut."""
    (remote / 'shard.00003.mds').unlink()
    for number, size in ((7, 1), (19, 5)):
        path = remote / f'shard.{number:05}.mds'
        data = path.read_bytes()
        path.write_bytes(data[:-size] + (b'?' if size == 1 else b''))


def stands_in(number: int) -> int:
    shard, within = divmod(number, SHARD)
    return {3: 4, 7: 8, 19: 0}.get(shard, shard) * SHARD + within


def read(remote: Path, local: Path, workers: int = 0, **options: Any) -> list[list[int]]:
    options = {'on_bad_shard': 'skip', 'world': World(), **options}
    dataset = StreamingDataset(remote=str(remote), local=str(local), batch_size=BATCH, download_retry=0, **options)
    return [batch['id'].tolist() for batch in StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)]


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('workers', [0, 2])
def test_others_stand_in(remote: Path, tmp_path: Path, workers: int, shuffle: bool) -> None:
    whole = read(remote, tmp_path / 'whole', shuffle=shuffle)
    break_shards(remote)
    found = read(remote, tmp_path / 'cache', workers, shuffle=shuffle)
    assert found == [[stands_in(number) for number in batch] for batch in whole]


def test_all_ranks_keep_their_steps(remote: Path, tmp_path: Path) -> None:
    break_shards(remote)
    for num_ranks in (1, 2, 5):
        ranks = [World(rank=rank, num_ranks=num_ranks, ranks_per_node=num_ranks) for rank in range(num_ranks)]
        batches = [read(remote, tmp_path / f'cache-{num_ranks}', world=world, num_canonical_nodes=1) for world in ranks]
        assert {len(rank) for rank in batches} == {SAMPLES // BATCH // num_ranks}
        together = sorted(number for rank in batches for batch in rank for number in batch)
        assert together == sorted(map(stands_in, range(SAMPLES)))


def test_it_is_said_once_and_counted(remote: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    break_shards(remote)
    dataset = StreamingDataset(
        remote=str(remote), local=str(tmp_path / 'cache'), batch_size=BATCH, download_retry=0, on_bad_shard='skip'
    )
    with caplog.at_level(logging.WARNING, 'streaming'):
        assert len(list(dataset)) == SAMPLES
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert 'shard.00003.mds' in said[0] and 'stand in for its 10 samples' in said[0]
    assert dataset.stats()[str(tmp_path / 'cache')]['replaced_samples'] == 3 * SHARD
    with pytest.raises(CorruptError, match=r'shard\.00007'):
        dataset[75]


def test_a_resumed_epoch_has_the_same_stand_ins(remote: Path, tmp_path: Path) -> None:
    break_shards(remote)
    whole = read(remote, tmp_path / 'cache', shuffle=True)
    dataset = StreamingDataset(
        remote=str(remote), local=str(tmp_path / 'other'), batch_size=BATCH, shuffle=True, on_bad_shard='skip', download_retry=0
    )
    dataset.load_state_dict(dataset.state_dict(20 * BATCH, from_beginning=True))
    rest = [sample['id'] for sample in dataset]
    assert rest == [number for batch in whole[20:] for number in batch]


def test_once_the_cause_is_gone_the_next_epoch_has_all(remote: Path, tmp_path: Path) -> None:
    kept = {path.name: path.read_bytes() for path in remote.glob('shard.*')}
    break_shards(remote)
    dataset = StreamingDataset(
        remote=str(remote), local=str(tmp_path / 'cache'), batch_size=BATCH, download_retry=0, on_bad_shard='skip'
    )
    assert [sample['id'] for sample in dataset] == [stands_in(number) for number in range(SAMPLES)]
    for name, data in kept.items():
        (remote / name).write_bytes(data)
    assert [sample['id'] for sample in dataset] == list(range(SAMPLES))


def test_a_stream_without_any_good_shard_is_an_error(remote: Path, tmp_path: Path) -> None:
    for path in remote.glob('shard.*'):
        path.unlink()
    with pytest.raises(NotFoundError, match=r'shard\.'):
        read(remote, tmp_path / 'cache')


def test_a_store_that_fails_is_no_bad_shard(remote: Path, tmp_path: Path) -> None:
    store = FaultyStore(open_store(str(remote), retry=None), Fault('read_into', key=r'shard\.00003\.mds', times=None))
    stream = Stream(store=store, local=str(tmp_path / 'cache'))
    dataset = StreamingDataset(streams=[stream], batch_size=BATCH, on_bad_shard='skip')
    with pytest.raises(UnavailableError, match=r'shard\.00003'):
        list(dataset)


def test_only_two_policies(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='on_bad_shard'):
        read(remote, tmp_path / 'cache', on_bad_shard='ignore')
