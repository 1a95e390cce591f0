"""A cache with a limit: never over it on disk, farthest next use first, never under a reader, and only what was fetched."""

import logging
import pickle
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming import MDSWriter, Stream, StreamingDataLoader, StreamingDataset, World
from streaming.errors import ArgumentError, DeadlineError
from streaming.format.index import ShardTable

SAMPLES = 800
SAMPLE_BYTES = 2000


@pytest.fixture(scope='module')
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 shards of about 40 kB."""
    folder = tmp_path_factory.mktemp('remote') / 'data'
    rng = np.random.default_rng(0)
    with MDSWriter(out=str(folder), columns={'id': 'int', 'data': 'bytes'}, hashes=['xxh64'], size_limit=41_000) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number, 'data': rng.bytes(SAMPLE_BYTES)})
    return folder


def table_of(remote: Path) -> ShardTable:
    return ShardTable.from_json((remote / 'index.json').read_bytes(), 'index')


def make(remote: Path, local: Path, **options: Any) -> StreamingDataset:
    return StreamingDataset(remote=str(remote), local=str(local), batch_size=10, **options)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'cache_limit is')
        yield


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('shuffle', [False, True])
def test_never_over_the_limit_and_every_sample_right(
    remote: Path, tmp_path: Path, watch: Callable[[Path], Any], workers: int, shuffle: bool
) -> None:
    limit = int(table_of(remote).raw_bytes.sum()) // 2
    dataset = make(remote, tmp_path, cache_limit=limit, shuffle=shuffle, shuffle_block_size=200)
    loader = StreamingDataLoader(dataset, batch_size=10, num_workers=workers)
    with watch(tmp_path) as seen:
        for _ in range(2):
            assert sorted(number for batch in loader for number in batch['id'].tolist()) == list(range(SAMPLES))
    assert limit // 2 < seen.most <= limit
    assert dataset.stats()[str(tmp_path)]['evicted_shards'] > 10


def test_jobs_with_different_limits_both_come_to_the_end(remote: Path, tmp_path: Path, watch: Callable[[Path], Any]) -> None:
    total = int(table_of(remote).raw_bytes.sum())
    jobs = [
        make(remote, tmp_path, cache_limit=int(part * total), shuffle=True, shuffle_block_size=200, shuffle_seed=number)
        for number, part in enumerate((0.4, 0.8))
    ]
    seen: list[list[int]] = [[], []]
    with watch(tmp_path) as disk:
        for samples in zip(*jobs, strict=True):
            for ids, sample in zip(seen, samples, strict=True):
                ids.append(sample['id'])
    assert [sorted(ids) for ids in seen] == [list(range(SAMPLES))] * 2
    assert disk.most <= 0.8 * total


def test_random_access_evicts_what_was_used_longest_ago(remote: Path, tmp_path: Path) -> None:
    table = table_of(remote)
    dataset = make(remote, tmp_path, cache_limit=60_000 + 5 * int(table.raw_bytes.max()))
    for shard in (0, 1, 2, 3, 0, 4, 0, 5):
        assert dataset[int(table.starts[shard])]['id'] == table.starts[shard]
    here = {path.name for path in tmp_path.glob('*.mds')}
    assert table[0].raw_data.basename in here
    assert table[5].raw_data.basename in here
    assert table[1].raw_data.basename not in here


def test_a_limit_that_cannot_work_is_refused_with_the_one_that_can(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r'cache_limit is 1024 bytes, but it takes at least (\d+)') as caught:
        make(remote, tmp_path, cache_limit='1kb')
    least = int(str(caught.value).split('at least ')[1].split()[0])
    # The files of plans count too.
    dataset = make(remote, tmp_path, cache_limit=least + 10_000, shuffle=True)
    loader = StreamingDataLoader(dataset, batch_size=10, num_workers=2)
    assert {number for batch in loader for number in batch['id'].tolist()} == set(range(SAMPLES))


def test_what_makes_it_slow_is_said_once(remote: Path, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path, cache_limit=400_000, shuffle=True)
    with pytest.warns(UserWarning, match='more than once an epoch.*shuffle_block_size'):
        next(iter(dataset))


def test_what_somebody_else_put_there_stays(remote: Path, tmp_path: Path) -> None:
    table = table_of(remote)
    theirs = [table[shard].raw_data.basename for shard in (3, 17)]
    for name in theirs:
        (tmp_path / name).write_bytes((remote / name).read_bytes())
    (tmp_path / 'notes.txt').write_text('mine')
    dataset = make(remote, tmp_path, cache_limit=500_000)
    assert [sample['id'] for sample in dataset] == list(range(SAMPLES))
    assert dataset.stats()[str(tmp_path)]['evicted_shards'] > 0
    assert all((tmp_path / name).exists() for name in (*theirs, 'notes.txt'))


def test_a_job_without_a_limit_keeps_what_it_has_open(remote: Path, tmp_path: Path) -> None:
    table = table_of(remote)
    free = make(remote, tmp_path)
    first = [free[int(table.starts[shard])]['id'] for shard in range(3)]
    limited = make(remote, tmp_path, cache_limit=400_000)
    assert [sample['id'] for sample in limited] == list(range(SAMPLES))
    assert [free[int(table.starts[shard])]['id'] for shard in range(3)] == first
    assert all((tmp_path / table[shard].raw_data.basename).exists() for shard in range(3))


def test_a_wait_for_room_ends_with_what_it_waited_for(remote: Path, tmp_path: Path) -> None:
    table = table_of(remote)
    free = make(remote, tmp_path)
    for shard in range(20):
        free[int(table.starts[shard])]
    limited = make(remote, tmp_path, cache_limit=400_000, download_timeout=0.4)
    with pytest.raises(DeadlineError, match=r'waited 0\.4 s for \d+ bytes .* for .*shard\.00039'):
        limited[SAMPLES - 1]


def test_who_waits_for_room_is_woken(remote: Path, tmp_path: Path) -> None:
    table = table_of(remote)
    free = make(remote, tmp_path)
    for shard in range(9):
        free[int(table.starts[shard])]
    limited = make(remote, tmp_path, cache_limit=400_000, download_timeout=100)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(limited[SAMPLES - 1]['id']))
    thread.start()
    pipe = tmp_path / '.streaming' / 'room'
    while not pipe.exists():
        thread.join(0.01)
    free._shards._readers.close()
    thread.join(60)  # it would wait for a hundred seconds
    assert found == [SAMPLES - 1]


def test_the_counters_say_what_happened_and_each_rank_says_it_once_an_epoch(
    remote: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(remote)
    limit = int(table.raw_bytes.sum()) // 2
    with caplog.at_level(logging.INFO, 'streaming.epoch_log'):
        for rank in range(2):
            world = World(rank=rank, num_ranks=2, ranks_per_node=2)
            dataset = make(remote, tmp_path, cache_limit=limit, shuffle=True, shuffle_block_size=200, world=world)
            assert len(list(dataset)) == SAMPLES // 2
    stats = dataset.stats()[str(tmp_path)]
    assert stats['requests'] == stats['fetched_shards'] >= len(table)
    assert stats['retries'] == stats['failed_fetches'] == 0
    assert stats['fetched_bytes'] - stats['evicted_bytes'] == sum(path.stat().st_size for path in tmp_path.glob('*.mds'))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(' of each')[0] for line in lines] == [f'epoch 0, rank {rank}: 40 of 40 batches' for rank in range(2)]
    fetched = [int(re.findall(r'fetched (\d+)', line)[0]) for line in lines]
    assert sum(fetched) == stats['fetched_shards']


def test_a_dataset_pickles_small_and_holds_nothing_live(remote: Path, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path, cache_limit=500_000, shuffle=True)
    walk = iter(dataset)
    first = next(walk)
    data = pickle.dumps(dataset)
    assert len(data) < 10_000
    copy = pickle.loads(data)
    copy.next_epoch = 0
    assert next(iter(copy))['id'] == first['id']
    walk.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize('algo', ['windowed', 'py1br'])
def test_what_an_earlier_run_left_over_the_limit_goes_at_once(
    remote: Path, tmp_path: Path, watch: Callable[[Path], Any], algo: str
) -> None:
    free = make(remote, tmp_path)
    assert len(list(free)) == SAMPLES
    free._shards.close()
    limit = int(table_of(remote).raw_bytes.sum()) // 2
    limited = make(remote, tmp_path, cache_limit=limit, shuffle=True, shuffle_block_size=200, shuffle_algo=algo)
    with watch(tmp_path) as seen:
        assert {sample['id'] for sample in limited} == set(range(SAMPLES))
    assert limit // 2 < seen.most <= limit


def test_one_limit_holds_for_all_streams_together(remote: Path, tmp_path: Path, watch: Callable[..., Any]) -> None:
    other = tmp_path / 'other'
    with MDSWriter(out=str(other), columns={'id': 'int', 'data': 'bytes'}, hashes=['xxh64'], size_limit=41_000) as writer:
        for number in range(400):
            writer.write({'id': SAMPLES + number, 'data': bytes(SAMPLE_BYTES)})
    places = [tmp_path / 'first', tmp_path / 'second']
    streams = [Stream(remote=str(source), local=str(place)) for source, place in zip((remote, other), places, strict=True)]
    limit = 700_000
    dataset = StreamingDataset(streams=streams, batch_size=10, shuffle=True, shuffle_block_size=150, cache_limit=limit)
    loader = StreamingDataLoader(dataset, batch_size=10, num_workers=1)
    with watch(*places) as seen:
        for _ in range(2):
            assert sorted(number for batch in loader for number in batch['id'].tolist()) == list(range(SAMPLES + 400))
    assert limit // 2 < seen.most <= limit
    assert all(counts['evicted_shards'] > 0 for counts in dataset.stats().values())


def test_compressed_copies_that_are_kept_count_and_go_with_their_shard(tmp_path: Path, watch: Callable[[Path], Any]) -> None:
    remote, local = tmp_path / 'remote', tmp_path / 'local'
    rng = np.random.default_rng(0)
    with MDSWriter(out=str(remote), columns={'data': 'bytes'}, compression='zstd', size_limit=21_000) as writer:
        for _ in range(400):
            writer.write({'data': rng.integers(0, 9, SAMPLE_BYTES, np.uint8).tobytes()})
    limit = 400_000
    dataset = make(remote, local, cache_limit=limit, keep_zip=True)
    with watch(local) as seen:
        assert len(list(dataset)) == 400
    assert limit // 2 < seen.most <= limit
    raw, packed = ({path.name.removesuffix('.zstd') for path in local.glob(f'*.{end}')} for end in ('mds', 'mds.zstd'))
    assert raw == packed


def test_idle_costs_no_cpu(remote: Path, tmp_path: Path) -> None:
    dataset = make(remote, tmp_path, cache_limit=600_000, shuffle=True, shuffle_block_size=200)
    walk = iter(dataset)
    next(walk)
    used: list[float] = []
    while min(used, default=1.0) > 0.1 and len(used) < 20:  # what is fetched ahead has still to come at first
        began = time.process_time()
        time.sleep(1)
        used.append(time.process_time() - began)
    assert min(used) <= 0.1, used
    walk.close()  # type: ignore[attr-defined]
