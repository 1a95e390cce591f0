"""Who is asking: from a launcher's environment, from torch.distributed, from a mesh, or as it is told."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming import MDSWriter, World
from streaming.errors import WorldError


@pytest.mark.parametrize(
    ('environ', 'expected'),
    [
        ({}, World()),
        ({'RANK': '5', 'WORLD_SIZE': '8', 'LOCAL_WORLD_SIZE': '4'}, World(rank=5, num_ranks=8, ranks_per_node=4)),
        ({'RANK': '1', 'WORLD_SIZE': '2'}, World(rank=1, num_ranks=2, ranks_per_node=2)),
    ],
)
def test_the_launcher_says(environ: dict[str, str], expected: World) -> None:
    assert World.detect(environ) == expected


@pytest.mark.parametrize(
    ('environ', 'message'),
    [
        ({'RANK': '1'}, 'sets RANK but not WORLD_SIZE'),
        ({'WORLD_SIZE': '2'}, 'sets WORLD_SIZE but not RANK'),
        ({'RANK': 'one', 'WORLD_SIZE': '2'}, "RANK must be a whole number, got 'one'"),
        ({'RANK': '2', 'WORLD_SIZE': '2'}, 'rank must be in 0..1, got 2'),
        ({'RANK': '0', 'WORLD_SIZE': '6', 'LOCAL_WORLD_SIZE': '4'}, '6 ranks cannot be 4 on each node'),
    ],
)
def test_contradictions_are_errors(environ: dict[str, str], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        World.detect(environ)


class Group:
    """The parts of torch.distributed that are asked."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self.get_rank, self.get_world_size = (lambda: rank), (lambda: num_ranks)
        self.is_available = self.is_initialized = lambda: True


