"""What a result depends on beside the code: the machine and the versions."""

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.process import ROOT

__all__ = ['describe_machine']

_PACKAGES = ('torch', 'numpy', 'msgspec', 'zstandard', 'xxhash')


def describe_machine() -> dict[str, Any]:
    """The processor, cores that this process may use, memory, system, versions, commit and time."""
    return {
        'cpu': _cpu(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'memory_gib': _memory_gib(),
        'load': round(os.getloadavg()[0], 2),
        'system': f'{platform.system()} {platform.release()} {platform.machine()}',
        'python': platform.python_version(),
        'versions': {name: found for name in _PACKAGES if (found := _version(name))},
        'commit': _commit(),
        'command': ' '.join(sys.argv),
        'time': datetime.now(timezone.utc).isoformat(timespec='seconds'),
    }


def _cpu() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), platform.processor())


def _memory_gib() -> int:
    try:
        return round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30))
    except (OSError, ValueError):
        return 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    done = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
