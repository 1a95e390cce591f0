"""What is fuzzed: functions of hostile bytes that end well or with an error of our tree, and the valid inputs to begin with.

A target raises whatever is not an error of ours; that is a finding. So is more memory or time than the harness allows.
"""

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from streaming import CSVWriter, JSONWriter, LocalDataset, MDSWriter, XSVWriter
from streaming.errors import StreamingError
from streaming.format import entries
from streaming.format.compression import get_codec
from streaming.format.index import FileInfo, ShardInfo, ShardTable
from streaming.readers import open_shard
from streaming.readers.gather import gather
from streaming.readers.mds import MDSReader

__all__ = ['TARGETS', 'seeds', 'try_one']

GOLDEN = Path(__file__).parents[1] / 'golden' / 'datasets'

# What a compressed shard may claim to be, in a target.
_MOST_RAW = 1 << 16

_COLUMNS = (
    {'a': 'int', 'b': 'str', 'c': 'ndarray', 'd': 'json', 'e': 'list[str]', 'f': 'ndarray:int16:3'},
    {'a': 'uint8', 'b': 'str_decimal', 'c': 'ndarray:float32', 'd': 'bytes', 'e': 'list[ndarray]', 'f': 'bool', 'g': 'bfloat16'},
    {'a': 'png', 'b': 'pil', 'c': 'jpeg', 'd': 'jpegarray', 'e': 'list[png]', 'f': 'jpeg_array'},
    {'a': 'float64', 'b': 'int16', 'c': 'int'},
    {'a': 'str_int', 'b': 'str_float', 'c': 'list[list[json]]'},
)


def _samples(number: int) -> Iterator[dict[str, Any]]:
    from PIL import Image

    for count in range(3):
        image = Image.new('RGB', (3 + count, 4), (count, 7, 9))
        values: tuple[dict[str, Any], ...] = (
            {'a': count, 'b': 'wörd', 'c': np.arange(count), 'd': {'x': [1, None]}, 'e': ['y'] * count, 'f': np.ones(3, 'i2')},
            {'a': 7, 'b': b'1.5', 'c': np.ones((2, 2), 'f4'), 'd': b'raw', 'e': [np.arange(2)], 'f': True, 'g': 1.5},
            {'a': image, 'b': image.convert('1'), 'c': b'', 'd': b'', 'e': [image], 'f': b''},
            {'a': 0.5, 'b': -3, 'c': 1 << 40},
            {'a': 10**30, 'b': 2.5, 'c': [[{'a': 1}], []]},
        )
        sample = values[number]
        if number == 2:
            sample.update(dict.fromkeys('cdf', _jpeg(image)))
        yield sample


def _jpeg(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format='JPEG')
    return file.getvalue()


@cache
def _shards() -> tuple[tuple[ShardInfo, bytes], ...]:
    """A small MDS shard of each set of columns, and its bytes."""
    found = []
    with tempfile.TemporaryDirectory(prefix='streaming-fuzz-') as name:
        for number, columns in enumerate(_COLUMNS):
            folder = Path(name) / str(number)
            with MDSWriter(out=str(folder), columns=columns) as writer:
                for sample in _samples(number):
                    writer.write(sample)
            table = ShardTable.from_json((folder / 'index.json').read_bytes(), 'index.json')
            found.append((table[0], (folder / table[0].raw_data.basename).read_bytes()))
    return tuple(found)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix='streaming-fuzz-')


def _empty_folder() -> Path:
    """A folder of this process, emptied."""
    folder = Path(_folder().name)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def fuzz_index(data: bytes) -> None:
    """An index, and the entry of each of its shards, whether it has many that are alike or few."""
    with patch.object(entries, '_LEAST_ROWS', data.count(b' ') % 2 or len(data)):
        table = ShardTable.from_json(data, 'index.json')
    said: list[Any] = [None] * len(table)
    with suppress(ValueError):  # what nothing depends on is not looked at before an entry is read
        said = json.loads(data)['shards']
    names = []
    for number, shard in enumerate(said):
        if shard is not None:
            files = [shard[key] for key in ('raw_data', 'raw_meta', 'zip_data', 'zip_meta') if shard.get(key) is not None]
            names += [file['basename'] for file in files]
            assert table.samples[number] == shard['samples']
            assert table.raw_bytes[number] == sum(file['bytes'] for file in files[: 1 + (shard.get('raw_meta') is not None)])
    assert len(set(names)) == len(names)
    assert not any(part in ('', '.', '..') for name in names for part in name.split('/'))
    for number in range(min(8, len(table))):
        shard = table[number]
        assert not any('..' in file.basename.split('/') for file in (*shard.raw_files, *shard.stored))


