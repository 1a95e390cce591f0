"""The other end of `harness.child`: a contender's process, started on its first call and kept."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ['BENCHMARKS', 'ROOT', 'Contender']

BENCHMARKS = Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent


class Contender:
    """A contender's Python.

    Args:
        python: The interpreter. Default: None, the one that runs this, with this checkout's package.
    """

    def __init__(self, python: Path | None = None) -> None:
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b''

    def call(self, function: str, arguments: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """What ``module:function`` returns there; a dict with ``error`` where it fails, ends its process or takes too long."""
        process = self._process
        if process is None:
            process = self._process = self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({'function': function, 'arguments': arguments}, default=str).encode() + b'\n')
            process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says so
        line = self._read_line(process, limit_s)
        if line is None:
            self.close()
            return {'error': f'no answer within {limit_s:.0f} s'}
        if not line:
            code = process.wait()
            self._process = None
            return {'error': f'its process ended with {code}'}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> 'subprocess.Popen[bytes]':
        # The peer called streaming must not find ours, and the other way round.
        # Our modules are compiled once, as the peers' were when they were installed.
        environment = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONDONTWRITEBYTECODE')}
        environment['PYTHONWARNINGS'] = 'ignore'
        if self._python is None:
            environment['PYTHONPATH'] = str(ROOT)
        self._rest = b''
        return subprocess.Popen(
            [str(self._python or sys.executable), '-m', 'harness.child'],
            cwd=BENCHMARKS,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def _read_line(self, process: 'subprocess.Popen[bytes]', limit_s: float) -> bytes | None:
        """A line; nothing where the process ended; None where the time ran out."""
        assert process.stdout is not None
        while b'\n' not in self._rest:
            if not select.select([process.stdout], [], [], limit_s)[0]:
                return None
            data = process.stdout.read(1 << 16)
            if not data:
                return b''
            self._rest += data
        line, _, self._rest = self._rest.partition(b'\n')
        return line

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
