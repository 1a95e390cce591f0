"""The same conversion on every engine: the same objects in the bucket, and errors as what they are."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming.errors import AlreadyExistsError, ArgumentError, FormatError
from streaming.writers.convert import convert
from streaming.writers.convert.run import Engine
from streaming.writers.engines import get_engine, get_engines
from streaming.writers.engines.dask import DaskEngine
from tests.cluster.conftest import need, objects

# Starting a cluster takes its time where others want the cores, too.
pytestmark = pytest.mark.timeout(400)

CLUSTERS = {'ray': 'ray_cluster', 'dask': 'dask_client', 'spark': 'spark_session'}


@pytest.fixture(scope='module', params=sorted(CLUSTERS))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine, on a cluster that runs already."""
    request.getfixturevalue(CLUSTERS[request.param])
    return get_engine(request.param)


def test_every_engine_writes_what_one_process_writes(engine: Engine, lines: Path, bucket: str, tmp_path: Path) -> None:
    options: Any = {'part_bytes': 6000, 'size_limit': 4000, 'compression': 'zstd', 'hashes': ['xxh64']}
    wanted = convert(lines, tmp_path / 'wanted', workers=1, **options)
    found = convert(lines, bucket, engine=engine, **options)
    assert found.samples == wanted.samples == 1500 and found.parts == wanted.parts > 5
    assert objects(bucket) == objects(str(tmp_path / 'wanted'))


def test_a_shuffle(engine: Engine, lines: Path, bucket: str, tmp_path: Path) -> None:
    options: Any = {'part_bytes': 20000, 'shuffle_seed': 7, 'function': lambda record: record if record['x'] % 3 else None}
    convert(lines, tmp_path / 'wanted', workers=1, **options)
    assert convert(lines, bucket, engine=engine, **options).samples == 1000
    assert objects(bucket) == objects(str(tmp_path / 'wanted'))


def test_an_error_is_what_it_was_and_the_rest_goes_on_later(engine: Engine, lines: Path, bucket: str, tmp_path: Path) -> None:
    broken = tmp_path / 'lines'
    broken.mkdir()
    for path in lines.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    # Further on than columns are inferred from: it is a task that finds it.
    good = (broken / '2.jsonl').read_text()
    (broken / '2.jsonl').write_text(good.replace('"x": 2400,', '"x": 2400', 1))
    options: Any = {'part_bytes': 6000, 'columns': {'x': 'int', 'text': 'str'}}
    with pytest.raises(FormatError, match=r'2\.jsonl.*line 401'):
        convert(broken, bucket, engine=engine, **options)
    assert 'index.json' not in objects(bucket)
    with pytest.raises(AlreadyExistsError, match='unfinished'):
        convert(lines, bucket, engine=engine, **options)


def test_engines_by_name() -> None:
    assert get_engines() == sorted(CLUSTERS)
    with pytest.raises(ArgumentError, match='there are dask, ray, spark'):
        get_engine('slurm')


@pytest.fixture
def replaceable(engine: Engine) -> Iterator[Engine]:
    """An engine whose workers may be killed. Dask has new ones started by this process, so that they end with the test."""
    if isinstance(engine, DaskEngine):
        with need('dask').Client(n_workers=2, threads_per_worker=1, dashboard_address=':0') as client:
            yield get_engine('dask', client=client)
    else:
        yield engine


def test_a_part_whose_worker_is_killed_is_done_again(replaceable: Engine, lines: Path, bucket: str, tmp_path: Path) -> None:
    here, mark = os.getpid(), tmp_path / 'mark'

    def die_once(record: dict[str, Any]) -> dict[str, Any]:
        if record['x'] == 1100 and os.getpid() != here and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    options: Any = {'part_bytes': 6000, 'hashes': ['xxh64'], 'size_limit': 2000}
    convert(lines, tmp_path / 'wanted', workers=1, **options)
    assert convert(lines, bucket, engine=replaceable, function=die_once, **options).samples == 1500
    assert mark.exists()
    assert objects(bucket) == objects(str(tmp_path / 'wanted'))


def test_waiting_for_workers_is_said(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A Dask cluster without workers, which gets one when the log says that there is none."""
    distributed = need('dask')
    monkeypatch.setattr('streaming.writers.engines.dask._REPORT_S', 0.5)
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=':0') as cluster:

        class Scaling(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                cluster.scale(1)

        handler = Scaling()
        logging.getLogger('streaming.writers.engines.dask').addHandler(handler)
        try:
            with distributed.Client(cluster) as client:
                engine = get_engine('dask', client=client)
                assert convert(lines, tmp_path / 'out', engine=engine, part_bytes=20000).samples == 1500
        finally:
            logging.getLogger('streaming.writers.engines.dask').removeHandler(handler)
    assert 'the cluster has 0 workers' in caplog.text