def fuzz_mds(data: bytes) -> None:
    """A raw MDS shard; the first byte says which columns, the second how many samples the index says."""
    if len(data) < 2:
        return
    shard, _ = _shards()[data[0] % len(_COLUMNS)]
    raw = data[2:]
    shard = replace(shard, samples=data[1] % 16, raw_data=replace(shard.raw_data, bytes=len(raw)))
    reader = MDSReader.of_bytes(memoryview(raw), 'shard.mds', shard)
    samples: list[dict[str, Any] | None] = [None] * len(reader)
    for number in range(len(reader)):
        with suppress(StreamingError):
            samples[number] = reader[number]
    with ExitStack() as leases:
        mapped = reader.mapped(leases, np.arange(len(samples)))
        columns = None if mapped is None or not samples else gather([mapped], [np.arange(len(samples))], None)
    for name, column in (columns or {}).items():
        for sample, value in zip(samples, column, strict=True):
            assert sample is not None, 'columns of what is no sample'
            assert _content(value) == _content(sample[name]), f'column {name} has another value than its samples'


def _content(value: Any) -> Any:
    # Columns have NumPy's integers and bools where samples may have Python's.
    if isinstance(value, (bool, int, np.integer, np.bool_)):
        return int(value)
    if isinstance(value, list):
        return [_content(item) for item in value]
    return value.tobytes() if hasattr(value, 'tobytes') else repr(value)


def _fuzz_text(kind: str, data: bytes) -> None:
    """The files of a text shard: a byte for the number of samples, two for the length of the data file, data, meta."""
    if len(data) < 3:
        return
    length = int.from_bytes(data[1:3], 'little')
    files = {'raw_data': data[3 : 3 + length], 'raw_meta': data[3 + length :]}
    schema: dict[str, Any] = {'columns': {'a': 'int', 'b': 'str', 'c': 'float'}, 'newline': '\n'}
    if kind != 'json':
        names = ('a', 'b', 'c')
        schema = {'column_names': names, 'column_encodings': ('int', 'str', 'float'), 'newline': '\n'}
        schema['separator'] = ',' if kind == 'csv' else '||'
    folder = _empty_folder()
    for key, content in files.items():
        (folder / key).write_bytes(content)
    infos = {key: FileInfo(key, len(content)) for key, content in files.items()}
    reader = open_shard(folder, ShardInfo(format=kind, samples=data[0] % 16, **infos, **schema))
    for number in range(len(reader)):
        with suppress(StreamingError):
            reader[number]


def fuzz_json(data: bytes) -> None:
    """A JSONL shard."""
    _fuzz_text('json', data)


def fuzz_csv(data: bytes) -> None:
    """A CSV shard."""
    _fuzz_text('csv', data)


def fuzz_xsv(data: bytes) -> None:
    """An XSV shard whose separator has two letters."""
    _fuzz_text('xsv', data)


def _fuzz_codec(name: str, data: bytes) -> None:
    """A stream of a codec; two bytes say how many bytes the index declares. Never gives more than that."""
    if len(data) < 2:
        return
    size = int.from_bytes(data[:2], 'little')
    packed, decompressor, given = data[2:], get_codec(name).decompressor(size), 0
    half = len(packed) // 2
    for part in (packed[:half], packed[half:]):
        given += len(decompressor.feed(part))
        assert given <= size
    assert given + len(decompressor.finish()) == size


