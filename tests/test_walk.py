"""Loaders that ask the dataset for its state in each process that iterates: torchdata's StatefulDataLoader."""

from itertools import islice
from typing import Any

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset, World
from streaming.errors import ArgumentError

SAMPLES, BATCH = 83, 4


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp('walk') / 'set'
    with MDSWriter(out=str(folder), columns={'id': 'int'}, size_limit=200) as writer:
        for number in range(SAMPLES):
            writer.write({'id': number})
    return str(folder)


def make(folder: str, rank: int = 0, ranks: int = 2) -> StreamingDataset:
    world = World(rank=rank, num_ranks=ranks, ranks_per_node=ranks)
    return StreamingDataset(local=folder, batch_size=BATCH, shuffle=True, world=world)


def load(folder: str, workers: int, **options: Any) -> Any:
    return StatefulDataLoader(make(folder), batch_size=BATCH, num_workers=workers, **options)


def ids(batches: Any) -> list[list[int]]:
    return [batch['id'].tolist() for batch in batches]


@pytest.mark.parametrize('workers', [0, 2])
def test_go_on_after_any_batch(folder: str, workers: int) -> None:
    reference = make(folder)
    epochs = [ids(StreamingDataLoader(reference, batch_size=BATCH, num_workers=workers)) for _ in range(2)]
    for stop in (0, 1, 4, len(epochs[0])):
        loader = load(folder, workers)
        batches = iter(loader)
        assert ids(islice(batches, stop)) == epochs[0][:stop]
        state = loader.state_dict()
        del batches
        again = load(folder, workers)
        again.load_state_dict(state)
        rest = ids(again)
        if stop == len(epochs[0]) and rest:
            assert rest == epochs[1]
        else:
            assert rest == epochs[0][stop:]
            assert ids(again) == epochs[1], 'the epoch after it is the next one'


def test_a_state_in_the_middle_of_a_batch(folder: str) -> None:
    whole = [sample['id'] for sample in make(folder)]
    for taken in (0, 1, BATCH, BATCH + 3, len(whole)):
        dataset = make(folder)
        samples = iter(dataset)
        assert [sample['id'] for sample in islice(samples, taken)] == whole[:taken]
        again = make(folder)
        again.load_state_dict(dataset.state_dict())
        assert again.state_dict() == dataset.state_dict()
        assert [sample['id'] for sample in again] == whole[taken:]
        assert again.next_epoch == 1


def test_states_that_are_not_of_this_process(folder: str) -> None:
    state = make(folder).state_dict()
    with pytest.raises(ArgumentError, match='StreamingDataLoader'):
        make(folder, rank=1).load_state_dict(state)
    with pytest.raises(ArgumentError, match='samples of a state'):
        make(folder).load_state_dict({**state, 'walk': {**state['walk'], 'samples': -1}})
    dataset = make(folder)
    dataset.load_state_dict(state)
    with pytest.raises(ArgumentError, match='num_workers'):
        next(iter(StreamingDataLoader(dataset, batch_size=BATCH, num_workers=2)))


def test_who_does_not_iterate_cannot_say(folder: str) -> None:
    dataset = make(folder)
    loader = StreamingDataLoader(dataset, batch_size=BATCH)
    batches = iter(loader)
    next(batches)
    with pytest.raises(ArgumentError, match='ask the loader'):
        dataset.state_dict()
    batches.close()  # type: ignore[attr-defined]
