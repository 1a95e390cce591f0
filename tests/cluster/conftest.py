"""Clusters of this machine alone, each started once, and something for them to convert."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming.store import open_store
from streaming.testing.oci import OCIServer

_PACKAGES = {'dask': 'distributed', 'ray': 'ray', 'spark': 'pyspark.sql'}


@pytest.fixture(scope='session')
def server() -> Iterator[OCIServer]:
    """The stand-in for OCI Object Storage."""
    with OCIServer(buckets=['data']) as server:
        yield server


@pytest.fixture
def bucket(server: OCIServer) -> str:
    """The URL of an empty prefix."""
    return server.url(f'data/{os.urandom(6).hex()}')


def objects(url: str) -> dict[str, bytes]:
    """What lies in a place, but for the journal."""
    store = open_store(url)
    try:
        return {info.key: store.get(info.key) for info in store.list() if not info.key.startswith('.convert/')}
    finally:
        store.close()


@pytest.fixture(scope='session')
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three files of lines, 500 records each."""
    folder = tmp_path_factory.mktemp('lines')
    for number in range(3):
        records = [{'x': 1000 * number + i, 'text': f'wörd {i} ' * (i % 7)} for i in range(500)]
        (folder / f'{number}.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
    return folder


def need(engine: str) -> Any:
    """The package of an engine; the test is skipped where it cannot run."""
    if engine == 'spark' and shutil.which('java') is None and 'JAVA_HOME' not in os.environ:
        pytest.skip('Spark needs Java')
    return pytest.importorskip(_PACKAGES[engine], reason=f'needs the extra {engine}')


@pytest.fixture(scope='session')
def ray_cluster() -> Iterator[Any]:
    ray = need('ray')
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope='session')
def dask_client() -> Iterator[Any]:
    distributed = need('dask')
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=':0') as client:
        yield client
        client.cluster.close()


@pytest.fixture(scope='session')
def spark_session() -> Iterator[Any]:
    sql = need('spark')
    # Each task is tried twice.
    options = {'spark.ui.enabled': 'false', 'spark.driver.bindAddress': '127.0.0.1', 'spark.driver.host': '127.0.0.1'}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYSPARK_PYTHON', sys.executable)
        session = sql.SparkSession.builder.master('local[2, 2]').config(map=options).getOrCreate()
        yield session
        session.stop()
