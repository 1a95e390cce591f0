"""streaming convert --engine, without a cluster: each makes one of this machine alone, which ends with the work."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streaming.writers.convert import convert
from streaming.writers.engines import get_engines
from tests.cluster.conftest import need, objects

# Starting a cluster takes its time where others want the cores, too.
pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize('name', get_engines())
def test_an_engine_of_its_own(name: str, lines: Path, bucket: str, tmp_path: Path) -> None:
    need(name)
    options: Any = {'part_bytes': 20000, 'hashes': ['xxh64']}
    wanted = convert(lines, tmp_path / 'wanted', workers=1, **options)
    environment = {**os.environ, 'SPARK_LOCAL_IP': '127.0.0.1', 'RAY_ENABLE_UV_RUN_RUNTIME_ENV': '0'}
    environment.pop('PYSPARK_PYTHON', None)
    arguments = ['convert', str(lines), bucket, '--engine', name, '--part-size', '20000', '--hashes', 'xxh64', '--json']
    done = subprocess.run(
        [sys.executable, '-m', 'streaming.cli', *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['samples'] == wanted.samples == 1500
    assert objects(bucket) == objects(str(tmp_path / 'wanted'))
