"""The server in a process of its own, as a context manager."""

import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from streaming.errors import DeadlineError, StreamingError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ['OCIServer']

_START_S = 30.0
_STOP_S = 10.0


class OCIServer:
    """A stand-in for OCI Object Storage on a free port of the loopback. It ends with this process, however that ends.

    Args:
        buckets: Names of buckets to make. Default: none.
        folder: Where objects lie. Default: None, a temporary folder that goes with the server.
        port: Default: 0, a free one.
        latency_s: How long every request takes at least. Default: 0.
        bytes_per_s: Most bytes of a body a second, each connection. Default: None, no limit.

    Attributes:
        endpoint: Its URL.
        config_file: An OCI config file with an API key that it knows.
        profile: The profile in it.
        namespace: The Object Storage namespace that it serves.
        pid: Of its process.

    Raises:
        DeadlineError: it did not start.
        StreamingError: it ended at once; the message says what it printed.
    """

    profile = 'DEFAULT'

    def __init__(
        self,
        buckets: Sequence[str] = (),
        *,
        folder: Path | None = None,
        port: int = 0,
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
    ) -> None:
        options = [f'--port={port}', f'--latency-s={latency_s}', *(f'--bucket={bucket}' for bucket in buckets)]
        if folder is not None:
            options.append(f'--folder={folder}')
        if bytes_per_s is not None:
            options.append(f'--bytes-per-s={bytes_per_s}')
        # What it complains of goes to a file: it would stop for ever at a pipe that is full and that nobody reads.
        self._complaints = tempfile.TemporaryFile('w+')  # noqa: SIM115  # as long-lived as the process
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'streaming.testing.oci', '--json', *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        self.pid = self._process.pid
        try:
            where = self._wait_until_ready()
        except BaseException:  # Ctrl-C too: no process stays
            self.stop()
            raise
        self.endpoint: str = where['endpoint']
        self.config_file: str = where['config_file']
        self.namespace: str = where['namespace']
        self._token: str = where['control_token']
        self._temporary = Path(where['temporary'])

    def _wait_until_ready(self) -> dict[str, str]:
        assert self._process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        stdout: IO[str] = self._process.stdout
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=_START_S)
        except queue.Empty:
            raise DeadlineError(f'waited {_START_S:g} s for the OCI stand-in server to start') from None
        if not line:
            raise StreamingError(f'the OCI stand-in server did not start: {self.complaints()}')
        where: dict[str, str] = json.loads(line)
        return where

    def url(self, place: str) -> str:
        """The URL of ``'bucket/prefix'`` here, with all that a store needs to get in."""
        bucket, slash, prefix = place.partition('/')
        query = '&'.join(
            f'{name}={quote(value, safe="/:")}'
            for name, value in (('endpoint', self.endpoint), ('config_file', self.config_file), ('profile', self.profile))
        )
        return f'oci://{quote(bucket, safe="")}@{self.namespace}{slash}{quote(prefix)}?{query}'

    def create_bucket(self, name: str) -> None:
        """Make a bucket, if there is none of that name."""
        self._ask('POST', 'buckets', name)

    def add_fault(self, kind: str, **options: Any) -> None:
        """Let requests fail; see `streaming.testing.oci.faults.Fault` for the options."""
        self._ask('POST', 'faults', {'kind': kind, **options})

    def clear_faults(self) -> None:
        """Forget all faults, spent or not."""
        self._ask('DELETE', 'faults')

    def unspent_faults(self) -> int:
        """Faults that still wait for a request."""
        return int(self._ask('GET', 'faults'))

    def stats(self) -> dict[str, dict[str, int]]:
        """``requests``: how many came, by method and path; ``bytes``: how many went out in bodies of objects, by path."""
        answer: dict[str, dict[str, int]] = self._ask('GET', 'stats')
        return answer

    def reset_stats(self) -> None:
        """Count from zero."""
        self._ask('DELETE', 'stats')

    def complaints(self) -> str:
        """What it has printed of its own errors. Faults that it was told of and clients that leave are none."""
        self._complaints.seek(0)
        return self._complaints.read().strip()

    def stop(self) -> None:
        """End the server. Once more does nothing."""
        process = self._process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout, self._complaints):
            if stream is not None:
                stream.close()
        if hasattr(self, '_temporary'):  # what a server that was killed could not remove
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _ask(self, method: str, action: str, data: Any = None) -> Any:
        request = Request(f'{self.endpoint}/control/{action}', method=method, headers={'x-control-token': self._token})
        if data is not None:
            request.data = json.dumps(data).encode()
            request.add_header('content-type', 'application/json')
        with urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def __enter__(self) -> 'Self':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()
