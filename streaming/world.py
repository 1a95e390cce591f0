"""Who is asking: which node, rank and DataLoader worker, out of how many.

The world is an argument. Where none is given it is read from torch.distributed if the program initialised it, else from the
launcher's RANK, WORLD_SIZE and LOCAL_WORLD_SIZE, else it is one rank. Nothing here creates a process group or touches a device.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from streaming.errors import WorldError

__all__ = ['World']


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One worker's place in the job. Counts are at least 1, places are 0-based.

    Args:
        rank: This rank among all of the job. Default: 0.
        num_ranks: Ranks in the job. Default: 1.
        ranks_per_node: Ranks on each node (all nodes have as many); divides ``num_ranks``. Ranks of a node are consecutive.
            Default: 1.
        worker: This DataLoader worker among those of its rank. Default: 0.
        num_workers: DataLoader workers a rank, 1 if the rank reads its data itself. Default: 1.

    Raises:
        WorldError: numbers that contradict each other.
    """

    rank: int = 0
    num_ranks: int = 1
    ranks_per_node: int = 1
    worker: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        for name in ('num_ranks', 'ranks_per_node', 'num_workers'):
            if getattr(self, name) < 1:
                raise WorldError(f'{name} must be at least 1, got {getattr(self, name)}')
        for name, limit in (('rank', self.num_ranks), ('worker', self.num_workers)):
            if not 0 <= getattr(self, name) < limit:
                raise WorldError(f'{name} must be in 0..{limit - 1}, got {getattr(self, name)}')
        if self.num_ranks % self.ranks_per_node:
            raise WorldError(
                f'{self.num_ranks} ranks cannot be {self.ranks_per_node} on each node; every node must have as many '
                '(check WORLD_SIZE and LOCAL_WORLD_SIZE, or pass world=World(...))'
            )

    @property
    def num_nodes(self) -> int:
        return self.num_ranks // self.ranks_per_node

    @property
    def node(self) -> int:
        return self.rank // self.ranks_per_node

    @property
    def rank_of_node(self) -> int:
        """This rank among those of its node."""
        return self.rank % self.ranks_per_node

    @property
    def is_local_leader(self) -> bool:
        """Whether this is the first worker of the first rank of its node."""
        return self.rank_of_node == 0 and self.worker == 0

    def with_worker(self, worker: int, num_workers: int) -> 'World':
        """The same rank, seen by its DataLoader worker ``worker`` of ``num_workers``."""
        return replace(self, worker=worker, num_workers=num_workers)

    @classmethod
    def detect(cls, environ: Mapping[str, str] | None = None) -> 'World':
        """Find this process's rank: torch.distributed if initialised, else the launcher's environment, else a single rank.

        Args:
            environ: Where to read RANK, WORLD_SIZE and LOCAL_WORLD_SIZE from. Default: ``os.environ``.

        Raises:
            WorldError: a variable is missing beside the others or is not a number, the numbers contradict each other, or the
                environment contradicts torch.distributed.
        """
        variables = _from_environment(os.environ if environ is None else environ)
        group = _from_torch() if environ is None else None
        if group is None:
            rank, num_ranks, ranks_per_node = variables or (0, 1, 1)
            return cls(rank=rank, num_ranks=num_ranks, ranks_per_node=ranks_per_node)
        rank, num_ranks = group
        if variables is not None and variables[:2] != group:
            raise WorldError(
                f'torch.distributed says rank {rank} of {num_ranks}, the environment says rank {variables[0]} of '
                f'{variables[1]} (RANK, WORLD_SIZE); mend the launcher or pass world=World(...)'
            )
        # Without a launcher's word on nodes, a group of several ranks is taken as one node.
        return cls(rank=rank, num_ranks=num_ranks, ranks_per_node=variables[2] if variables else num_ranks)


def _from_environment(environ: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Read (rank, number of ranks, ranks a node); None where the launcher set neither RANK nor WORLD_SIZE."""
    names = [name for name in ('RANK', 'WORLD_SIZE') if environ.get(name)]
    if not names:
        return None
    if len(names) == 1:
        missing = 'WORLD_SIZE' if names == ['RANK'] else 'RANK'
        raise WorldError(f'the environment sets {names[0]} but not {missing}; set both or neither, or pass world=World(...)')

    def number(name: str, default: int) -> int:
        text = environ.get(name) or str(default)
        try:
            return int(text)
        except ValueError:
            raise WorldError(f'environment variable {name} must be a whole number, got {text!r}') from None

    num_ranks = number('WORLD_SIZE', 1)
    return number('RANK', 0), num_ranks, number('LOCAL_WORLD_SIZE', num_ranks)


def _from_torch() -> tuple[int, int] | None:
    """Read (rank, number of ranks) of the default process group, if the program has made one. Never imports torch itself."""
    distributed = sys.modules.get('torch.distributed')
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank()), int(distributed.get_world_size())
