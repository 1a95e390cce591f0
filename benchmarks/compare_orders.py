"""Compare our orders with those of an installed mosaicml-streaming, bit for bit, on random arguments.

    make bench-setup
    .venv/bin/python benchmarks/compare_orders.py --minutes 5

Hypothesis draws the arguments: partitions, all shuffles, sampling, and whole epochs with every batching method, mix and
world, from the start and from the middle of an epoch. What mosaicml-streaming refuses is counted and not compared. Prints a
line of JSON a kind; the first difference ends it with the smallest arguments that show it.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.process import ROOT, Contender
from streaming.order.partition import get_partitions
from streaming.order.plan import OrderConfig, StreamSamples
from streaming.order.sampling import get_sampling
from streaming.order.shuffle import get_shuffle
from streaming.testing.orders import epoch_array, equal_epochs
from streaming.world import World

ALGOS = ('naive', 'py1s', 'py2s', 'py1br', 'py1e')

shards = st.lists(st.integers(1, 60), min_size=1, max_size=20)
seeds = st.integers(0, 2**31 - 100)
fitting = st.sampled_from([1, 2, 3, 4, 6, 8, 12])


@st.composite
def partitions(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a partition. Of nodes that do not divide each other some are refused."""
    samples = draw(st.integers(1, 700))
    return {
        'algo': draw(st.sampled_from(['orig', 'relaxed'])),
        'num_samples': samples,
        'num_canonical_nodes': draw(fitting | st.integers(1, 70)),
        'num_physical_nodes': draw(fitting),
        'ranks_per_node': draw(st.integers(1, 4)),
        'workers_per_rank': draw(st.integers(1, 4)),
        'batch_size': draw(st.integers(1, 12)),
        'drop_first': draw(st.just(0) | st.integers(0, samples)),
        'initial_physical_nodes': draw(st.none() | fitting),
    }


shuffles = st.fixed_dictionaries(
    {
        'algo': st.sampled_from(ALGOS),
        'shard_sizes': shards,
        'num_canonical_nodes': st.integers(1, 12),
        'seed': seeds,
        'epoch': st.integers(0, 20),
        'block_size': st.integers(2, 2000),
    }
)


