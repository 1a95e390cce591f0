"""Who is asking: which node, rank and DataLoader worker, out of how many.

The world is an argument. Where none is given it is read from torch.distributed if the program initialised it, else from the
launcher's RANK, WORLD_SIZE and LOCAL_WORLD_SIZE, else it is one rank. Where several ranks are to get the same samples (tensor,
pipeline, context parallelism) the data's world is smaller than the job: `World.from_mesh`, or a World of the data-parallel ranks.
Nothing here creates a process group or touches a device.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from streaming.errors import WorldError

__all__ = ['Mesh', 'World']

logger = logging.getLogger(__name__)


class Mesh(Protocol):
    """What is asked of a ``torch.distributed.device_mesh.DeviceMesh``."""

    mesh: Any
    mesh_dim_names: tuple[str, ...] | None

    def get_coordinate(self) -> Sequence[int] | None:
        """Where this process is in the mesh; None if it is not in it."""
        ...


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
        group = _from_torch() if environ is None else None
        environ = os.environ if environ is None else environ
        if group is None:
            rank, num_ranks, ranks_per_node = _from_environment(environ) or (0, 1, 1)
            return cls(rank=rank, num_ranks=num_ranks, ranks_per_node=ranks_per_node)
        rank, num_ranks = group
        # Lightning's own launcher sets WORLD_SIZE alone: the group knows the rest.
        said = {name: environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE') if environ.get(name)}
        variables = _from_environment({'RANK': str(rank), 'WORLD_SIZE': str(num_ranks), **said})
        if variables is not None and variables[:2] != group:
            raise WorldError(
                f'torch.distributed says rank {rank} of {num_ranks}, the environment says rank {variables[0]} of '
                f'{variables[1]} (RANK, WORLD_SIZE); mend the launcher or pass world=World(...)'
            )
        # Without a launcher's word on nodes, a group of several ranks is taken as one node, by all ranks alike.
        if 'LOCAL_WORLD_SIZE' not in said and environ.get('NODE_RANK', '0') != '0':
            logger.warning(
                'the launcher set NODE_RANK=%s but not LOCAL_WORLD_SIZE: all %d ranks are taken as one node, and each node will '
                'fetch more shards than it needs; set LOCAL_WORLD_SIZE or pass world=World(...)',
                environ['NODE_RANK'],
                num_ranks,
            )
        return cls(rank=rank, num_ranks=num_ranks, ranks_per_node=variables[2] if variables else num_ranks)

    @classmethod
    def from_mesh(cls, mesh: Mesh, dims: str | Sequence[str], *, ranks_per_node: int | None = None) -> 'World':
        """Find this process's place among the data-parallel ranks of a mesh.

        Ranks that differ in other dimensions only get the same samples. The world counts coordinates and not processes: batches,
        ``len`` and states are of samples that differ. Its nodes are groups of consecutive coordinates that lie on one machine
        together, so that a machine reads as few shards as can be.

        Args:
            mesh: The whole ``DeviceMesh`` of the job, not a part of it: all ranks must come to the same conclusion.
            dims: The dimensions over which data is split, such as ``'dp'`` or ``('dp_replicate', 'dp_shard')``. Coordinates count
                in the order of the mesh.
            ranks_per_node: Ranks of the job on each machine. Default: None, from LOCAL_WORLD_SIZE, else all are on one.

        Raises:
            WorldError: the mesh has no such dimension, or this process is not in it.
        """
        names, wanted = tuple(mesh.mesh_dim_names or ()), (dims,) if isinstance(dims, str) else tuple(dims)
        missing = [name for name in wanted if name not in names]
        if missing or not wanted:
            raise WorldError(
                f'the mesh has the dimensions {", ".join(names) or "without names"}, not {", ".join(missing) or "none"}'
            )
        coordinate = mesh.get_coordinate()
        if coordinate is None:
            raise WorldError('this process is not in the mesh; give the whole mesh of the job')
        ranks = np.array(mesh.mesh.tolist())
        if ranks_per_node is None:
            variables = _from_environment(os.environ)
            ranks_per_node = variables[2] if variables else int(ranks.max()) + 1
        axes = [axis for axis, name in enumerate(names) if name in wanted]
        shape = [ranks.shape[axis] for axis in axes]
        count = int(np.prod(shape))
        nodes = np.moveaxis(ranks, axes, range(len(axes))).reshape(count, -1) // ranks_per_node
        rank = int(np.ravel_multi_index([coordinate[axis] for axis in axes], shape))
        return cls(rank=rank, num_ranks=count, ranks_per_node=_together(nodes))


def _together(nodes: 'np.ndarray[Any, Any]') -> int:
    """The most consecutive rows, dividing their number, that are on one node each in all columns of nodes (ranks, replicas)."""
    count = len(nodes)
    for size in range(count, 1, -1):
        if count % size == 0:
            groups = nodes.reshape(count // size, size, -1)
            if (groups == groups[:, :1]).all():
                return size
    return 1


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
