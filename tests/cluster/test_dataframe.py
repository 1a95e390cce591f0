"""dataframe_to_mds, on Spark in local mode: what is written, what is inferred, what is left when it fails."""

import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streaming import LocalDataset, merge_index
from streaming.base.converters import dataframe_to_mds, infer_dataframe_schema
from streaming.base.converters.dataframe_to_mds import is_json_compatible
from streaming.errors import AlreadyExistsError, ArgumentError, ColumnTypeError, DeniedError
from streaming.tools.copy import copy_dataset
from streaming.tools.verify import verify_dataset
from tests.cluster.conftest import need, objects

# Starting a cluster takes its time where others want the cores, too.
pytestmark = pytest.mark.timeout(400)


def rows(count: int) -> list[dict[str, Any]]:
    return [{'x': x, 'text': f'wörd {x}', 'tokens': list(range(x % 5))} for x in range(count)]


@pytest.fixture(scope='module')
def frame(spark_session: Any) -> Any:
    """150 rows in 2 partitions, and others that are empty."""
    schema = 'x long, text string, tokens array<int>'
    made = spark_session.createDataFrame(rows(150), schema)
    return made.union(spark_session.createDataFrame([], schema))


def test_straight_to_a_bucket(frame: Any, bucket: str, tmp_path: Path) -> None:
    assert dataframe_to_mds(frame, mds_kwargs={'out': bucket, 'size_limit': 2000, 'hashes': ['sha1']}) == ('', bucket)
    found = verify_dataset(bucket)
    assert found.is_good and found.shards > 3
    copy_dataset(bucket, tmp_path / 'copy')
    samples = list(LocalDataset(tmp_path / 'copy'))
    assert [(sample['x'], sample['text']) for sample in samples] == [(row['x'], row['text']) for row in rows(150)]
    assert all(sample['tokens'].tolist() == list(range(sample['x'] % 5)) for sample in samples)
    assert samples[0]['tokens'].dtype == np.int32
    assert {name.rpartition('.')[2] for name in objects(bucket)} == {'json', 'zstd'}


