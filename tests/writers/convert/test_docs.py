"""The examples of docs/convert.md are programs: they run one after the other, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streaming import LocalDataset

ROOT = Path(__file__).parent.parent.parent.parent
EXAMPLES = re.findall(r'^```(python|bash)\n(.*?)^```', (ROOT / 'docs' / 'convert.md').read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_examples_run(tmp_path: Path) -> None:
    assert len(EXAMPLES) >= 3
    (tmp_path / 'bin').mkdir()
    command = tmp_path / 'bin' / 'streaming'
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streaming.cli "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PATH': f'{command.parent}{os.pathsep}{os.environ["PATH"]}'}
    for number, (language, text) in enumerate(EXAMPLES):
        script = tmp_path / f'example{number}.{language}'
        script.write_text(text)
        done = subprocess.run(
            [sys.executable if language == 'python' else 'bash', *(['-e'] if language == 'bash' else []), str(script)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert len(LocalDataset(tmp_path / 'corpus')) == 5000
    assert sum(len(LocalDataset(tmp_path / 'pictures', split=split)) for split in ('train', 'val')) == 200
    assert LocalDataset(tmp_path / 'tokens')[0]['tokens'].shape == (1024,)
    assert len(LocalDataset(tmp_path / 'parts', split='train')) == 500 * 5
    assert not (tmp_path / 'other').exists()
