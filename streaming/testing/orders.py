"""Whole epochs as arrays, for comparing orders; a plan itself never makes any."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from streaming.order.partition import Int64Array
from streaming.order.plan import OrderConfig, Plan, StreamSamples
from streaming.world import World

__all__ = ['epoch_array', 'equal_epochs']


def epoch_array(
    config: OrderConfig, streams: Sequence[StreamSamples], world: World, *, epoch: int, sample_in_epoch: int = 0
) -> Int64Array:
    """The rest of an epoch, put together from each rank's plan and laid out as mosaicml-streaming does.

    Args:
        config: The settings.
        streams: The samples of each stream's shards, and the weights.
        world: Any rank of the world, with its number of workers.
        epoch: The epoch, 0-based.
        sample_in_epoch: Samples that were delivered before. Default: 0.

    Returns:
        Sample ids (nodes, ranks, workers, batches a worker, batch size), -1 where there is none.
    """
    plans = [
        Plan(config, streams, replace(world, rank=rank), epoch=epoch, sample_in_epoch=sample_in_epoch)
        for rank in range(world.num_ranks)
    ]
    assert config.batch_size is not None
    batches = -(-plans[0].num_batches // world.num_workers)
    result = np.full((world.num_ranks, world.num_workers, batches, config.batch_size), -1)
    for rank, plan in enumerate(plans):
        for worker in range(world.num_workers):
            for index in range(plan.batches_of(worker)):
                ids = plan.batch(worker, index)
                result[rank, worker, index, : len(ids)] = ids
    return result.reshape(world.num_nodes, world.ranks_per_node, *result.shape[1:])


def equal_epochs(ours: Int64Array, theirs: Int64Array, batching_method: str = 'random') -> bool:
    """Whether `epoch_array` is what mosaicml-streaming made of the same epoch.

    Its ``device_per_stream`` batching is the one method that gives some ranks a last batch and others none. Ours gives those
    padding, and nothing where all have none.

    Args:
        ours: What `epoch_array` gave.
        theirs: What ``generate_work`` gave.
        batching_method: How batches were put together. Default: random.
    """
    if batching_method == 'device_per_stream':
        if not (theirs[:, :, :, ours.shape[3] :] == -1).all():
            return False
        theirs = theirs[:, :, :, : ours.shape[3]]
        uneven = (theirs == -1).all(-1) & ~(theirs == -1).all((0, 1, 4))[None, None]
        ours = np.where(uneven[..., None], -1, ours)
    return np.array_equal(ours, theirs)
