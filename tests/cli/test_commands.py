"""cat, verify, cp, merge and cache from the shell: what they print, how they end, what an interrupted one leaves."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streaming import LocalDataset, MDSWriter, Stream
from streaming.testing.oci import OCIServer

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'

Run = Callable[..., 'subprocess.CompletedProcess[str]']


def test_cat(run: Run, tmp_path: Path) -> None:
    wanted = [sample['number'] for sample in LocalDataset(GOLDEN / 'csv')]
    lines = run('cat', GOLDEN / 'csv').stdout.splitlines()
    assert [json.loads(line)['number'] for line in lines] == wanted
    lines = run('cat', GOLDEN / 'mds', '-r', '-3:-1', '--columns', 'c_bytes, d_nd').stdout.splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [['c_bytes', 'd_nd']] * 2
    assert len(run('cat', GOLDEN / 'mds', '-r', '39').stdout.splitlines()) == 1
    assert '--range' in run('cat', GOLDEN / 'mds', '-r', '40', status=2).stderr
    with MDSWriter(out=tmp_path / 'pickled', columns={'x': 'pkl'}) as writer:
        writer.write({'x': {1}})
    assert 'can run any code' in run('cat', tmp_path / 'pickled', status=1).stderr
    assert run('cat', tmp_path / 'pickled', '--allow-unsafe-types').stdout == '{"x":[1]}\n'


def test_cat_into_a_pipe_that_closes(command: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    with MDSWriter(out=tmp_path / 'set', columns={'x': 'str'}) as writer:
        for _ in range(2000):
            writer.write({'x': 'x' * 1000})
    with subprocess.Popen(
        [*command, 'cat', str(tmp_path / 'set')], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b''
        assert process.wait(30) == 141


def test_verify(run: Run, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / 'mds-zstd', tmp_path / 'set')
    assert 'all good' in run('verify', 'set').stdout
    (tmp_path / 'set' / 'shard.00001.mds.zstd').unlink()
    (tmp_path / 'set' / 'shard.00003.mds.zstd').write_bytes(b'')
    lines = run('verify', 'set', status=1).stdout.splitlines()
    assert [line.split(':')[0] for line in lines[:2]] == ['missing', 'corrupt']
    assert all(name in line for name, line in zip(('shard.00001', 'shard.00003', '2 bad'), lines, strict=True))
    found = json.loads(run('verify', 'set', '--sizes-only', '--json', status=1).stdout)
    assert [problem['kind'] for problem in found['problems']] == ['missing', 'corrupt']


def test_merge_and_cp_through_a_bucket(run: Run, oci: OCIServer, tmp_path: Path) -> None:
    for part in ('b', 'a'):
        with MDSWriter(out=oci.url(f'data/merged here/{part}'), columns={'x': 'str'}) as writer:
            writer.write({'x': part})
    url = oci.url('data/merged here')
    assert json.loads(run('merge', url, '--json').stdout)['samples'] == 2
    assert json.loads(run('cp', url, tmp_path / 'ä b', '--json').stdout)['copied_objects'] == 2
    assert [sample['x'] for sample in LocalDataset(tmp_path / 'ä b')] == ['a', 'b']
    done = run('cp', tmp_path / 'ä b', oci.url('data/back'))
    assert '2 samples; 2 objects copied' in done.stdout and 'config_file' not in done.stdout
    assert '2 there already' in run('cp', tmp_path / 'ä b', oci.url('data/back')).stdout


@pytest.fixture(scope='module')
def slow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dataset of 20 shards that takes its time to come."""
    with OCIServer(buckets=['data'], bytes_per_s=1 << 20) as server:
        with MDSWriter(out=server.url('data/set'), columns={'x': 'bytes'}, size_limit=1 << 18) as writer:
            for _ in range(20):
                writer.write({'x': os.urandom(1 << 17)})
        yield server.url('data/set')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_cp_that_is_interrupted(
    number: signal.Signals, slow_url: str, command: list[str], run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    temporary, copy = tmp_path / 'tmp', tmp_path / 'copy'
    temporary.mkdir()
    with subprocess.Popen(
        [*command, 'cp', slow_url, str(copy), '-j', '2'],
        env={**environment, 'TMPDIR': str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while not list(copy.glob('shard.*')):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        out, error = process.communicate(timeout=100)
    assert (out, error) == (b'', b'')
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    left = {path.name for path in copy.iterdir()}
    assert 'index.json' not in left and list(temporary.iterdir()) == []
    assert number == signal.SIGKILL or not any(name.endswith('.tmp') for name in left)
    done = json.loads(run('cp', slow_url, copy, '-j', '16', '--json').stdout)
    assert 0 < done['copied_objects'] < done['objects'] == 20
    assert len(list(LocalDataset(copy))) == 20


def test_cache(run: Run, tmp_path: Path) -> None:
    folders = [tmp_path / 'home' / '.cache' / 'streaming' / 'own', tmp_path / 'given' / 'train']
    for folder in folders:
        opened = Stream(remote=str(GOLDEN / 'mds'), local=str(folder)).open()
        assert opened.cache is not None
        opened.cache.ensure(0)
        opened.cache.close()
    text = run('cache', 'ls').stdout
    assert str(folders[0]) in text and '1 of 6' in text and 'given' not in text
    (found,) = json.loads(run('cache', 'ls', tmp_path / 'given', '--json').stdout)
    assert (found['path'], found['remote'], found['in_use']) == (str(folders[1]), str(GOLDEN / 'mds'), False)
    assert 'say which' in run('cache', 'clear', status=2).stderr
    assert 'not a cache folder' in run('cache', 'clear', GOLDEN / 'mds', status=1).stderr
    assert run('cache', 'clear', '--unused-days', '1').stdout == ''
    assert 'would delete' in run('cache', 'clear', '--all', '--dry-run').stdout and folders[0].exists()
    assert 'deleted' in run('cache', 'clear', '--all').stdout and not folders[0].exists()
    run('cache', 'clear', folders[1])
    assert not folders[1].exists()
