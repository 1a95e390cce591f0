"""Encoders made for columns write what the general encoder writes, and refuse what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import ColumnTypeError
from streaming.format.columns import get_encoding
from streaming.format.mds import MDSSchema
from streaming.testing.values import VALUES

ODD = st.sampled_from(
    [
        None,
        b'',
        b'12345678',
        bytearray(b'ab'),
        memoryview(b'ab'),
        'text',
        7,
        -1,
        1 << 70,
        True,
        1.5,
        float('nan'),
        np.float32(2),
        np.int64(3),
        np.zeros((2, 3), np.int32).T,
        np.zeros(9, np.uint16)[::3],
        np.zeros(3, '>u2'),
        np.array(5, np.uint16),
        np.zeros((0, 3), np.int8),
        np.array(['a']),
        [1, 'a'],
        type('Text', (str,), {})('sub'),
        type('Arrays', (np.ndarray,), {})((3,), np.uint16),
    ]
)


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_as_the_general_encoder(data: st.DataObject) -> None:
    columns = data.draw(st.dictionaries(st.text(min_size=1, max_size=3), st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    schema = MDSSchema.from_columns(columns)
    encode, general = schema.encoder(), schema.general_encoder()
    for _ in range(3):
        sample = {name: data.draw(VALUES[encoding] | ODD) for name, encoding in columns.items()}
        if data.draw(st.integers(0, 9)) == 9:
            sample.popitem()
        for _ in range(2):
            assert outcome(lambda sample=sample: encode(sample)) == outcome(lambda sample=sample: general(sample))


def test_what_is_no_sample_is_refused() -> None:
    for columns in ({'a': 'int'}, {'a': 'str', 'b': 'ndarray'}):
        encode = MDSSchema.from_columns(columns).encoder()
        for sample in ([1], 'a', None, {}):
            with pytest.raises(ColumnTypeError):
                encode(sample)  # type: ignore[arg-type]


def test_names_are_values(tmp_path: Any) -> None:
    name = "'): raise SystemExit  #"
    assert MDSSchema.from_columns({name: 'str'}).encoder()({name: 'x'}) == b'\1\0\0\0x'


@pytest.mark.parametrize('name', ['ndarray', 'ndarray:uint16', 'ndarray:uint16:4'])
def test_an_array_is_not_mistaken_for_the_one_before(name: str) -> None:
    encode = MDSSchema.from_columns({'a': name}).encoder()
    encoding = get_encoding(name)
    values = [
        np.arange(4, dtype=np.uint16),
        np.arange(4, dtype=np.uint16) + 1,
        np.arange(8, dtype=np.uint16)[::2],
        np.arange(4, dtype='>u2'),
        np.arange(4, dtype=np.uint16),
    ]
    for value in values:
        expected = encoding.encode(value)
        head = b'' if encoding.size is not None else len(expected).to_bytes(4, 'little')
        assert encode({'a': value}) == head + expected
