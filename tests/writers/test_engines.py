"""Engines where their packages are not installed: an error that says what to install, and no import before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from streaming.base.converters import dataframe_to_mds
from streaming.base.converters.dataframe_to_mds import dataframe_to_mds as same_one
from streaming.errors import ArgumentError, MissingExtraError
from streaming.writers.convert import convert
from streaming.writers.engines import get_engine, get_engines
from streaming.writers.engines.spark import error_of

PACKAGES = {'dask': 'distributed', 'ray': 'ray', 'spark': 'pyspark.sql'}


@pytest.mark.parametrize('name', get_engines())
def test_a_package_that_lacks_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MissingExtraError, match=rf"{PACKAGES[name]}: pip install 'streaming-dataset\[{name}\]'"):
        get_engine(name)


def test_a_dataframe_needs_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dataframe_to_mds is same_one
    monkeypatch.setitem(sys.modules, 'pyspark.sql', None)
    with pytest.raises(MissingExtraError, match=r'streaming-dataset\[spark\]'):
        dataframe_to_mds(object(), mds_kwargs={'out': 'somewhere'})


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = """
import sys
import streaming.base.converters, streaming.writers.engines.dask, streaming.writers.engines.ray
print(sorted({'ray', 'distributed', 'pyspark', 'pandas', 'pyarrow', 'torch'} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == '[]\n', done.stderr


def test_what_only_this_process_can_read_is_not_sent_to_an_engine(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='an engine cannot'):
        convert(iter([{'x': 1}]), tmp_path, engine=lambda function, parts: map(function, parts))


TRACEBACK = """Job aborted due to stage failure: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "work.py", line 1, in work
streaming.errors.NotFoundError: the first one

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "work.py", line 2, in work
streaming.errors.FormatError: a.jsonl, line 3: it is no JSON: a "b": c
\tat org.apache.spark.api.python.BasePythonRunner"""


def test_errors_of_ours_in_what_spark_says() -> None:
    found = error_of(TRACEBACK)
    assert type(found).__name__ == 'FormatError' and str(found) == 'a.jsonl, line 3: it is no JSON: a "b": c'
    assert error_of('streaming.errors.NoSuchError: x') is not None
    assert error_of('java.lang.OutOfMemoryError: Java heap space') is None
