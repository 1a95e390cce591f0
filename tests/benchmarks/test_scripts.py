"""Every benchmark runs: ours alone, at the size that only shows that it does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / 'benchmarks'
# A benchmark is a script with a run of the harness.
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob('*.py') if 'with Bench(' in path.read_text())
# Where there are more workloads than show that it runs.
FEWER = {'read.py': 'mixed', 'batch.py': 'tokens', 'write.py': 'mixed', 'stream.py': 'plain', 'store.py': 'oci'}


def test_there_are_benchmarks() -> None:
    assert 'read.py' in SCRIPTS


@pytest.mark.parametrize('script', SCRIPTS)
def test_it_runs_for_ours_alone(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / script), '--size', 'tiny', '--only', 'ours', 'limit', '--folder', str(tmp_path)]
    if script in FEWER:
        command += ['--workloads', FEWER[script]]
    environment = {**os.environ, 'BENCH': str(tmp_path / 'none')}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]['name'] == 'machine'
    results = lines[1:]
    assert results
    for result in results:
        assert 'error' not in result, f'{result}\n{done.stderr}'
        assert result['contender'].split()[0] in ('ours', 'limit')
        assert result['value'] >= 0
        assert result.get('ours_over', 1) == 1 or result['contender'] != 'ours'
    assert not list(tmp_path.iterdir())


def test_inputs_stay_for_the_next_run(tmp_path: Path) -> None:
    inputs = tmp_path / 'inputs'
    command = [sys.executable, str(BENCHMARKS / 'convert.py'), '--size', 'tiny', '--only', 'ours', '--workloads', 'jpeg']
    command += ['--folder', str(tmp_path), '--inputs', 'inputs']
    times = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])['value'] > 0
        times.append({path: path.stat().st_mtime_ns for path in inputs.rglob('*.jpg')})
    assert times[0] == times[1] and len(times[0]) == 200
    assert list(tmp_path.iterdir()) == [inputs]
