"""States: ours, mosaicml-streaming's, and what is no state."""

import json
from typing import Any

import pytest

from streaming.errors import ArgumentError
from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.order.state import STATE_VERSION, parse_state
from streaming.world import World

STREAMS = [StreamSamples.of([10, 20, 30])]
OLD_STATE = {
    'epoch': 3,
    'sample_in_epoch': 48,
    'num_canonical_nodes': 4,
    'shuffle_seed': 17,
    'initial_physical_nodes': 2,
}


def state_of(config: OrderConfig, epoch: int, sample: int) -> dict[str, Any]:
    return Plan(config, STREAMS, World(num_ranks=4, ranks_per_node=2), epoch=epoch).state(epoch, sample)


def test_a_state_is_json_and_has_the_old_keys() -> None:
    state = state_of(OrderConfig(batch_size=2, shuffle=True), 1, 16)
    assert json.loads(json.dumps(state)) == state
    assert OLD_STATE.keys() < state.keys()


def test_a_state_comes_back() -> None:
    config = OrderConfig(batch_size=2, shuffle=True, shuffle_seed=5)
    epoch, sample, fixed = parse_state(state_of(config, 1, 16), config)
    assert (epoch, sample) == (1, 16)
    assert fixed['num_canonical_nodes'] == 2 and fixed['shuffle_seed'] == 5 and fixed['shuffle_algo'] == 'windowed'
    assert fixed['origin'] == {'epoch': 1, 'num_nodes': 2, 'ranks_per_node': 2, 'batch_size': 2}


def test_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    state = state_of(OrderConfig(batch_size=2), 1, 64)
    assert (state['epoch'], state['sample_in_epoch']) == (2, 0)


def test_an_old_state_loads() -> None:
    with pytest.warns(UserWarning, match='py1e'):
        epoch, sample, fixed = parse_state(OLD_STATE, OrderConfig(shuffle=True))
    assert (epoch, sample) == (3, 48)
    assert fixed == {'num_canonical_nodes': 4, 'shuffle_seed': 17, 'initial_physical_nodes': 2, 'shuffle_algo': 'py1e'}
    assert 'shuffle_algo' not in parse_state(OLD_STATE, OrderConfig(shuffle=True, shuffle_algo='py1s'))[2]
    assert 'shuffle_algo' not in parse_state(OLD_STATE, OrderConfig())[2]


def test_the_state_counts_where_the_program_says_otherwise() -> None:
    with pytest.warns(UserWarning, match=r'num_canonical_nodes=8 \(state: 4\)'):
        fixed = parse_state(OLD_STATE, OrderConfig(num_canonical_nodes=8))[2]
    assert fixed['num_canonical_nodes'] == 4


@pytest.mark.parametrize(
    'broken',
    [
        {},
        {'epoch': 1},
        {**OLD_STATE, 'epoch': -1},
        {**OLD_STATE, 'sample_in_epoch': 1.5},
        {**OLD_STATE, 'num_canonical_nodes': 0},
        {**OLD_STATE, 'num_canonical_nodes': 'four'},
        {**OLD_STATE, 'version': STATE_VERSION + 1},
        {**OLD_STATE, 'shuffle_algo': 'py9'},
        {**OLD_STATE, 'origin': {'epoch': 1}},
    ],
)
def test_what_is_no_state_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        parse_state(broken, OrderConfig())
