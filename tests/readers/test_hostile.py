"""Shards that were cut, flipped or made up: a sample, or an error of ours that names the file."""

import io
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from streaming import JSONWriter, LocalDataset, MDSWriter, XSVWriter
from streaming.errors import ArgumentError, CorruptError, FormatError, NotFoundError, StreamingError
from streaming.format.index import ShardTable
from streaming.readers import open_shard
from streaming.readers.pool import ReaderPool
from streaming.readers.samples import SampleReader
from streaming.store.local import LocalStore

COLUMNS = {'a': 'int', 'b': 'str', 'c': 'ndarray', 'd': 'json', 'e': 'list[str]', 'f': 'ndarray:int16:3'}


def sample(number: int) -> dict[str, Any]:
    return {
        'a': number,
        'b': f'wörd {number}',
        'c': np.arange(number, dtype=np.uint8),
        'd': {'x': [number, None]},
        'e': ['y'] * number,
        'f': np.arange(3, dtype=np.int16),
    }


def write(folder: Path, kind: str, compression: str | None = None) -> Path:
    if kind == 'mds':
        writer: Any = MDSWriter(out=str(folder), columns=COLUMNS, compression=compression)
    elif kind == 'json':
        writer = JSONWriter(out=str(folder), columns={'a': 'int', 'b': 'str'}, compression=compression)
    else:
        writer = XSVWriter(out=str(folder), columns={'a': 'int', 'b': 'str'}, separator='|', compression=compression)
    with writer:
        for number in range(4):
            writer.write({key: value for key, value in sample(number).items() if kind == 'mds' or key in 'ab'})
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != 'index.json')


def read_all(folder: Path, **options: Any) -> list[Any]:
    return list(LocalDataset(folder, **options))


KINDS = [('mds', None), ('json', None), ('xsv', None), ('mds', 'zstd'), ('mds', 'gz'), ('json', 'zstd')]


@pytest.mark.parametrize(('kind', 'compression'), KINDS)
def test_truncated_at_every_byte(tmp_path: Path, kind: str, compression: str | None) -> None:
    folder = write(tmp_path / 'set', kind, compression)
    assert len(read_all(folder)) == 4
    for path in files_of(folder):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(FormatError, match=path.name.split('.meta')[0]):
                read_all(folder)
        path.write_bytes(data)


@pytest.mark.parametrize(('kind', 'compression'), KINDS)
def test_flipped_at_every_byte(tmp_path: Path, kind: str, compression: str | None) -> None:
    folder = write(tmp_path / 'set', kind, compression)
    for path in files_of(folder):
        data = bytearray(path.read_bytes())
        for where in range(len(data)):
            for flip in (0x01, 0x80, 0xFF):
                data[where] ^= flip
                path.write_bytes(data)
                data[where] ^= flip
                try:
                    found = read_all(folder)
                except FormatError as error:
                    assert 'shard.00000' in str(error)  # noqa: PT017
                else:
                    # A flip in a value makes another value; nothing tells without a hash.
                    assert len(found) == 4
        path.write_bytes(data)


def test_columns_are_those_of_the_samples_whatever_byte_is_flipped(tmp_path: Path) -> None:
    """Whole columns are refused where a sample would be, and say the same where it is not."""
    folder = write(tmp_path / 'set', 'mds')
    (path,) = files_of(folder)
    table = ShardTable.from_json((folder / 'index.json').read_bytes(), 'index.json')
    data = bytearray(path.read_bytes())
    for where in range(len(data)):
        data[where] ^= 0xFF
        path.write_bytes(data)
        data[where] ^= 0xFF
        try:
            samples = read_all(folder)
        except FormatError:
            samples = None
        try:
            columns = SampleReader(table, ReaderPool(lambda shard: open_shard(folder, table[shard]), 1)).columns(np.arange(4))
        except FormatError:  # the shard as such
            assert samples is None
            continue
        if samples is None:
            assert columns is None
        elif columns is not None:
            assert list(columns) == list(samples[0])
            for name, column in columns.items():
                for value, sample in zip(column, samples, strict=True):
                    np.testing.assert_array_equal(value, sample[name])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 40))
def test_made_up_shards(tmp_path_factory: pytest.TempPathFactory, data: bytes, samples: int) -> None:
    folder = write(tmp_path_factory.mktemp('made') / 'set', 'mds')
    (path,) = files_of(folder)
    index = json.loads((folder / 'index.json').read_text())
    data = struct.pack('<I', samples) + data
    path.write_bytes(data)
    index['shards'][0]['raw_data']['bytes'] = len(data)
    index['shards'][0]['samples'] = samples
    (folder / 'index.json').write_text(json.dumps(index))
    try:
        read_all(folder)
    except FormatError as error:
        assert 'set/' in str(error)  # noqa: PT017


