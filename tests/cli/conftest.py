"""The console script in a process of its own, and a store for it to talk to."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streaming.testing.oci import OCIServer

Run = Callable[..., 'subprocess.CompletedProcess[str]']

_ROOT = Path(__file__).parent.parent.parent
_SCRIPT = Path(sys.executable).with_name('streaming')
# A checkout that is only on the path has no script.
_COMMAND = [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, '-m', 'streaming.cli']


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the script sees: this checkout, a home of its own, and nobody's credentials."""
    kept = {name: os.environ[name] for name in ('PATH', 'LANG', 'COVERAGE_PROCESS_START') if name in os.environ}
    home = tmp_path / 'home'
    home.mkdir(exist_ok=True)
    return {**kept, 'PYTHONPATH': str(_ROOT), 'HOME': str(home), 'COLUMNS': '200'}


@pytest.fixture
def command() -> list[str]:
    """How the script is run."""
    return _COMMAND


@pytest.fixture
def run(command: list[str], environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the script in ``tmp_path`` and hold its exit status against ``status``."""

    def run(*arguments: str | Path, status: int = 0, **variables: str) -> 'subprocess.CompletedProcess[str]':
        done = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=tmp_path,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert variables or 'Traceback' not in done.stderr
        return done

    return run


@pytest.fixture(scope='session')
def oci() -> Iterator[OCIServer]:
    """The stand-in for OCI Object Storage, with one bucket."""
    with OCIServer(buckets=['data']) as server:
        yield server
