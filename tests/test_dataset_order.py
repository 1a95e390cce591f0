"""The orders, mixes and subsets of streaming.order, as a dataset gives them."""

import os
import pickle
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streaming import MDSWriter, Stream, StreamingDataLoader, StreamingDataset, World
from streaming.errors import ArgumentError

BATCH = 4
SIZES = {'a': 61, 'b': 40, 'c': 99}


@pytest.fixture(scope='module')
def remotes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three streams; ids count through all of them."""
    first = 0
    made = {}
    for name, size in SIZES.items():
        folder = tmp_path_factory.mktemp(name)
        with MDSWriter(out=str(folder), columns={'id': 'int'}, size_limit=400, exist_ok=True) as writer:
            for number in range(size):
                writer.write({'id': first + number})
        first += size
        made[name] = str(folder)
    return made


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))


def make(
    remotes: dict[str, str],
    tmp_path: Path,
    rank: int = 0,
    num_ranks: int = 1,
    weights: Sequence[dict[str, Any]] = ({}, {}, {}),
    **options: Any,
) -> StreamingDataset:
    streams = [
        Stream(remote=remote, local=str(tmp_path / name), **weight)
        for (name, remote), weight in zip(remotes.items(), weights, strict=True)
    ]
    world = World(rank=rank, num_ranks=num_ranks, ranks_per_node=num_ranks)
    return StreamingDataset(streams=streams, batch_size=BATCH, world=world, **{'shuffle': True, **options})


def ids(dataset: StreamingDataset, workers: int = 0) -> list[int]:
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)
    return [number for batch in loader for number in batch['id'].tolist()]


@pytest.mark.parametrize('algo', ['windowed', 'naive', 'py1s', 'py2s', 'py1br', 'py1e'])
def test_every_shuffle_gives_every_sample(remotes: dict[str, str], tmp_path: Path, algo: str) -> None:
    alone = ids(make(remotes, tmp_path, shuffle_algo=algo))
    assert sorted(set(alone)) == list(range(200))
    assert alone != sorted(alone)
    assert ids(make(remotes, tmp_path, shuffle_algo=algo), workers=2) == alone
    parts = [ids(make(remotes, tmp_path, rank, 2, shuffle_algo=algo)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    assert {number for part in parts for number in part} == set(range(200))


def test_an_array_is_computed_once_a_node(remotes: dict[str, str], tmp_path: Path) -> None:
    datasets = [make(remotes, tmp_path, rank, 2, shuffle_algo='py1e') for rank in range(2)]
    for dataset in datasets:
        ids(dataset, workers=2)
    arrays = list((tmp_path / 'a' / '.streaming' / 'arrays').iterdir())
    assert [path.suffix for path in arrays] == ['.npy'], 'one array, no lock or part left'
    written = arrays[0].stat().st_ino
    ids(make(remotes, tmp_path, shuffle_algo='py1e'))
    assert arrays[0].stat().st_ino == written


def test_old_arrays_go(remotes: dict[str, str], tmp_path: Path) -> None:
    dataset = make(remotes, tmp_path, shuffle_algo='naive')
    for _ in range(20):
        ids(dataset)
    assert len(os.listdir(tmp_path / 'a' / '.streaming' / 'arrays')) == 16


@pytest.mark.parametrize('algo', ['windowed', 'py1e'])
@pytest.mark.parametrize('method', ['random', 'stratified', 'per_stream', 'device_per_stream'])
def test_every_batching_method_resumes_elsewhere(remotes: dict[str, str], tmp_path: Path, algo: str, method: str) -> None:
    options = {'shuffle_algo': algo, 'batching_method': method}
    whole = [ids(make(remotes, tmp_path, rank, 2, **options)) for rank in range(2)]
    taken = []
    for rank in range(2):
        loader = StreamingDataLoader(make(remotes, tmp_path, rank, 2, **options), batch_size=BATCH, num_workers=1)
        batches = iter(loader)
        taken.append([number for _ in range(5) for number in next(batches)['id'].tolist()])
        state = loader.state_dict()
    assert [part[: 5 * BATCH] for part in whole] == taken

    def rest(num_ranks: int) -> Counter[int]:
        found: Counter[int] = Counter()
        for rank in range(num_ranks):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                loader = StreamingDataLoader(make(remotes, tmp_path, rank, num_ranks, **options), batch_size=BATCH)
                loader.load_state_dict(pickle.loads(pickle.dumps(state)))
                found.update(number for batch in loader for number in batch['id'].tolist())
        return found

    expected = Counter(number for part in whole for number in part[5 * BATCH :])
    assert rest(2) == expected
    assert rest(4).keys() == expected.keys()
    assert rest(1).keys() == expected.keys()


def test_weights_mix_streams(remotes: dict[str, str], tmp_path: Path) -> None:
    halves = [{'proportion': 0.5}, {'proportion': 0.25}, {'proportion': 0.25}]
    seen = ids(make(remotes, tmp_path, weights=halves, epoch_size=400))
    assert [sum(low <= number < high for number in seen) for low, high in ((0, 61), (61, 101), (101, 200))] == [200, 100, 100]
    seen = ids(make(remotes, tmp_path, weights=[{'repeat': 2}, {'choose': 10}, {}]))
    counts = Counter(seen)
    assert all(counts[number] == 2 for number in range(61))
    assert sum(61 <= number < 101 for number in seen) == 10
    assert all(counts[number] == 1 for number in range(101, 200))


def test_the_mix_may_change_between_epochs_and_is_in_the_state(remotes: dict[str, str], tmp_path: Path) -> None:
    dataset = make(remotes, tmp_path)
    loader = StreamingDataLoader(dataset, batch_size=BATCH)
    assert {number for batch in loader for number in batch['id'].tolist()} == set(range(200))
    dataset.change_order(weights=[{'choose': 20}, {'choose': 0}, {'choose': 0}], shuffle_seed=5)
    batches = iter(loader)
    first = [number for _ in range(2) for number in next(batches)['id'].tolist()]
    state = loader.state_dict()
    rest = [number for batch in batches for number in batch['id'].tolist()]
    assert len(first + rest) == 20
    assert set(first + rest) <= set(range(61))
    resumed = StreamingDataLoader(make(remotes, tmp_path), batch_size=BATCH, num_workers=2)
    resumed.load_state_dict(state)
    assert [number for batch in resumed for number in batch['id'].tolist()] == rest
    with pytest.raises(ArgumentError, match='weights'):
        dataset.change_order(weights=[{'repeat': 1}])


@pytest.mark.parametrize('kind', ['ids', 'mask', 'file'])
def test_a_subset_is_dealt_as_a_whole(remotes: dict[str, str], tmp_path: Path, kind: str) -> None:
    chosen = np.random.default_rng(0).permutation(200)[:50]
    mask = np.zeros(200, bool)
    mask[chosen] = True
    np.save(tmp_path / 'chosen.npy', mask)
    subset = {'ids': chosen, 'mask': mask, 'file': str(tmp_path / 'chosen.npy')}[kind]
    parts = [ids(make(remotes, tmp_path, rank, 2, subset=subset), workers=1) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 25
    assert sorted(parts[0] + parts[1]) == sorted(chosen.tolist())
    dataset = make(remotes, tmp_path, subset=subset)
    assert dataset.epoch_size == 50
    assert dataset.num_samples == 200


def test_mask_marks_padding(remotes: dict[str, str], tmp_path: Path) -> None:
    real: list[int] = []
    lengths = []
    for rank in range(3):
        batches = list(StreamingDataLoader(make(remotes, tmp_path, rank, 3, tail='mask', shuffle=False), batch_size=BATCH))
        lengths.append([len(batch['id']) for batch in batches])
        for batch in batches:
            assert batch['is_padding'].dtype == torch.bool
            real += batch['id'][~batch['is_padding']].tolist()
    assert lengths[0] == lengths[1] == lengths[2]
    assert sorted(real) == list(range(200))


def test_drop_gives_whole_batches_only(remotes: dict[str, str], tmp_path: Path) -> None:
    parts = [ids(make(remotes, tmp_path, rank, 3, tail='drop')) for rank in range(3)]
    assert [len(part) for part in parts] == [200 // 12 * 4] * 3
    assert len({number for part in parts for number in part}) == sum(map(len, parts))


def test_replicas_get_the_same_samples(remotes: dict[str, str], tmp_path: Path) -> None:
    datasets = [make(remotes, tmp_path, rank, 4, replication=2) for rank in range(4)]
    parts = [ids(dataset) for dataset in datasets]
    assert parts[0] == parts[1]
    assert parts[2] == parts[3]
    assert sorted(parts[0] + parts[2]) == list(range(200))
    loader = StreamingDataLoader(make(remotes, tmp_path, 0, 4, replication=2), batch_size=BATCH)
    next(iter(loader))
    assert loader.state_dict()['sample_in_epoch'] == 2 * BATCH, 'samples that differ are counted'


def test_a_folder_that_is_the_source_is_not_touched(remotes: dict[str, str], tmp_path: Path) -> None:
    before = sorted(os.listdir(remotes['a']))
    dataset = StreamingDataset(local=remotes['a'], batch_size=BATCH, shuffle=True, shuffle_algo='py1br')
    assert sorted(ids(dataset, workers=2)) == list(range(61))
    assert sorted(os.listdir(remotes['a'])) == before
    assert list((tmp_path / 'xdg' / 'streaming').iterdir()), 'its array lies in the cache of the user'


def test_what_was_derived_is_said_once_a_job(remotes: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level('INFO', logger='streaming.dataset')
    datasets = [make(remotes, tmp_path, rank, 2) for rank in range(2)]
    for dataset in datasets:
        ids(dataset)
    (line,) = (record.message for record in caplog.records)
    assert 'num_canonical_nodes=1;' in line and 'a global batch is 8 samples, an epoch 25 batches' in line
    datasets[0].change_order(weights=[{'repeat': 3}, {}, {}])
    assert 'an epoch 41 batches' in caplog.records[-1].message


def test_an_order_that_cannot_work_is_refused_at_once(remotes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='proportion'):
        make(remotes, tmp_path, weights=[{'proportion': 1}, {}, {}])
    with pytest.raises(ArgumentError, match='which is no sample in a global batch of 4'):
        make(remotes, tmp_path, weights=[{'choose': 1}, {}, {}], batching_method='stratified')
    dataset = make(remotes, tmp_path)
    state = dataset.state_dict(0, True)
    with pytest.raises(ArgumentError, match='2 weights for 3 streams'):
        dataset.load_state_dict({**state, 'weights': [{}, {}]})


@pytest.mark.parametrize('tail', ['pad', 'mask', 'drop'])
@pytest.mark.parametrize('method', ['random', 'per_stream', 'device_per_stream'])
def test_fewer_samples_than_ranks(tmp_path: Path, tail: str, method: str) -> None:
    """Three samples in two shards, for eight ranks on four nodes: all have a batch, or none has."""
    with MDSWriter(out=str(tmp_path / 'remote'), columns={'id': 'int'}, size_limit=30) as writer:
        for number in range(3):
            writer.write({'id': number})
    parts = []
    for rank in range(8):
        world = World(rank=rank, num_ranks=8, ranks_per_node=2)
        dataset = StreamingDataset(
            remote=str(tmp_path / 'remote'),
            local=str(tmp_path / 'local'),
            batch_size=1,
            shuffle=True,
            tail=tail,
            batching_method=method,
            world=world,
        )
        parts.append(list(StreamingDataLoader(dataset, batch_size=1)))
    assert len({len(part) for part in parts}) == 1
    seen = [int(number) for part in parts for batch in part for number in batch['id']]
    if method == 'random' and tail != 'drop':
        assert set(seen) == {0, 1, 2}
    if tail == 'mask':
        real = [int(batch['id'][0]) for part in parts for batch in part if not batch['is_padding'][0]]
        assert sorted(real) == ([0, 1, 2] if method == 'random' else [])
    if tail == 'drop':
        assert not seen
