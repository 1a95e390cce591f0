"""streaming inspect, as people and as programs see it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from streaming import MDSWriter
from streaming.testing.oci import OCIServer

GOLDEN = Path(__file__).parent.parent / 'golden' / 'datasets'

Run = Callable[..., 'subprocess.CompletedProcess[str]']


def test_for_people(run: Run) -> None:
    text = run('inspect', GOLDEN / 'mds-zstd', '-n', '1').stdout
    assert '40' in text and 'compression zstd:7, hashes sha1, xxh64' in text
    assert 'c_bytes     bytes' in text and 'image RGB 5x7' in text
    assert 'sample 0' in text and 'sample 1' not in text


def test_for_programs(run: Run) -> None:
    found = json.loads(run('inspect', GOLDEN / 'csv', '--json').stdout)
    assert (found['samples'], found['shards'], found['schemas'][0]['format']) == (60, 1, 'csv')
    assert found['schemas'][0]['columns'] == {'number': 'int', 'ratio': 'float', 'words': 'str'}
    assert found['raw_bytes'] > found['stored_bytes'] > 0
    assert len(found['first']) == 3


def test_a_bucket_is_asked_for_ranges_only(run: Run, oci: OCIServer, tmp_path: Path) -> None:
    url = oci.url('data/inspected set/ü')
    with MDSWriter(out=url, columns={'a': 'int', 'b': 'bytes', 'c': 'pkl'}) as writer:
        for number in range(200):
            writer.write({'a': number, 'b': bytes(10_000), 'c': [number]})
    oci.reset_stats()
    text = run('inspect', url).stdout
    assert '\n\nsample 2\na  2' in text
    assert 'not read, because that can run code: c' in text
    assert url.partition('?')[2] not in text
    assert sum(oci.stats()['bytes'].values()) < 50_000
