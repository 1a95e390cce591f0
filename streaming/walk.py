"""How far one process has come in an iteration, for loaders that ask the dataset in each of their workers (torchdata's
StatefulDataLoader does). Such a state is of one worker; what `StreamingDataLoader` saves is of the whole job.
"""

from collections.abc import Mapping
from typing import Any

from streaming.errors import ArgumentError
from streaming.progress import Begun
from streaming.world import World

__all__ = ['Walk', 'is_walk', 'parse_walk']

_PLACE = ('rank', 'num_ranks', 'worker', 'num_workers')


class Walk:
    """An iteration of one process.

    Args:
        begun: The iteration.
        taken: Samples of its own that the process had been given before, in an earlier run. Default: 0.
    """

    def __init__(self, begun: Begun, taken: int = 0) -> None:
        self.begun = begun
        self.taken = taken

    def state(self, of_iteration: Mapping[str, Any], world: World) -> dict[str, Any]:
        """The state of this process, given that of the iteration's beginning."""
        return {**of_iteration, 'walk': {name: getattr(world, name) for name in _PLACE} | {'samples': self.taken}}


def is_walk(state: Mapping[str, Any]) -> bool:
    """Whether a state is of one process."""
    return isinstance(state, Mapping) and 'walk' in state


def parse_walk(state: Mapping[str, Any], world: World) -> int:
    """Samples that this process was given when the state was saved.

    Raises:
        ArgumentError: it is the state of another process, or of a job of another size.
    """
    walk = state['walk']
    here = {name: getattr(world, name) for name in _PLACE}
    if not isinstance(walk, Mapping) or {name: walk.get(name) for name in _PLACE} != here:
        raise ArgumentError(
            f'this is the state of one process ({walk!r}), and this is another one ({here}): use as many ranks and DataLoader '
            'workers as when it was saved, or StreamingDataLoader, whose state any number of them resumes'
        )
    samples = walk.get('samples')
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 0:
        raise ArgumentError(f'the samples of a state must be a whole number of at least 0, got {samples!r}')
    return samples
