"""Importing is cheap, and each part needs only what it uses. In processes of their own, where nothing is imported yet."""

import subprocess
import sys

import pytest

import streaming

HEAVY = ('torch', 'oci', 'boto3')


def run(code: str) -> None:
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    run(f'import streaming, sys; loaded = set({HEAVY}) & set(sys.modules); assert not loaded, loaded')


BLOCKED = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {HEAVY}:
            raise ModuleNotFoundError(f'{{name}} is not installed', name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_the_writer_and_the_local_reader_need_neither_torch_nor_a_cloud() -> None:
    run(
        BLOCKED
        + """
import tempfile
from streaming import LocalDataset, MDSWriter

with tempfile.TemporaryDirectory() as folder:
    with MDSWriter(out=folder, columns={'x': 'int'}, compression='zstd', hashes=['xxh64']) as writer:
        for x in range(10):
            writer.write({'x': x})
    assert [sample['x'] for sample in LocalDataset(folder)] == list(range(10))
"""
    )


@pytest.mark.parametrize('name', [name for name in streaming.__all__ if name != '__version__'])
def test_every_public_name_loads_and_is_listed(name: str) -> None:
    assert getattr(streaming, name).__name__ == name
    assert name in dir(streaming)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r'no attribute .Streem.'):
        streaming.Streem  # noqa: B018