@pytest.mark.parametrize(
    ('environ', 'ranks_per_node', 'warned'),
    [
        ({}, 4, False),
        # Lightning's own launcher
        ({'WORLD_SIZE': '4', 'LOCAL_RANK': '3', 'NODE_RANK': '0'}, 4, False),
        ({'WORLD_SIZE': '4', 'LOCAL_RANK': '1', 'NODE_RANK': '1'}, 4, True),
        ({'WORLD_SIZE': '4', 'RANK': '', 'LOCAL_WORLD_SIZE': '2', 'NODE_RANK': '1'}, 2, False),
        ({'RANK': '3', 'WORLD_SIZE': '4', 'LOCAL_WORLD_SIZE': '2'}, 2, False),
    ],
)
def test_a_process_group_knows_what_the_launcher_does_not_say(
    environ: dict[str, str], ranks_per_node: int, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'LOCAL_RANK', 'NODE_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, 'torch.distributed', Group(3, 4))
    assert World.detect() == World(rank=3, num_ranks=4, ranks_per_node=ranks_per_node)
    assert ('LOCAL_WORLD_SIZE' in caplog.text) == warned
    monkeypatch.setenv('RANK', '2')
    monkeypatch.setenv('WORLD_SIZE', '4')
    with pytest.raises(WorldError, match='rank 3 of 4, the environment says rank 2 of 4'):
        World.detect()


@dataclass
class Mesh:
    """The parts of a DeviceMesh that matter, for layouts of more ranks than a test can start."""

    mesh: Any
    mesh_dim_names: tuple[str, ...] | None
    rank: int = 0

    def get_coordinate(self) -> Sequence[int] | None:
        found = np.argwhere(self.mesh == self.rank)
        return found[0].tolist() if len(found) else None


def worlds_of(shape: dict[str, int], dims: str | Sequence[str], ranks_per_node: int) -> list[World]:
    count = int(np.prod(list(shape.values())))
    ranks = np.arange(count).reshape(*shape.values())
    return [World.from_mesh(Mesh(ranks, tuple(shape), rank), dims, ranks_per_node=ranks_per_node) for rank in range(count)]


@pytest.mark.parametrize(
    ('shape', 'dims', 'ranks_per_node', 'num_nodes', 'first'),
    [
        # Tensor parallel within a node: each node has four of the eight coordinates.
        ({'dp': 8, 'tp': 2}, 'dp', 8, 2, [0, 0, 1, 1, 2, 2]),
        # Tensor parallel over whole nodes: each has one.
        ({'dp': 4, 'tp': 8}, 'dp', 8, 4, [0] * 8 + [1]),
        # Pipeline over nodes: both nodes read the same.
        ({'pp': 2, 'dp': 8}, 'dp', 8, 1, [0, 1, 2]),
        # Replicas that lie a node apart, over which data is split too.
        ({'dp_replicate': 2, 'tp': 2, 'dp_shard': 4}, ('dp_replicate', 'dp_shard'), 8, 2, [0, 1, 2, 3, 0, 1]),
        # No number of consecutive coordinates is on one node in all columns.
        ({'dp': 4, 'tp': 3}, 'dp', 6, 2, [0, 0, 0, 1, 1, 1]),
        ({'tp': 2, 'dp': 3}, 'dp', 2, 3, [0, 1, 2, 0]),
    ],
)
def test_a_mesh_of_any_layout(
    shape: dict[str, int], dims: str | Sequence[str], ranks_per_node: int, num_nodes: int, first: list[int]
) -> None:
    worlds = worlds_of(shape, dims, ranks_per_node)
    assert {world.num_nodes for world in worlds} == {num_nodes}
    assert [world.rank for world in worlds[: len(first)]] == first
    size = worlds[0].num_ranks
    replicas = np.bincount([world.rank for world in worlds], minlength=size)
    assert replicas.tolist() == [len(worlds) // size] * size


def test_a_mesh_without_the_dimension_or_this_process() -> None:
    ranks = np.arange(4).reshape(2, 2)
    with pytest.raises(WorldError, match='the mesh has the dimensions dp, tp, not ep'):
        World.from_mesh(Mesh(ranks, ('dp', 'tp')), ('dp', 'ep'))
    with pytest.raises(WorldError, match='without names'):
        World.from_mesh(Mesh(ranks, None), 'dp')
    with pytest.raises(WorldError, match='not in the mesh'):
        World.from_mesh(Mesh(ranks, ('dp', 'tp'), rank=7), 'dp')


_RANK = """
import json, sys
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from streaming import StreamingDataLoader, StreamingDataset, World

remote, local = sys.argv[1:3]
dist.init_process_group('gloo')
mesh = init_device_mesh('cpu', (2, 2), mesh_dim_names=('tp', 'dp'))
world = World.from_mesh(mesh, 'dp')
dataset = StreamingDataset(remote=remote, local=local, batch_size=4, shuffle=True, world=world)
loader = StreamingDataLoader(dataset, batch_size=4, num_workers=1)
batches, states = [], []
for batch in loader:
    batches.append(batch['id'].tolist())
    states.append(loader.state_dict())
found = [None] * 4
dist.all_gather_object(found, (batches, states))
if dist.get_rank() == 0:
    print('found', json.dumps(found))
dist.destroy_process_group()
"""


def test_ranks_of_a_device_mesh_that_share_a_coordinate_get_the_same(tmp_path: Path) -> None:
    """Under torchrun, with ranks that are replicas of each other but not neighbours."""
    with MDSWriter(out=str(tmp_path / 'remote'), columns={'id': 'int'}, size_limit=200) as writer:
        for number in range(70):
            writer.write({'id': number})
    (tmp_path / 'rank.py').write_text(_RANK)
    command = [
        *(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=4'),
        *(str(tmp_path / 'rank.py'), str(tmp_path / 'remote'), str(tmp_path / 'local')),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    line = next(line for line in result.stdout.splitlines() if line.startswith('found '))
    ranks = json.loads(line.removeprefix('found '))
    assert ranks[0] == ranks[2]
    assert ranks[1] == ranks[3]
    seen = [sample for rank in ranks[:2] for batch in rank[0] for sample in batch]
    assert sorted(seen) == list(range(70))
    assert ranks[0][1][3]['sample_in_epoch'] == 4 * 4 * 2, 'samples that differ are counted'
    assert ranks[0][1] == ranks[1][1], 'all ranks save the same state'
