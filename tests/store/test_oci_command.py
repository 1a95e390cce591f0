"""The stand-in as a command: `python -m streaming.testing.oci --port N --bucket data`."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from streaming.store import open_store


def test_the_command(free_port: int, tmp_path: Path) -> None:
    command = [
        sys.executable,
        '-m',
        'streaming.testing.oci',
        '--port',
        str(free_port),
        '--bucket',
        'data',
        '--folder',
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f'OCI stand-in at http://127.0.0.1:{free_port}, namespace standin, buckets: data\n'
        url = process.stdout.readline().strip().replace('BUCKET', 'data').replace('PREFIX', 'some/prefix')
        store = open_store(url)
        store.put('key', b'value')
        assert store.get('key') == b'value'
        store.close()
        folder = Path(re.search('config_file=(.*)/config', url)[1])  # type: ignore[index]
        assert folder.is_dir()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ''
    assert not folder.exists()  # the key that it made
    # The objects stay where they were asked to lie.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        store = open_store(process.stdout.readline().strip().replace('BUCKET', 'data').replace('PREFIX', 'some/prefix'))
        assert store.get('key') == b'value'
        store.close()
        process.terminate()
        assert process.wait(60) == 0


def test_what_is_wrong_with_a_port(free_port: int) -> None:
    with socket.create_server(('127.0.0.1', free_port)):
        done = subprocess.run(
            [sys.executable, '-m', 'streaming.testing.oci', '--port', str(free_port)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 1
    assert str(free_port) in done.stderr
    assert 'Traceback' not in done.stderr
