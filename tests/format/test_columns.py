"""One value <-> its bytes, for every encoding."""

import functools
import io
import struct
import sys
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from streaming.errors import ArgumentError, ColumnTypeError, MissingExtraError
from streaming.format.columns import from_bfloat16, get_encoding, get_mds_encodings, to_bfloat16
from streaming.format.mds import MDSSchema

INTS = {f'{sign}int{bits}': bits for sign in ('', 'u') for bits in (8, 16, 32, 64)}


def there_and_back(name: str, value: Any) -> Any:
    encoding = get_encoding(name)
    data = encoding.encode(value)
    assert isinstance(data, bytes)
    assert encoding.size in (None, len(data))
    return encoding.decode(memoryview(data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.text())
def test_str(value: str) -> None:
    assert there_and_back('str', value) == value


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_int(value: int) -> None:
    assert there_and_back('int', value) == value


@given(st.integers())
def test_str_int(value: int) -> None:
    assert there_and_back('str_int', value) == value


@given(st.floats(allow_nan=False))
def test_str_float(value: float) -> None:
    assert there_and_back('str_float', value) == value


@given(st.decimals(allow_nan=False))
def test_str_decimal(value: Decimal) -> None:
    assert there_and_back('str_decimal', value) == value


@given(JSON)
def test_json(value: Any) -> None:
    assert there_and_back('json', value) == value


@given(st.sampled_from(sorted(INTS)), st.data())
def test_numpy_integers(name: str, data: st.DataObject) -> None:
    info = np.iinfo(name)
    value = data.draw(st.integers(int(info.min), int(info.max)))
    back = there_and_back(name, value)
    assert type(back) is getattr(np, name)
    assert back == value


@given(st.sampled_from([16, 32, 64]), st.data())
def test_numpy_floats(bits: int, data: st.DataObject) -> None:
    value = data.draw(st.floats(width=bits))  # type: ignore[arg-type]
    back = there_and_back(f'float{bits}', value)
    assert back.dtype == f'float{bits}'
    assert back == value or np.isnan(value)


@given(st.booleans())
def test_bool(value: bool) -> None:
    assert there_and_back('bool', value) is value
    assert there_and_back('bool', np.bool_(value)) is value


@given(hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)))
def test_bfloat16_rounds_as_torch_does(values: np.ndarray[Any, Any]) -> None:
    expected = torch.from_numpy(values.copy()).bfloat16()
    found = from_bfloat16(to_bfloat16(values))
    np.testing.assert_array_equal(found, expected.float().numpy())


ARRAYS = st.sampled_from(
    ['uint8', 'int8', 'uint16', 'int16', 'float16', 'uint32', 'int32', 'float32', 'uint64', 'int64', 'float64']
).flatmap(lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))


@given(ARRAYS)
def test_arrays(value: np.ndarray[Any, Any]) -> None:
    shape = ','.join(map(str, value.shape))
    for name in ('ndarray', f'ndarray:{value.dtype}', *([f'ndarray:{value.dtype}:{shape}'] if shape else [])):
        back = there_and_back(name, value)
        assert (back.dtype, back.shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(back, value)
        assert back.flags.writeable
        assert back.flags.owndata or back.base.flags.owndata


def test_arrays_of_any_layout_and_byte_order() -> None:
    value = np.arange(24, dtype='>i4').reshape(4, 6)
    for view in (value, value.T, value[::2, ::-1], np.asfortranarray(value)):
        np.testing.assert_array_equal(there_and_back('ndarray', view), view)


@given(st.lists(st.lists(st.integers(-5, 5), max_size=5), max_size=5))
def test_lists_of_lists(value: list[list[int]]) -> None:
    assert there_and_back('list[list[int8]]', value) == value


def test_lists_of_arrays() -> None:
    value = [np.ones((2, i), np.float32) for i in range(4)]
    for found, wanted in zip(there_and_back('list[ndarray:float32]', value), value, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'CMYK', 'I', 'F', 'I;16'])
@pytest.mark.parametrize('size', [(1, 1), (9, 3), (16, 16)])
def test_pil(mode: str, size: tuple[int, int]) -> None:
    image = Image.new(mode, size, 1)
    back = there_and_back('pil', image)
    assert (back.mode, back.size, back.tobytes()) == (image.mode, image.size, image.tobytes())


def test_png_and_jpeg(tmp_path: Any) -> None:
    image = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    assert there_and_back('png', image).tobytes() == image.tobytes()
    assert there_and_back('jpeg', image).size == (10, 10)
    image.save(tmp_path / 'a.jpg', quality=31)
    opened = Image.open(tmp_path / 'a.jpg')
    assert get_encoding('jpeg').encode(opened) == (tmp_path / 'a.jpg').read_bytes(), 'an image from a file keeps its bytes'


