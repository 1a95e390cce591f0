"""Every target of the fuzzer for a moment. For minutes, with atheris: ``python tests/fuzz/harness.py TARGET --seconds 300``."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent


def _load() -> Any:
    spec = importlib.util.spec_from_file_location('fuzz_targets', HERE / 'targets.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


targets = _load()


@st.composite
def mutations(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """A valid input with some bytes changed, cut or put in."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        where = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(['change', 'cut', 'insert', 'number'])):
            case 'change' if data:
                data[where] = draw(st.integers(0, 255))
            case 'cut':
                del data[where : where + draw(st.integers(1, 40))]
            case 'insert':
                data[where:where] = draw(st.binary(max_size=8))
            case _:
                data[where : where + 4] = draw(st.integers(0, 2**32 - 1)).to_bytes(4, 'little')
    return bytes(data)


@pytest.mark.parametrize('target', targets.TARGETS)
def test_valid_inputs_and_their_mutations(target: str) -> None:
    valid = list(targets.seeds(target))
    assert valid
    for data in valid:
        targets.TARGETS[target](data)  # without an error: they are what the fuzzer begins with

    @settings(max_examples=150, deadline=None)
    @given(mutations(valid))
    def check(data: bytes) -> None:
        targets.try_one(target, data)

    check()


@pytest.mark.skipif(importlib.util.find_spec('atheris') is None, reason='atheris has no wheel for this Python or machine')
@pytest.mark.parametrize('target', ['index', 'mds', 'dataset'])
def test_atheris_for_two_seconds(target: str, tmp_path: Path) -> None:
    temporary, findings = tmp_path / 'temporary', tmp_path / 'findings'
    temporary.mkdir()
    findings.mkdir()
    command = [sys.executable, str(HERE / 'harness.py'), target, '--seconds', '2', '--findings', str(findings)]
    environment = {**os.environ, 'PYTHONPATH': str(HERE.parents[1]), 'TMPDIR': str(temporary)}
    result = subprocess.run(command, capture_output=True, text=True, errors='replace', timeout=100, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]
    assert not list(findings.iterdir())
    assert not list(temporary.iterdir()), 'nothing is left'
    assert 'Done' in result.stderr
