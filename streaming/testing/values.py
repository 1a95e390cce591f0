"""Values of encodings by name, for tests that make datasets of all kinds."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

__all__ = ['VALUES', 'assert_same']

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
# Few, so that arrays of one shape meet.
_FEW = st.sampled_from([(3,), (2, 2), (300,)])

VALUES: dict[str, st.SearchStrategy[Any]] = {
    'int': st.integers(-(1 << 63), (1 << 63) - 1),
    'bool': st.booleans(),
    'str': st.text(max_size=5) | st.just('é' * 9000),
    'bytes': st.binary(max_size=5),
    'json': _JSON,
    'str_int': st.integers(),
    'bfloat16': st.floats(width=16, allow_nan=False),
    'list[str]': st.lists(st.text(max_size=2), max_size=2),
    'ndarray': st.sampled_from([np.uint8, np.int64, np.float16]).flatmap(lambda dtype: hnp.arrays(dtype, _FEW)),
    'ndarray:uint16': hnp.arrays(np.uint16, _FEW | _SHAPES),
    'ndarray:float32': hnp.arrays(np.float32, st.just((4,)), elements=st.floats(width=32, allow_nan=False)),
    'ndarray:int32:2,3': hnp.arrays(np.int32, (2, 3)),
    'ndarray:int8:0,3': hnp.arrays(np.int8, (0, 3)),
    **{name: hnp.from_dtype(np.dtype(name), allow_nan=False) for name in ('uint8', 'int16', 'uint32', 'uint64', 'float16')},
    **{name: hnp.from_dtype(np.dtype(name), allow_nan=False) for name in ('float32', 'float64')},
}


def assert_same(found: Any, expected: Any) -> None:
    """Hold values against each other, with their types and dtypes, all the way down."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif hasattr(expected, 'numpy'):  # a tensor of torch
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
    else:
        assert found == expected