@pytest.mark.parametrize('name', ['pil', 'png', 'jpeg', 'jpeg_array', 'list[png]'])
def test_without_pillow_images_name_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {'pil': bytes(12), 'list[png]': struct.pack('<3I', 0, 1, 0), 'jpeg_array': struct.pack('<2I', 1, 0)}.get(name, b'')
    monkeypatch.setitem(sys.modules, 'PIL', None)
    with pytest.raises(MissingExtraError, match=r"pip install 'streaming-dataset\[images\]'"):
        get_encoding(name).decode(data)


def test_jpeg_arrays() -> None:
    files = []
    for number in range(3):
        file = io.BytesIO()
        Image.new('RGB', (4 + number, 5)).save(file, format='JPEG')
        files.append(file.getvalue())
    for name in ('jpeg_array', 'jpegarray'):
        assert [image.size for image in there_and_back(name, files)] == [(4, 5), (5, 5), (6, 5)]
        assert there_and_back(name, []) == []


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('str', 1),
        ('bytes', 'text'),
        ('int', 1.5),
        ('int', '1'),
        ('int', 1 << 63),
        ('uint8', -1),
        ('uint8', 256),
        ('float32', '1.0'),
        ('float16', 1e10),
        ('bool', 1),
        ('bfloat16', 'x'),
        ('str_int', 1.0),
        ('str_float', '1'),
        ('str_decimal', 1),
        ('json', {1, 2}),
        ('json', object()),
        ('ndarray', [1, 2]),
        ('ndarray', np.array(['a'])),
        ('ndarray:int8', np.zeros(2, np.int16)),
        ('ndarray:int8:2', np.zeros(3, np.int8)),
        ('list[int]', 'abc'),
        ('list[int]', ['a']),
        ('png', b'x'[0]),
        ('jpeg_array', ['a']),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ColumnTypeError, match='takes'):
        get_encoding(name).encode(value)


MANY_DIGITS = 10**5000
NESTED: Any = functools.reduce(lambda inner, _: [inner], range(100_000), 1)

# What raises errors of other kinds on its way to bytes, or to a message.
UNUSUAL: dict[str, tuple[str, Any]] = {
    'a surrogate': ('str', 'a\ud800'),
    'a surrogate in a list': ('list[str]', ['\udfff']),
    'too many digits': ('str_int', MANY_DIGITS),
    'too many digits below zero': ('str_int', -MANY_DIGITS),
    'too many digits in JSON': ('json', {'a': [MANY_DIGITS]}),
    'too many digits for an int': ('int', MANY_DIGITS),
    'too many digits for a float': ('float64', MANY_DIGITS),
    'too many digits for a bfloat16': ('bfloat16', MANY_DIGITS),
    'too many digits for text': ('str', MANY_DIGITS),
    'too large': ('bfloat16', 1e39),
    'nested too deeply for JSON': ('json', NESTED),
    'nested too deeply for a message': ('int', NESTED),
}


@pytest.mark.parametrize('kind', UNUSUAL)
def test_an_unusual_value_is_refused_with_its_column(kind: str) -> None:
    name, value = UNUSUAL[kind]
    with pytest.raises(ColumnTypeError, match=r"column 'x': .*takes"):
        MDSSchema.from_columns({'x': name}).encoder()({'x': value})


@pytest.mark.parametrize('name', [1, None, b'x', ('a',), 'a\ud800'])
def test_names_that_cannot_stand_in_an_index_are_refused(name: Any) -> None:
    with pytest.raises(ArgumentError, match='a column is named'):
        MDSSchema.from_columns({name: 'int', 'x': 'int'})


@pytest.mark.parametrize(
    'name',
    [
        *('nothing', 'ndarray:complex64', 'ndarray:int8:x', 'ndarray:int8:-1', 'ndarray:int8:1:1', 'list[no]', 'list[', ''),
        # Names in an index may be made to exhaust the stack, or memory.
        *('list[' * 5000 + 'int' + ']' * 5000, f'ndarray:int8:{"9," * 64}9', f'ndarray:int8:{1 << 32}', 'x' * 100_000),
    ],
)
def test_unknown_encodings_list_the_known(name: str) -> None:
    with pytest.raises(ArgumentError, match='no encoding') as raised:
        get_encoding(name)
    assert len(str(raised.value)) < 1000


def test_all_names_can_be_had() -> None:
    assert {'int', 'str', 'pil', 'jpeg', 'list[png]', 'ndarray', 'bool', 'bfloat16', 'pkl'} <= get_mds_encodings()
    for name in get_mds_encodings():
        assert get_encoding(name).name == name


NAMES = [*sorted(get_mds_encodings() - {'pkl'}), 'ndarray:int16', 'ndarray:int16:2', 'list[ndarray]', 'list[json]']


@pytest.mark.parametrize('name', NAMES)
@given(data=st.binary(max_size=60))
def test_bytes_of_anything_decode_or_are_a_value_error(name: str, data: bytes) -> None:
    encoding = get_encoding(name)
    if encoding.size is not None and encoding.size != len(data):
        return
    with suppress(ValueError, OverflowError):
        encoding.decode(memoryview(data))