def fuzz_dataset(data: bytes) -> None:
    """A whole dataset: two bytes for the length of the index, the index, and the bytes of the files that it names, end to end."""
    if len(data) < 2:
        return
    length = int.from_bytes(data[:2], 'little')
    index, content = data[2 : 2 + length], data[2 + length :]
    table = ShardTable.from_json(index, 'index.json')
    folder = _empty_folder() / 'set'
    folder.mkdir()
    (folder / 'index.json').write_bytes(index)
    for number in range(min(2, len(table))):
        for file in table[number].stored:
            path = folder / file.basename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[: file.bytes])
            content = content[file.bytes :]
    dataset = LocalDataset(str(folder))
    for number in range(min(8, len(dataset))):
        with suppress(StreamingError):
            dataset[number]
    assert [path.name for path in folder.parent.iterdir()] == ['set'], 'nothing is written outside'


TARGETS: dict[str, Callable[[bytes], None]] = {
    'index': fuzz_index,
    'mds': fuzz_mds,
    'json': fuzz_json,
    'csv': fuzz_csv,
    'xsv': fuzz_xsv,
    'dataset': fuzz_dataset,
    **{f'codec_{name}': partial(_fuzz_codec, name) for name in ('zstd', 'gz', 'bz2', 'br', 'snappy')},
}


def try_one(target: str, data: bytes) -> None:
    """Run a target once. Errors of our tree are what hostile bytes should give; all else is raised."""
    try:
        TARGETS[target](data)
    except StreamingError as error:
        if not str(error):
            raise AssertionError('an error that says nothing') from error


def seeds(target: str) -> Iterator[bytes]:
    """Valid inputs of a target."""
    if target == 'index':
        yield from (path.read_bytes() for path in sorted(GOLDEN.glob('*/index.json')))
        yield from (_merged((GOLDEN / name / 'index.json').read_bytes()) for name in ('json', 'csv', 'mds-zstd'))
    elif target == 'mds':
        for number, (shard, raw) in enumerate(_shards()):
            yield bytes([number, shard.samples]) + raw
    elif target.startswith('codec_'):
        for content in (b'', b'a' * 1000, bytes(range(256)) * 4):
            yield len(content).to_bytes(2, 'little') + get_codec(target.removeprefix('codec_')).compress(content)
    else:
        yield from _seeds_of_datasets(target)


def _merged(index: bytes) -> bytes:
    """An index with each entry thrice, in three folders."""
    value = json.loads(index)
    value['shards'] = [
        json.loads(json.dumps(shard).replace('"shard.', f'"a \\u00e9/{number}/shard.'))
        for number in range(3)
        for shard in value['shards'][:2]
    ]
    return json.dumps(value, sort_keys=True).encode()


def _seeds_of_datasets(target: str) -> Iterator[bytes]:
    kinds = ('json', 'csv', 'xsv')
    made = [(target, None)] if target in kinds else [('json', 'gz'), ('csv', None), ('mds', None), ('mds', 'zstd'), ('mds', 'br')]
    for kind, compression in made:
        index, contents = _dataset(kind, compression)
        if target == 'dataset':
            yield len(index).to_bytes(2, 'little') + index + b''.join(contents)
        else:
            yield bytes([4]) + len(contents[0]).to_bytes(2, 'little') + b''.join(contents)


def _dataset(kind: str, compression: str | None) -> tuple[bytes, list[bytes]]:
    """The index and the files of a small dataset."""
    columns = {'a': 'int', 'b': 'str', 'c': 'float64' if kind == 'mds' else 'float'}
    makers: dict[str, Any] = {'mds': MDSWriter, 'json': JSONWriter, 'csv': CSVWriter, 'xsv': partial(XSVWriter, separator='||')}
    with tempfile.TemporaryDirectory(prefix='streaming-fuzz-') as name:
        folder = Path(name) / 'set'
        with makers[kind](out=str(folder), columns=columns, compression=compression) as writer:
            for number in range(4):
                writer.write({'a': number, 'b': f'wörd "{number}"', 'c': number / 2})
        index = (folder / 'index.json').read_bytes()
        files = ShardTable.from_json(index, 'index.json')[0].stored
        return index, [(folder / file.basename).read_bytes() for file in files]