def test_a_path_and_columns_and_no_merging(frame: Any, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    options = {'out': str(out), 'columns': {'x': 'uint16'}, 'compression': None}
    assert dataframe_to_mds(frame, merge_index=False, mds_kwargs=options) == (str(out), '')
    assert options == {'out': str(out), 'columns': {'x': 'uint16'}, 'compression': None}
    folders = [path.parent for path in sorted(out.rglob('index.json'))]
    assert [sample['x'] for folder in folders for sample in LocalDataset(folder)] == list(range(150))


def test_local_and_remote(frame: Any, bucket: str, tmp_path: Path) -> None:
    both = (str(tmp_path / 'local'), bucket)
    assert dataframe_to_mds(frame, mds_kwargs={'out': both}) == both
    assert not (tmp_path / 'local').exists()
    with pytest.raises(AlreadyExistsError, match='exist_ok'):
        dataframe_to_mds(frame, mds_kwargs={'out': both})
    first = set(objects(bucket))
    dataframe_to_mds(frame.limit(10), mds_kwargs={'out': both, 'keep_local': True, 'exist_ok': True})
    assert objects(bucket) == objects(str(tmp_path / 'local'))
    assert set(objects(bucket)) & first == {'index.json'}
    assert len(LocalDataset(tmp_path / 'local')) == 10


def test_a_function_makes_the_samples(frame: Any, tmp_path: Path) -> None:
    def explode(batch: Any, times: int) -> Iterator[dict[str, Any]]:
        for x in batch['x']:
            yield from ({'y': f'{x}.{number}'} for number in range(times))

    options = {'out': str(tmp_path), 'columns': {'y': 'str'}}
    dataframe_to_mds(frame, mds_kwargs=options, udf_iterable=explode, udf_kwargs={'times': 2})
    assert [sample['y'] for sample in LocalDataset(tmp_path)] == [f'{x}.{number}' for x in range(150) for number in range(2)]
    with pytest.raises(ArgumentError, match="needs 'columns'"):
        dataframe_to_mds(frame, mds_kwargs={'out': str(tmp_path)}, udf_iterable=explode)


def test_failures_leave_nothing(frame: Any, spark_session: Any, bucket: str) -> None:
    with pytest.raises(ColumnTypeError, match="column 'x'"):
        dataframe_to_mds(frame, mds_kwargs={'out': bucket, 'columns': {'x': 'int8', 'text': 'str'}, 'size_limit': 100})
    gaps = spark_session.createDataFrame([(1,), (None,)], 'x long')
    with pytest.raises(ColumnTypeError, match='NoneType'):
        dataframe_to_mds(gaps, mds_kwargs={'out': bucket})
    assert objects(bucket) == {}


def test_parts_are_kept_where_only_the_merging_failed(
    frame: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise DeniedError('on purpose')

    with monkeypatch.context() as patch, pytest.raises(DeniedError):
        patch.setattr('streaming.writers.merge.merge_index', fail)
        dataframe_to_mds(frame, mds_kwargs={'out': bucket})
    merge_index(bucket)
    copy_dataset(bucket, tmp_path / 'copy')
    assert [sample['x'] for sample in LocalDataset(tmp_path / 'copy')] == list(range(150))


def test_what_is_refused(frame: Any, tmp_path: Path) -> None:
    for options in (None, {}, {'columns': {'x': 'int'}}):
        with pytest.raises(ArgumentError, match="'out'"):
            dataframe_to_mds(frame, mds_kwargs=options)
    with pytest.raises(ArgumentError, match='empty'):
        dataframe_to_mds(frame.limit(0), mds_kwargs={'out': str(tmp_path)})
    with pytest.raises(ArgumentError, match='no encoding'):
        dataframe_to_mds(frame, mds_kwargs={'out': str(tmp_path), 'columns': {'x': 'nonsense'}})
    assert list(tmp_path.iterdir()) == []


KINDS = {
    'a': ('byte', 'int8', -3),
    'b': ('short', 'int16', -300),
    'c': ('int', 'int32', -70000),
    'd': ('long', 'int64', 1 << 40),
    'e': ('float', 'float32', 0.5),
    'f': ('double', 'float64', 0.1),
    'g': ('decimal(20,4)', 'str_decimal', decimal.Decimal('1.2500')),
    'h': ('string', 'str', 'ü'),
    'i': ('binary', 'bytes', b'\x00\xff'),
    'j': ('boolean', 'bool', True),
    'k': ('date', 'str', datetime.date(2026, 11, 25)),
    'l': ('array<double>', 'ndarray:float64', [0.1, 0.2]),
    'm': ('array<string>', 'json', ['x', None]),
    'n': ('map<string,int>', 'json', {'y': 1}),
    'o': ('struct<p:int,q:array<string>>', 'json', {'p': 1, 'q': ['z']}),
}


def test_every_type(spark_session: Any, tmp_path: Path) -> None:
    schema = ', '.join(f'{name} {kind}' for name, (kind, _, _) in KINDS.items())
    made = spark_session.createDataFrame([tuple(value for _, _, value in KINDS.values())], schema)
    assert infer_dataframe_schema(made) == {name: encoding for name, (_, encoding, _) in KINDS.items()}
    assert infer_dataframe_schema(made, {'b': 'uint16', 'i': 'jpeg', 'l': 'ndarray:float32:2', 'd': 'json'}) is None
    dataframe_to_mds(made, mds_kwargs={'out': str(tmp_path)})
    sample = LocalDataset(tmp_path)[0]
    wanted = {name: value for name, (_, _, value) in KINDS.items()}
    assert sample.pop('l').tolist() == wanted.pop('l')
    assert sample == {**wanted, 'k': '2026-11-25'}
    for column, encoding in (('h', 'int'), ('m', 'ndarray'), ('j', 'int'), ('o', 'str'), ('nope', 'str')):
        with pytest.raises(ArgumentError, match=f"'{column}'"):
            infer_dataframe_schema(made, {column: encoding})


def test_what_has_no_encoding(spark_session: Any) -> None:
    made = spark_session.sql("select interval '1' day as x, map(1, 2) as y")
    with pytest.raises(ArgumentError, match='no encoding suggests itself') as caught:
        infer_dataframe_schema(made)
    assert "'x'" in str(caught.value) and "'y'" in str(caught.value)
    assert not is_json_compatible(made.schema['y'].dataType)


def test_the_table_of_types() -> None:
    types = need('spark').types
    from streaming.base.converters import SPARK_TO_MDS  # its keys are objects of Spark

    found = (SPARK_TO_MDS[types.LongType()], SPARK_TO_MDS[types.DecimalType()], SPARK_TO_MDS[types.DayTimeIntervalType()])
    assert found == ('int64', 'str_decimal', None)
    assert SPARK_TO_MDS[types.ArrayType(types.FloatType())] == 'ndarray:float32'
