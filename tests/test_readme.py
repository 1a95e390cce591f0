"""The README's example is a program: it runs, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r'^```python\n(.*?)^```', (ROOT / 'README.md').read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_has_an_example() -> None:
    assert BLOCKS


@pytest.mark.parametrize('block', BLOCKS, ids=range(len(BLOCKS)))
def test_the_example_runs(block: str, tmp_path: Path) -> None:
    script = tmp_path / 'example.py'
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
