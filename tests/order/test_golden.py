"""Every case of mosaicml-streaming's own output that is kept in tests/golden/orders, bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming.order.partition import get_partitions
from streaming.order.plan import OrderConfig, StreamSamples
from streaming.order.sampling import get_sampling
from streaming.order.shuffle import get_shuffle
from streaming.testing.orders import epoch_array, equal_epochs
from streaming.world import World

GOLDEN = Path(__file__).parents[1] / 'golden' / 'orders'
RECORD = json.loads((GOLDEN / 'cases.json').read_text())

pytestmark = pytest.mark.filterwarnings('ignore:shuffle_block_size', 'ignore:sample_in_epoch=48')


@pytest.fixture(scope='module')
def arrays() -> Any:
    with np.load(GOLDEN / 'arrays.npz') as file:
        return dict(file)


def arguments_of(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if name not in ('key', 'kind')}


def partition(case: dict[str, Any]) -> np.ndarray:
    return get_partitions(**arguments_of(case))


def shuffle(case: dict[str, Any]) -> np.ndarray:
    arguments = arguments_of(case)
    return get_shuffle(unit_sizes=np.array(arguments.pop('shard_sizes')), **arguments)


def sampling(case: dict[str, Any]) -> np.ndarray:
    arguments = arguments_of(case)
    return get_sampling(np.array(arguments.pop('samples_per_shard')), **arguments)


def epoch(case: dict[str, Any]) -> np.ndarray:
    weights = [{k: v for k, v in stream.items() if k != 'name'} for stream in case['mix']['streams']]
    streams = [
        StreamSamples.of(RECORD['shard_counts'][stream['name']], **weight)
        for stream, weight in zip(case['mix']['streams'], weights, strict=True)
    ]
    config = OrderConfig(
        batch_size=case['batch_size'],
        epoch_size=case['mix'].get('epoch_size'),
        **{'shuffle_algo': 'py1e', **case['options']},
    )
    shape = case['world']
    nodes, ranks, workers = shape['num_nodes'], shape['ranks_per_node'], shape['workers_per_rank']
    world = World(num_ranks=nodes * ranks, ranks_per_node=ranks, num_workers=workers)
    resolved = config.resolve(world)
    assert resolved.num_canonical_nodes == case['num_canonical_nodes']
    assert resolved.shuffle_block_size == case['shuffle_block_size']
    return epoch_array(config, streams, world, epoch=case['epoch'], sample_in_epoch=case['sample_in_epoch'])


@pytest.mark.parametrize('case', RECORD['cases'], ids=[case['key'] for case in RECORD['cases']])
def test_golden(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    made = {'partition': partition, 'shuffle': shuffle, 'sampling': sampling, 'epoch': epoch}[case['kind']](case)
    method = case.get('options', {}).get('batching_method', 'random')
    assert equal_epochs(made, arrays[case['key']], method)


def test_all_kept_cases_are_compared(arrays: dict[str, np.ndarray]) -> None:
    assert len(RECORD['cases']) == 288
    assert sorted(case['key'] for case in RECORD['cases']) == sorted(arrays)
