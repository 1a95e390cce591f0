"""docs/benchmarks.md is made from lines of results alone, and says of each target how far we are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / 'benchmarks'
MACHINE = {
    'name': 'machine',
    'stage': 'read',
    'size': 'small',
    'rounds': 3,
    'cpu': 'a processor',
    'cores': 2,
    'memory_gib': 24,
    'load': 0.5,
    'system': 'Linux',
    'python': '3.11.7',
    'versions': {'torch': '2.13.0'},
    'commit': 'abc',
    'time': '2026-11-25T00:00:00+00:00',
}


def line(name: str, workload: str, contender: str, **values: object) -> dict[str, object]:
    return {
        'name': name,
        'workload': workload,
        'contender': contender,
        'unit': 'samples/s',
        'rounds': [1.0, 2.0, 3.0],
        'peak_rss_mb': 100.0,
        **values,
    }


@pytest.fixture
def made(tmp_path: Path) -> str:
    lines = [
        MACHINE,
        line('read/random', 'tokens', 'ours', value=500_000.0, ours_over=1.0, limit_over=1.2),
        line('read/random', 'tokens', 'limit', value=600_000.0, ours_over=0.83, limit_over=1.0),
        line('read/random', 'tokens', 'mosaicml', value=40_000.0, ours_over=12.5, limit_over=15.0, version='0.13.0'),
        line('read/random', 'tokens', 'litdata', value=250_000.0, ours_over=2.0, limit_over=2.4),
        line('write/zstd+xxh64', 'text', 'ours', value=1.0, limit_over=1.5),
        line('write/none', 'ints', 'mosaicml', error='ValueError: no'),
        line('soak/growth', 'mixed, 10 epochs', 'ours', value=0.0, peak_rss_worker_mb=80.0),
    ]
    results = tmp_path / 'results.jsonl'
    results.write_text(''.join(json.dumps(entry) + '\n' for entry in lines))
    command = [sys.executable, str(BENCHMARKS / 'run.py'), '--results', str(results), '--docs', str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert (tmp_path / 'img' / 'read-random.svg').read_text().startswith('<?xml')
    return (tmp_path / 'benchmarks.md').read_text()


def row(page: str, *words: str) -> str:
    (found,) = [found for found in page.splitlines() if all(word in found for word in words)]
    return found


@pytest.mark.skipif(sys.version_info < (3, 11), reason='matplotlib is among the development tools from Python 3.11 on')
def test_the_page_tells_what_was_reached_and_what_was_not(made: str) -> None:
    assert row(made, '| 10x mosaicml-streaming |', 'ints: not measured; text: not measured; tokens 12.5x').endswith('| yes |')
    assert row(made, '| 4x litData |', 'tokens 2x').endswith('| no |')
    assert row(made, '- writing, zstd and xxh64, 0.9 of the codec alone').endswith('busy for 85 % of the time')
    assert row(made, 'within 1.5x of map').count('1.2x') == 1
    assert row(made, '4x mosaicml-streaming (two ints)').endswith('| ints: mosaicml failed | ? |')
    assert row(made, '| tokens | mosaicml |') == '| tokens | mosaicml | 40,000 samples/s | 12.5x | 15x | 100 MB |'
    assert row(made, '| mixed, 10 epochs | ours |').endswith('| 0 samples/s |  |  | 100 MB, 80 MB |')
    assert 'failed: ValueError: no' in row(made, '| ints | mosaicml |')
    assert 'mosaicml-streaming 0.13.0' in row(made, '| versions |')
