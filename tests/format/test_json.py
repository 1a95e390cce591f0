"""The json encoding, whose fast decoder must give what Python's own does, to the bit, and refuse what that refuses."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.format.columns import get_encoding


def decode(text: str) -> Any:
    """The value, with its type and all its bits; or that it was refused."""
    try:
        return repr(get_encoding('json').decode(memoryview(text.encode('utf-8', 'surrogatepass'))))
    except ValueError:
        return ValueError


def decode_slowly(text: str) -> Any:
    try:
        return repr(json.loads(text))
    except ValueError:
        return ValueError


EDGES = (
    *('18446744073709551615', '18446744073709551616', '-9223372036854775809', '1' * 400, '1' * 5000, '9007199254740993'),
    *('-0', '-0.0', '0e5', '1e400', '-1e400', '1e-400', '5e-324', '2.2250738585072011e-308', '1' * 400 + '.5', '1E5', '8.5e22'),
    *('NaN', '[Infinity, -Infinity]', 'nan', '+1', '01', '1.', '.5', '0x1', '1_000'),
    *('{"a": 1, "a": 2}', '{"a": {"b": 1}, "a": {"c": 2}}', '{"": 1}', '[1, 2,]', '{"a": 1,}', '{a: 1}', "['a']"),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\x"', '"a\tb"', '"\x7f"', '"é"', '""'),
    *('', ' ', ' 1 \n', '\ufeff1', 'tru', 'true', 'null', '1 2', '"a', '[', '// 1'),
    *('[' * 900 + ']' * 900, '{"a":' * 900 + '1' + '}' * 900),
)


@pytest.mark.parametrize('text', EDGES)
def test_edges(text: str) -> None:
    assert decode(text) == decode_slowly(text)


TOKENS = st.sampled_from([*'[]{},:"', '1', '-', '0', '.5', 'e9', 'null', 'true', '"a"', '"b":', '\\u00e9', ' ', 'NaN', '\\'])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.floats(width=32),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.lists(TOKENS, max_size=12).map(''.join)
    | VALUES.map(json.dumps)
    | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False))
)
def test_anything(text: str) -> None:
    assert decode(text) == decode_slowly(text)


@pytest.mark.parametrize('text', ['[' * 100_000, '{"a":' * 100_000, '[' * 100_000 + ']' * 100_000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert decode(text) is ValueError
