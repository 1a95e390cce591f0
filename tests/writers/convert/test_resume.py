"""Conversions that are killed: the same command goes on, and what comes out is what would have come out."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streaming import LocalDataset
from streaming.errors import FormatError, StoreError
from streaming.writers.convert import convert, convert_part, finish, plan_parts, prepare, run

# More by hand: CONVERT_KILLS=30 pytest tests/writers/convert/test_resume.py
KILLS = int(os.environ.get('CONVERT_KILLS', '4'))
COUNT = 6000
SMALL = {'part_bytes': '16kb', 'size_limit': '8kb', 'compression': 'zstd', 'hashes': ['xxh64']}
SCRIPT = f"""
import sys
from streaming.writers.convert import convert

if __name__ == '__main__':
    convert(sys.argv[1], sys.argv[2], workers=2, shuffle_seed=int(sys.argv[3]) if len(sys.argv) > 3 else None, **{SMALL!r})
"""


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / 'in.jsonl'
    path.write_text(''.join(json.dumps({'id': number, 'text': f'{number} ' * 9}) + '\n' for number in range(COUNT)))
    return path


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}
    found.pop('.convert/job.json', None)
    return found


def processes_of(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for status in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = status.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != 'Z':
            found.append(int(status.parent.name))
    return found


def begin(script: Path, lines: Path, out: Path, *seed: str) -> 'subprocess.Popen[bytes]':
    return subprocess.Popen(
        [sys.executable, str(script), str(lines), str(out), *seed], stderr=subprocess.DEVNULL, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='looks for processes in /proc')
@pytest.mark.timeout(60 + 20 * KILLS)
@pytest.mark.parametrize('seed', [(), ('5',)])
def test_killed_at_random_moments(lines: Path, tmp_path: Path, seed: tuple[str, ...]) -> None:
    script, out = tmp_path / 'script.py', tmp_path / 'out'
    script.write_text(SCRIPT)
    start = time.monotonic()
    assert begin(script, lines, tmp_path / 'expected', *seed).wait(60) == 0
    duration = time.monotonic() - start
    chance = random.Random(f'{seed}{KILLS}')
    for _ in range(KILLS // (1 if KILLS > 10 else 2)):
        process = begin(script, lines, out, *seed)
        time.sleep(chance.uniform(0.2, 0.9) * duration)
        running = processes_of(process.pid)
        if running:
            # The process that was started, or one of its workers: the others end by themselves.
            os.kill(chance.choice([process.pid, *running]), signal.SIGKILL)
        process.wait(30)
        deadline = time.monotonic() + 20
        while left := processes_of(process.pid):
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
    assert begin(script, lines, out, *seed).wait(60) == 0
    assert files(out) == files(tmp_path / 'expected')
    assert sorted(sample['id'] for sample in LocalDataset(out)) == list(range(COUNT))


def interrupted(lines: Path, out: Path, parts: int, **options: Any) -> None:
    """Do some parts of a job, and no more."""
    job = prepare(lines, out, **SMALL, **options)
    done = 0

    def engine(function: Any, todo: Any) -> Any:
        nonlocal done
        for part in todo:
            if done == parts:
                raise KeyboardInterrupt
            done += 1
            yield function(part)

    with pytest.raises(KeyboardInterrupt):
        run(job, engine=engine)


def test_only_what_is_missing_is_done(lines: Path, tmp_path: Path) -> None:
    convert(lines, tmp_path / 'expected', workers=1, **SMALL)
    interrupted(lines, tmp_path / 'out', 7)
    assert not (tmp_path / 'out' / 'index.json').exists()
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').rglob('part-0000[0-6]/*')}
    (tmp_path / 'out' / 'part-00009').mkdir()
    (tmp_path / 'out' / 'part-00009' / 'shard.00077.mds.zstd').write_bytes(b'of a try that was killed')
    summary = convert(lines, tmp_path / 'out', workers=1, **SMALL)
    assert (summary.resumed_parts, summary.samples) == (7, COUNT)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert files(tmp_path / 'out') == files(tmp_path / 'expected')


def test_both_halves_of_a_shuffle_go_on(lines: Path, tmp_path: Path) -> None:
    convert(lines, tmp_path / 'expected', workers=1, shuffle_seed=1, **SMALL)
    parts = len(plan_parts(prepare(lines, tmp_path / 'x', **SMALL)))
    for more in (3, parts + 2):
        interrupted(lines, tmp_path / 'out', more, shuffle_seed=1)
    convert(lines, tmp_path / 'out', workers=1, shuffle_seed=1, **SMALL)
    assert files(tmp_path / 'out') == files(tmp_path / 'expected')


def test_a_journal_that_is_broken_is_done_again(lines: Path, tmp_path: Path) -> None:
    convert(lines, tmp_path / 'expected', workers=1, **SMALL)
    interrupted(lines, tmp_path / 'out', 5)
    (tmp_path / 'out/.convert/part-00002.json').write_text('{"number": 2')
    (tmp_path / 'out/.convert/part-00003.json').write_text('{}')
    assert convert(lines, tmp_path / 'out', workers=1, **SMALL).resumed_parts == 3
    assert files(tmp_path / 'out') == files(tmp_path / 'expected')


def test_a_shard_that_is_gone_is_noticed_before_the_index(lines: Path, tmp_path: Path) -> None:
    interrupted(lines, tmp_path / 'out', 5)
    (tmp_path / 'out/part-00003/shard.00000.mds.zstd').unlink()
    with pytest.raises(StoreError, match=r'1 parts .*part-00003/shard\.00000'):
        convert(lines, tmp_path / 'out', workers=1, **SMALL)
    assert not (tmp_path / 'out' / 'index.json').exists()
    convert(lines, tmp_path / 'out', workers=1, **SMALL)
    assert [sample['id'] for sample in LocalDataset(tmp_path / 'out')] == list(range(COUNT))


def test_a_source_that_changed_is_another_job(lines: Path, tmp_path: Path) -> None:
    interrupted(lines, tmp_path / 'out', 5)
    lines.write_text(lines.read_text() + '{"id": 0, "text": ""}\n')
    with pytest.raises(FileExistsError, match='unfinished conversion of another job'):
        convert(lines, tmp_path / 'out', workers=1, **SMALL)


def test_rejects_are_counted_once(lines: Path, tmp_path: Path) -> None:
    text = lines.read_text().splitlines()
    text[0] = text[3000] = 'x'
    lines.write_text('\n'.join(text))
    interrupted(lines, tmp_path / 'out', 5, on_error='reject')
    summary = convert(lines, tmp_path / 'out', workers=1, on_error='reject', **SMALL)
    assert summary.rejected == 2
    found = [line for path in (tmp_path / 'out/rejected').iterdir() for line in path.read_text().splitlines()]
    assert len(found) == 2


def test_a_fixed_record_lets_the_job_begin_anew(lines: Path, tmp_path: Path) -> None:
    good = lines.read_text()
    lines.write_text(good + 'x')
    with pytest.raises(FormatError, match=f'line {COUNT + 1}'):
        convert(lines, tmp_path / 'out', workers=1, **SMALL)
    lines.write_text(good)
    convert(lines, tmp_path / 'out', workers=1, exist_ok=True, **SMALL)
    assert len(LocalDataset(tmp_path / 'out')) == COUNT


def test_step_by_step_as_an_engine_does_it(lines: Path, tmp_path: Path) -> None:
    job = prepare(lines, tmp_path / 'out', **SMALL)
    parts = plan_parts(job)
    results = {part.number: convert_part(job, part) for part in random.Random(3).sample(parts, len(parts))}
    summary = finish(job, [results[part.number] for part in parts])
    assert summary.samples == COUNT
    convert(lines, tmp_path / 'expected', workers=1, **SMALL)
    assert files(tmp_path / 'out') == files(tmp_path / 'expected')
