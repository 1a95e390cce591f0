"""The tables of docs/format.md say what is so, and leave out nothing."""

import io
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from streaming.format.columns import get_encoding, get_mds_encodings
from streaming.format.compression import get_codec, get_compressions
from streaming.format.hashing import get_hashes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'format.md').read_text()


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the table under a title, by their first cell."""
    section = PAGE.partition(f'\n## {title}\n')[2].partition('\n## ')[0]
    cells = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in section.splitlines() if line.startswith('| `')]
    return {row[0].strip('` '): row[1:] for row in cells}


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new('RGB', (2, 2)).save(file, format='JPEG')
    return file.getvalue()


IMAGE = Image.new('RGB', (2, 2))
# The names of the table that stand for many, and a value for each that is not a number.
EXAMPLES = {'ndarray:DTYPE': 'ndarray:int16', 'ndarray:DTYPE:SHAPE': 'ndarray:int16:2,3', 'list[ENCODING]': 'list[str]'}
VALUES: dict[str, Any] = {
    **{'bytes': bytearray(b'x'), 'str': 'x', 'str_decimal': Decimal('1.5'), 'str_float': 1.5, 'bool': True},
    **{'json': {'a': 1}, 'pkl': {'a': 1}, 'list[str]': ['x'], 'jpeg_array': [jpeg()], 'jpegarray': [jpeg()]},
    **{'ndarray': np.ones((2, 2), 'f4'), 'ndarray:int16': np.ones(2, 'i2'), 'ndarray:int16:2,3': np.ones((2, 3), 'i2')},
    **dict.fromkeys(('pil', 'png', 'jpeg'), IMAGE),
    **{f'list[{name}]': [IMAGE] for name in ('pil', 'png', 'jpeg')},
}


def batch_of(value: Any) -> str:
    try:
        batch = default_collate([value, value])
    except TypeError:
        return 'refused'
    if isinstance(batch, torch.Tensor):
        return f'`{batch.dtype}`'
    return 'by value' if isinstance(value, (dict, list)) else f'list of `{type(batch[0]).__name__}`'


def type_of(value: Any) -> str:
    if isinstance(value, Image.Image):
        return 'PIL.Image.Image'
    kind = type(value)
    return kind.__name__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__name__}'


def test_every_encoding_is_in_the_table() -> None:
    assert set(rows('Encodings')) == get_mds_encodings() | set(EXAMPLES)


@pytest.mark.parametrize('name', rows('Encodings'))
def test_what_it_says_of_an_encoding(name: str) -> None:
    _, _, out, batch, size, old = rows('Encodings')[name]
    name = EXAMPLES.get(name, name)
    encoding = get_encoding(name)
    value = encoding.decode(memoryview(encoding.encode(VALUES.get(name, 1))))
    assert out == f'`{type_of(value)}`'
    assert batch == batch_of(value)
    assert size == ('varies' if encoding.size is None else 'dtype and shape' if ':' in name else str(encoding.size))
    assert old == ('yes' if encoding.needs is None else 'no')


def test_every_codec_is_in_the_table() -> None:
    table = rows('Codecs')
    assert set(table) == {name for name in get_compressions() if ':' not in name}
    for name, (levels, default, _) in table.items():
        codec = get_codec(name)
        assert levels == ('none' if codec.levels is None else f'{codec.levels[0]} to {codec.levels[-1]}')
        assert default == ('none' if codec.levels is None else str(codec.level))


def test_every_hash_is_named() -> None:
    section = PAGE.partition('\n## Hashes\n')[2].partition('\n## ')[0]
    named = set(re.findall(r'`([a-z0-9_]+)`', section)) - {'hashlib', 'validate_hash'}
    assert named <= get_hashes()
    assert {name for name in get_hashes() if name.startswith('xxh')} <= named


def test_its_example_runs() -> None:
    (example,) = re.findall(r'^```python\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)
    assert subprocess.run([sys.executable, '-c', example], capture_output=True, check=True, cwd=ROOT).stdout == b'21.5\n'


_PLUGIN = """
import zlib
from streaming.format.columns import Encoding
from streaming.format.compression import Codec, get_codec

class Celsius(Encoding):
    name, size, needs = 'celsius', 2, 'celsius'
    def encode(self, value):
        return round(value * 100).to_bytes(2, 'little', signed=True)
    def decode(self, data):
        return int.from_bytes(data, 'little', signed=True) / 100

class Twice(Codec):
    name = 'twice'
    def compress(self, data):
        return get_codec('gz').compress(data)
    def decompressor(self, size):
        return get_codec('gz').decompressor(size)

class CRC32:
    def __init__(self):
        self.value = 0
    def update(self, data):
        self.value = zlib.crc32(data, self.value)
    def hexdigest(self):
        return f'{self.value:08x}'
"""

_ENTRY_POINTS = """
[streaming.encodings]
celsius = celsius_plugin:Celsius
[streaming.codecs]
twice = celsius_plugin:Twice
[streaming.hashes]
crc32 = celsius_plugin:CRC32
"""

_USE = """
import sys
from streaming import LocalDataset, MDSWriter
with MDSWriter(out=sys.argv[1], columns={'t': 'celsius'}, compression='twice', hashes=['crc32']) as writer:
    writer.write({'t': 21.5})
print(LocalDataset(sys.argv[1])[0])
"""


def test_another_packages_encoding_codec_and_hash_are_found_by_their_entry_points(tmp_path: Path) -> None:
    (tmp_path / 'celsius_plugin.py').write_text(_PLUGIN)
    info = tmp_path / 'celsius_plugin-1.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: celsius-plugin\nVersion: 1\n')
    (info / 'entry_points.txt').write_text(_ENTRY_POINTS)
    code = f'import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{_USE}'
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'set')], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'t': 21.5}\n"
    index = (tmp_path / 'set' / 'index.json').read_text()
    assert '"extensions": ["celsius"]' in index
    assert '"crc32"' in index
