"""convert from the shell: what it shows before and after, how it goes on, what it refuses, and that it tells no secrets."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming import LocalDataset
from streaming.testing.oci import OCIServer

Run = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / 'in put' / 'té xt.jsonl'
    path.parent.mkdir()
    path.write_text(''.join(json.dumps({'id': number, 'text': f'text {number}'}) + '\n' for number in range(500)))
    return path


def test_what_it_shows(run: Run, lines: Path, tmp_path: Path) -> None:
    done = run(
        'convert', lines, 'out/../out put', '-j', '1', '--columns', 'id=int32', '--compression', 'zstd', '--hashes', 'xxh64'
    )
    assert 'té xt.jsonl (jsonl)' in done.stderr and 'int32' in done.stderr
    assert 'samples       500' in done.stdout
    assert LocalDataset(tmp_path / 'out put')[7] == {'id': 7, 'text': 'text 7'}
    again = run('convert', lines, 'out put', '--columns', 'id=int32', '--compression', 'zstd', '--hashes', 'xxh64', '--json')
    assert json.loads(again.stdout)['samples'] == 500
    refused = run('convert', lines, 'out put', '--limit', '10', status=1)
    assert '--overwrite' in refused.stderr and 'holds a dataset' in refused.stderr
    run('convert', lines, 'out put', '--limit', '10', '--overwrite')
    assert len(LocalDataset(tmp_path / 'out put')) == 10


def test_a_dry_run_writes_nothing(run: Run, lines: Path, tmp_path: Path) -> None:
    found = json.loads(run('convert', lines, 'out', '--dry-run', '--json', '--part-size', '4kb').stdout)
    assert found['job']['columns'] == {'id': 'int', 'text': 'str'}
    assert found['parts'] > 3 and found['input_bytes'] == lines.stat().st_size
    assert not (tmp_path / 'out').exists()


def test_functions_splits_and_bad_records(run: Run, lines: Path, tmp_path: Path) -> None:
    with lines.open('a') as file:
        file.write('no JSON\n')
    (tmp_path / 'mine.py').write_text('def odd(record):\n    return record if record["id"] % 2 else None\n')
    options = ('--function', 'mine:odd', '--splits', 'train=0.8, val=0.2', '--shuffle-seed', '1', '-j', '2', '--part-size', '4kb')
    failed = run('convert', lines, 'out', *options, status=1)
    assert 'té xt.jsonl, line 501: it is no JSON' in failed.stderr
    done = run('convert', lines, 'rejecting', *options, '--on-error', 'reject')
    assert 'bad records' in done.stdout
    found = [sample['id'] for split in ('train', 'val') for sample in LocalDataset(tmp_path / 'rejecting', split=split)]
    assert sorted(found) == list(range(1, 500, 2))
    assert 'NAME=VALUE' in run('convert', lines, 'x', '--splits', 'train', status=1).stderr


def test_columns_in_one_option_or_several(run: Run, lines: Path, tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text('def vectors(record):\n    return {"a,b": [record["id"]] * 6, "id": record["id"]}\n')
    given = ('--columns', 'id=int16,text=json'), ('--columns', 'id=int16', '--columns', 'text=json')
    for options in given:
        found = json.loads(run('convert', lines, 'out', '--dry-run', '--json', *options).stdout)
        assert found['job']['columns'] == {'id': 'int16', 'text': 'json'}
    options = ('--function', 'mine:vectors', '--columns', 'a,b=ndarray:int32:2,3,id=int8')
    found = json.loads(run('convert', lines, 'out', '--dry-run', '--json', *options).stdout)
    assert found['job']['columns'] == {'a,b': 'ndarray:int32:2,3', 'id': 'int8'}
    assert 'NAME=VALUE' in run('convert', lines, 'out', '--columns', 'id', status=1).stderr


def test_how_to_tokenize_without_a_tokenizer(run: Run, lines: Path, tmp_path: Path) -> None:
    assert 'give --tokenizer too' in run('convert', lines, 'out', '--window', '64', status=1).stderr
    assert not (tmp_path / 'out').exists()


def test_tokens(run: Run, lines: Path, tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text('def tokens(text):\n    return list(text.encode())\n')
    run(
        'convert', lines, 'out', '--tokenizer', 'mine:tokens', '--window', '64', '--end-token', '0', '--dtype', 'uint8', '-j', '1'
    )
    row = b'\0'.join(f'text {number}'.encode() for number in range(500)) + b'\0'
    found = b''.join(sample['tokens'].tobytes() for sample in LocalDataset(tmp_path / 'out'))
    assert found == row[: len(row) // 64 * 64]


def test_from_store_to_store_without_telling_secrets(run: Run, lines: Path, tmp_path: Path, oci: OCIServer) -> None:
    url = oci.url('data/con verted')
    assert '?' in url
    first = run('convert', lines, url, '-j', '2', '--part-size', '4kb')
    done = run('convert', url, 'back', '--select', 'id', '-j', '1')
    assert [sample['id'] for sample in LocalDataset(tmp_path / 'back')] == list(range(500))
    secret = url.partition('?')[2]
    told = first.stdout + first.stderr + done.stdout + done.stderr + (tmp_path / 'back/.convert/job.json').read_text()
    assert not any(part in told for part in secret.split('&'))
    # A file is converted where it lies, in ranges.
    from streaming.store import open_store

    store = open_store(oci.url('data/raw'))
    store.put('in/a b.jsonl', lines)
    store.close()
    run('convert', oci.url('data/raw/in/*.jsonl').replace('%2A', '*'), 'again', '-j', '1', '--part-size', '4kb')
    run('convert', oci.url('data/raw/in/a b.jsonl'), 'alone', '-j', '1', '--part-size', '4kb')
    assert len(LocalDataset(tmp_path / 'again')) == len(LocalDataset(tmp_path / 'alone')) == 500