@st.composite
def samplings(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of up- and down-sampling."""
    samples = draw(shards)
    return {
        'samples_per_shard': samples,
        'choose': draw(st.integers(0, 3 * sum(samples))),
        'granularity': draw(st.integers(1, 80)),
        'seed': draw(seeds),
        'epoch': draw(st.integers(0, 20)),
        'use_epoch': draw(st.booleans()),
    }


@st.composite
def epochs(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a whole epoch."""
    kind = draw(st.sampled_from(['none', 'absolute', 'relative']))
    weights: dict[str, st.SearchStrategy[dict[str, Any]]] = {
        'none': st.just({}),
        'absolute': st.one_of(
            st.just({}),
            st.fixed_dictionaries({'repeat': st.floats(0.05, 3)}),
            st.fixed_dictionaries({'choose': st.integers(1, 500)}),
        ),
        'relative': st.fixed_dictionaries({'proportion': st.floats(0.05, 5)}),
    }
    streams = draw(st.lists(st.fixed_dictionaries({'samples': shards, 'weight': weights[kind]}), min_size=1, max_size=4))
    nodes = draw(st.sampled_from([1, 1, 2, 3, 4]))
    chosen: dict[str, Any] = {
        'batch_size': draw(st.integers(1, 8)),
        'shuffle': draw(st.sampled_from([True, True, True, False])),
        'shuffle_algo': draw(st.sampled_from(ALGOS)),
        'shuffle_seed': draw(seeds),
        'shuffle_block_size': draw(st.none() | st.integers(10, 2000)),
        'num_canonical_nodes': draw(st.none() | st.sampled_from([nodes, 2 * nodes, 4 * nodes]) | st.integers(1, 12)),
        'batching_method': draw(st.sampled_from(['random', 'stratified', 'per_stream', 'device_per_stream'])),
        'sampling_method': draw(st.sampled_from(['balanced', 'fixed'])),
        'sampling_granularity': draw(st.sampled_from([1, 1, 7, 64])),
        'partition_algo': draw(st.sampled_from(['relaxed', 'orig'])),
    }
    if draw(st.sampled_from([False, False, True])):
        # Resumed from a state, which says all of these.
        chosen['initial_physical_nodes'] = draw(st.sampled_from([1, 2, 3, 4]))
        chosen['num_canonical_nodes'] = chosen['num_canonical_nodes'] or chosen['initial_physical_nodes']
    return {
        'streams': streams,
        'epoch_size': draw(st.none() | st.integers(1, 800)) if kind != 'absolute' else None,
        'world': {
            'num_nodes': nodes,
            'ranks_per_node': draw(st.integers(1, 4)),
            'workers_per_rank': draw(st.integers(1, 4)),
        },
        'settings': chosen,
        'epoch': draw(st.integers(0, 9)),
        # Of what is no multiple of the nodes, mosaicml-streaming repeats samples and we do not; 12 is one of all of them.
        'sample_in_epoch': 12 * draw(st.just(0) | st.integers(0, 25)),
    }


def our_epoch(request: dict[str, Any]) -> np.ndarray:
    """The same epoch by our plans."""
    shape = request['world']
    world = World(
        num_ranks=shape['num_nodes'] * shape['ranks_per_node'],
        ranks_per_node=shape['ranks_per_node'],
        num_workers=shape['workers_per_rank'],
    )
    return epoch_array(
        OrderConfig(epoch_size=request['epoch_size'], **request['settings']),
        [StreamSamples.of(stream['samples'], **stream['weight']) for stream in request['streams']],
        world,
        epoch=request['epoch'],
        sample_in_epoch=request['sample_in_epoch'],
    )


def same_epoch(request: dict[str, Any], ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether both are equal, but for what we do otherwise on purpose.

    Where an epoch goes on, relaxed, on nodes that do not fit, mosaicml-streaming gives ranks unequal shares of the last global
    batch. Ours are equal: of the same samples, and others repeated.
    """
    chosen, nodes = request['settings'], request['world']['num_nodes']
    method, began = chosen['batching_method'], chosen.get('initial_physical_nodes')
    rows = chosen['num_canonical_nodes'] or nodes
    if method != 'random' or began is None or rows % nodes == 0 or nodes % rows == 0:
        return equal_epochs(ours, theirs, method)
    ours, theirs = (epoch.transpose(3, 2, 0, 1, 4) for epoch in (ours, theirs))  # batches, workers, nodes, ranks, slots
    ours, theirs = (epoch.reshape(-1, *epoch.shape[2:]) for epoch in (ours, theirs))
    whole = int((theirs != -1).all((1, 2, 3)).sum())
    ends = [set(epoch[whole:].ravel().tolist()) - {-1} for epoch in (ours, theirs)]
    return np.array_equal(ours[:whole], theirs[:whole]) and ends[1] <= ends[0] <= ends[1] | set(ours[:whole].ravel().tolist())


def our_shuffle(request: dict[str, Any]) -> np.ndarray:
    rest = {name: value for name, value in request.items() if name != 'shard_sizes'}
    return get_shuffle(unit_sizes=np.array(request['shard_sizes']), **rest)


def our_sampling(request: dict[str, Any]) -> np.ndarray:
    rest = {name: value for name, value in request.items() if name != 'samples_per_shard'}
    return get_sampling(np.array(request['samples_per_shard']), **rest)


KINDS: dict[str, tuple[st.SearchStrategy[dict[str, Any]], Callable[[dict[str, Any]], np.ndarray], float]] = {
    'partition': (partitions(), lambda request: get_partitions(**request), 0.1),
    'shuffle': (shuffles, our_shuffle, 0.2),
    'sampling': (samplings(), our_sampling, 0.1),
    'epoch': (epochs(), our_epoch, 0.6),
}


def compare(peer: Contender, kind: str, seconds: float) -> dict[str, Any]:
    """Compare one kind on new arguments until the time is up."""
    arguments, make_ours, _ = KINDS[kind]
    counts: Counter[str] = Counter()
    begin = time.monotonic()

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(arguments)
    def check(request: dict[str, Any]) -> None:
        answer = peer.call('contenders.orders_mosaicml:make', {'kind': kind, 'request': request}, 60)
        if 'error' in answer:
            raise RuntimeError(f'mosaicml-streaming: {answer["error"]}')
        if answer['value'] is None:
            counts['refused by mosaicml-streaming'] += 1
            return
        theirs = np.array(answer['value'], np.int64).reshape(answer['shape'])
        ours = make_ours(request)
        assert same_epoch(request, ours, theirs) if kind == 'epoch' else np.array_equal(ours, theirs), request
        counts['equal'] += 1
        for name in ('shuffle_algo', 'batching_method'):
            counts[request.get('settings', {}).get(name, '')] += 1

    while time.monotonic() - begin < seconds:
        check()
    del counts['']
    return {'benchmark': 'compare_orders', 'kind': kind, 'seconds': round(time.monotonic() - begin), **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=2.0, help='how long, all kinds together (default: 2)')
    parser.add_argument(
        '--bench',
        type=Path,
        default=Path(os.environ.get('BENCH') or ROOT / '.bench').absolute(),
        help="the peers' virtual environments. Default: $BENCH, else .bench",
    )
    options = parser.parse_args()
    python = options.bench / 'mosaicml' / 'bin' / 'python'
    if not python.exists():
        sys.exit(f'there is no {python}; `make bench-setup` makes it')
    warnings.simplefilter('ignore')
    peer = Contender(python)
    try:
        for kind, (_, _, share) in KINDS.items():
            print(json.dumps(compare(peer, kind, 60 * share * options.minutes)), flush=True)
    finally:
        peer.close()


if __name__ == '__main__':
    main()