def test_missing_files_are_named(tmp_path: Path) -> None:
    for kind, compression in KINDS:
        folder = write(tmp_path / f'{kind}-{compression}', kind, compression)
        files_of(folder)[0].unlink()
        with pytest.raises(NotFoundError, match='shard.00000'):  # noqa: RUF043
            read_all(folder)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    for kind, compression in KINDS:
        folder = write(tmp_path / f'{kind}-{compression}', kind, compression)
        path = files_of(folder)[0]
        path.unlink()
        path.mkdir()
        with pytest.raises(FormatError, match=f'{path.name} is a folder'):
            read_all(folder)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to('/dev/zero')


def _socket(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as server:
        patch.chdir(path.parent)  # names of sockets are short
        server.bind(path.name)


@pytest.mark.parametrize('make', [_pipe, _endless, _socket])
def test_what_is_no_file_keeps_nobody(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """An archive may hold such things, and opening a pipe waits for a writer."""
    for kind, compression in (('mds', None), ('mds', 'zstd'), ('xsv', None)):
        for name in (
            'index.json',
            *(path.name for path in files_of(write(tmp_path / f'{kind}-{compression}', kind, compression))),
        ):
            folder = write(tmp_path / f'{kind}-{compression}-{name}', kind, compression)
            (folder / name).unlink()
            make(folder / name)
            with pytest.raises(CorruptError, match=f'{name} is a pipe, a device or a socket'):
                read_all(folder)
            with pytest.raises(CorruptError, match='not a file'):
                LocalStore(folder).get(name)


def test_an_index_whose_columns_lie(tmp_path: Path) -> None:
    folder = write(tmp_path / 'set', 'mds')
    text = (folder / 'index.json').read_text()
    for change in (
        ('"int"', '"int32"'),
        ('"int"', '"nothing"'),
        ('[8, null', '[4, null'),
        ('"ndarray:int16:3"', '"ndarray:int16:4"'),
    ):
        assert change[0] in text
        (folder / 'index.json').write_text(text.replace(*change))
        with pytest.raises(FormatError):
            read_all(folder)


def test_pickles_only_on_request(tmp_path: Path) -> None:
    folder = tmp_path / 'set'
    with MDSWriter(out=str(folder), columns={'p': 'pkl', 'l': 'list[pkl]', 'a': 'int'}) as writer:
        writer.write({'p': {'x'}, 'l': [1, 'y'], 'a': 1})
    with pytest.raises(ArgumentError, match='allow_unsafe_types'):
        read_all(folder)
    assert read_all(folder, columns=['a']) == [{'a': 1}]
    assert read_all(folder, allow_unsafe_types=True) == [{'p': {'x'}, 'l': [1, 'y'], 'a': 1}]


def test_image_bombs_keep_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new('L', (300, 300)).save(file, format='PNG')
    folder = tmp_path / 'set'
    with MDSWriter(out=str(folder), columns={'i': 'png'}) as writer:
        writer.write({'i': file.getvalue()})
    assert read_all(folder)[0]['i'].size == (300, 300)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(FormatError, match='decompression bomb'):
        read_all(folder)


def test_raw_pixels_are_held_against_their_size(tmp_path: Path) -> None:
    folder = tmp_path / 'set'
    with MDSWriter(out=str(folder), columns={'i': 'pil'}) as writer:
        writer.write({'i': struct.pack('<III', 1 << 31, 1 << 31, 1) + b'L' + b'few'})
    with pytest.raises(FormatError, match='pixels'):
        read_all(folder)


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    folder = tmp_path / 'set'
    with MDSWriter(out=str(folder), columns={'j': 'json'}) as writer:
        writer.write({'j': b'[' * 1_000_000})
    with pytest.raises(FormatError, match=r'shard\.00000\.mds, sample 0'):
        read_all(folder)


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / 'set'
    with MDSWriter(out=str(folder), columns={'s': 'str'}) as writer:
        writer.write({'s': b'\xff\xfe'})
    with pytest.raises(FormatError, match="column 's'"):
        read_all(folder)


@pytest.mark.parametrize('compression', ['zstd', 'gz', 'bz2', 'br', 'snappy'])
def test_a_bomb_in_a_shard_stops_early(tmp_path: Path, compression: str) -> None:
    from streaming.format.compression import get_codec

    folder = write(tmp_path / 'set', 'mds', compression)
    (path,) = files_of(folder)
    path.write_bytes(get_codec(compression).compress(bytes(50 << 20)))
    with pytest.raises(CorruptError, match=path.name):
        read_all(folder)


def test_errors_survive_a_worker() -> None:
    for kind in StreamingError.__subclasses__():
        assert str(kind('one message')) == 'one message'
