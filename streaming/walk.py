"""How far one process has come in an iteration, for loaders that ask the dataset in each of their workers (torchdata's
StatefulDataLoader does). Such a state is of one worker; what `StreamingDataLoader` saves is of the whole job.
"""

import sys
from collections.abc import Generator, Iterator, Mapping
from itertools import chain, compress, repeat
from operator import length_hint
from typing import Any

from streaming.errors import ArgumentError
from streaming.progress import Begun
from streaming.world import World

__all__ = ['Steps', 'Walk', 'is_walk', 'parse_walk']

_PLACE = ('rank', 'num_ranks', 'worker', 'num_workers')


# More samples than anybody takes.
_ENDLESS = sys.maxsize


class Walk:
    """An iteration of one process.

    Args:
        begun: The iteration.
        taken: Samples of its own that the process had been given before, in an earlier run. Default: 0.
    """

    def __init__(self, begun: Begun, taken: int = 0) -> None:
        self.begun = begun
        self._taken_before = taken
        self._left = repeat(True, _ENDLESS)

    @property
    def taken(self) -> int:
        """Samples of its own that the process has been given, those of an earlier run too."""
        return self._taken_before + _ENDLESS - length_hint(self._left)

    def steps(self, parts: Generator[Iterator[Any], None, None]) -> 'Steps':
        """The samples of the parts, each counted before it is given."""
        return Steps(parts, self._left)

    def state(self, of_iteration: Mapping[str, Any], world: World) -> dict[str, Any]:
        """The state of this process, given that of the iteration's beginning."""
        return {**of_iteration, 'walk': {name: getattr(world, name) for name in _PLACE} | {'samples': self.taken}}


class Steps(compress):  # type: ignore[type-arg]
    """The samples of some parts, one after the other. No line of Python runs for a sample, but for what makes it.

    Args:
        parts: The samples, part by part.
        counted: From which one is taken for each sample before it is given.
    """

    _parts: Generator[Iterator[Any], None, None]

    def __new__(cls, parts: Generator[Iterator[Any], None, None], counted: Iterator[bool]) -> 'Steps':
        steps = super().__new__(cls, chain.from_iterable(parts), counted)
        steps._parts = parts
        return steps

    def close(self) -> None:
        """End the iteration, but for what is left of the part that was begun."""
        self._parts.close()


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
