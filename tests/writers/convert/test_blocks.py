"""Encoding many samples at once gives what encoding each gives, or nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.format.columns import get_encoding
from streaming.format.mds import MDSSchema
from streaming.writers.convert.blocks import BlockEncoder
from streaming.writers.convert.sinks import EncodedWriter, cut_block
from streaming.writers.convert.sources.base import Batch

VALUES: dict[str, st.SearchStrategy[Any]] = {
    'str': st.text(max_size=20) | st.binary(max_size=3),
    'bytes': st.binary(max_size=20),
    'int': st.integers(-(1 << 64), 1 << 64) | st.integers(-5, 5) | st.booleans(),
    'uint8': st.integers(-2, 257),
    'float64': st.floats() | st.integers(0, 3),
    'float32': st.floats(),
    'bool': st.booleans(),
    'json': st.lists(st.integers(0, 3), max_size=3) | st.none(),
    'str_int': st.integers(),
    'ndarray:uint16:2': st.lists(st.integers(0, 9), min_size=2, max_size=2).map(lambda row: np.array(row, np.uint16)),
    'ndarray:int64': st.lists(st.integers(0, 9), max_size=3).map(lambda row: np.array(row, np.int64)),
}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_same_bytes_as_one_by_one(data: st.DataObject) -> None:
    encodings = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    columns = {f'c{number}': encoding for number, encoding in enumerate(encodings)}
    sample = st.fixed_dictionaries({name: VALUES[encoding] for name, encoding in columns.items()})
    records = data.draw(st.lists(sample, min_size=1, max_size=6))
    encode = MDSSchema.from_columns(columns).encoder()
    try:
        expected = [encode(record) for record in records]
    except (TypeError, ValueError):
        with pytest.raises(Exception):  # noqa: B017 - whatever it is; who asked encodes one by one, and finds out
            BlockEncoder(columns, {}).encode(Batch(records, str, 0))
        return
    block, sizes = BlockEncoder(columns, {}).encode(Batch(records, str, 0))
    assert list(cut_block(block, sizes)) == expected


@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'float32', 'int64', 'float64'])
def test_arrays_as_columns(dtype: str) -> None:
    name = 'int' if dtype == 'int64' else dtype
    numbers, rows = np.arange(10).astype(dtype), np.arange(60).reshape(10, 2, 3).astype(dtype)
    columns: Any = {'a': numbers, 'b': rows, 'c': [str(number) for number in range(10)]}
    batch = Batch(None, str, 0, columns)
    encodings = {'a': name, 'b': f'ndarray:{dtype}:2,3', 'c': 'str'}
    block, sizes = BlockEncoder(encodings, {}).encode(batch)
    encode = MDSSchema.from_columns(encodings).encoder()
    assert list(cut_block(block, sizes)) == [encode(record) for record in batch.records]  # type: ignore[arg-type]
    assert batch.first(3).count == len(batch.first(3).records) == 3


def test_an_array_of_another_type_is_encoded_one_by_one() -> None:
    batch = Batch(None, str, 0, {'a': np.array([1.5, 2.0])})
    with pytest.raises(TypeError):
        BlockEncoder({'a': 'int'}, {}).encode(batch)
    block, _ = BlockEncoder({'a': 'float32'}, {}).encode(batch)
    assert block == np.array([1.5, 2.0], '<f4').tobytes()
    assert get_encoding('float32').size == 4


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(200, 1500), st.integers(1, 20))
def test_blocks_are_cut_into_the_same_shards(tmp_path_factory: Any, lengths: list[int], limit: int, step: int) -> None:
    samples = [bytes([number % 256]) * length for number, length in enumerate(lengths)]
    out = tmp_path_factory.mktemp('out')
    encoded = [len(sample).to_bytes(4, 'little') + sample for sample in samples]
    for name in ('one', 'block'):
        with EncodedWriter(out=out / name, columns={'x': 'bytes'}, size_limit=limit) as writer:
            for at in range(0, len(encoded), step):
                part = encoded[at : at + step]
                if name == 'block':
                    writer.write_block(b''.join(part), np.array(list(map(len, part)), np.uint32))
                else:
                    for data in part:
                        writer.write(data)  # type: ignore[arg-type]
    first, second = ({path.name: path.read_bytes() for path in (out / name).iterdir()} for name in ('one', 'block'))
    assert first == second
