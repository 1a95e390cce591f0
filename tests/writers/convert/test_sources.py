"""Every kind of source: what comes out is what is in, in parts too small for it, by any number of processes."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from PIL import Image

from streaming import LocalDataset, MDSWriter
from streaming.errors import ArgumentError, FormatError, NotFoundError
from streaming.writers.convert import convert, open_source, plan_parts, prepare
from streaming.writers.convert.sources.iterables import CallSource

TINY: dict[str, Any] = {'workers': 1, 'part_bytes': 2000, 'size_limit': '2kb'}


def converted(source: Any, out: Path, **options: Any) -> list[dict[str, Any]]:
    """What is read back of a conversion in tiny parts."""
    convert(source, out, **{**TINY, **options})
    return list(LocalDataset(out))


def rows(count: int) -> list[dict[str, Any]]:
    return [{'id': number, 'text': f'row {number} ✓' * (number % 5), 'x': number / 8} for number in range(count)]


def jsonl(count: int) -> bytes:
    return b''.join(json.dumps(row).encode() + b'\n' for row in rows(count))


class TestJSONL:
    @pytest.mark.parametrize(
        ('end', 'pack'),
        [
            ('', bytes),
            ('.gz', gzip.compress),
            ('.gz', lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:])),
            ('.zst', zstandard.ZstdCompressor().compress),
            (
                '.zst',
                lambda data: b''.join(
                    zstandard.ZstdCompressor().compress(data[at : at + 999]) for at in range(0, len(data), 999)
                ),
            ),
            ('.bz2', bz2.compress),
            ('.xz', lzma.compress),
        ],
    )
    def test_plain_and_packed(self, tmp_path: Path, end: str, pack: Callable[[bytes], bytes]) -> None:
        (tmp_path / f'a.jsonl{end}').write_bytes(pack(jsonl(300)))
        assert len(plan_parts(prepare(tmp_path, tmp_path / 'out', part_bytes=2000))) > 3
        assert converted(tmp_path / f'a.jsonl{end}', tmp_path / 'out') == rows(300)

    @pytest.mark.parametrize('part_bytes', [5, 50, 61, 1000])
    def test_cut_anywhere(self, tmp_path: Path, part_bytes: int) -> None:
        """Empty lines, a mark at the start, no newline at the end, line ends of Windows: each line is in one part."""
        lines = [json.dumps({'id': number, 'text': 'é' * (number % 9)}) for number in range(20)]
        (tmp_path / 'a.jsonl').write_bytes(b'\xef\xbb\xbf' + '\r\n\n'.join(lines).encode())
        found = converted(tmp_path / 'a.jsonl', tmp_path / 'out', part_bytes=part_bytes)
        assert found == [json.loads(line) for line in lines]

    @pytest.mark.parametrize(('end', 'pack'), [('.gz', gzip.compress), ('.zst', zstandard.ZstdCompressor().compress)])
    def test_what_is_cut_off_is_no_end(self, tmp_path: Path, end: str, pack: Callable[[bytes], bytes]) -> None:
        (tmp_path / f'a.jsonl{end}').write_bytes(pack(jsonl(3000))[:-30])
        with pytest.raises(FormatError, match=r'a\.jsonl\.\w+ cannot be decompressed'):
            converted(tmp_path, tmp_path / 'out')

    def test_columns_that_are_now_this_and_now_that(self, tmp_path: Path) -> None:
        records = [{'a': 1, 'b': 1, 'c': 'x', 'd': [1]}, {'a': 1.5, 'b': 'y', 'c': None, 'd': {}}, {'a': 2, 'b': True, 'c': 'z'}]
        (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, records)))
        summary = convert(tmp_path, tmp_path / 'out', workers=1)
        assert summary.columns == {'a': 'float64', 'b': 'json', 'c': 'json', 'd': 'json'}
        assert list(LocalDataset(tmp_path / 'out')) == [
            {**records[0], 'a': 1.0},
            {**records[1]},
            {**records[2], 'a': 2.0, 'd': None},
        ]

    def test_lists_become_arrays_where_that_is_said(self, tmp_path: Path) -> None:
        (tmp_path / 'a.jsonl').write_text('{"v": [1, 2, 3]}\n{"v": [4]}\n')
        found = converted(tmp_path, tmp_path / 'out', columns={'v': 'ndarray:uint16'})
        assert [(sample['v'].dtype.name, sample['v'].tolist()) for sample in found] == [('uint16', [1, 2, 3]), ('uint16', [4])]
        (tmp_path / 'a.jsonl').write_text('{"v": [1, 2, 3]}\n{"v": [70000]}\n')
        with pytest.raises(FormatError, match=r"line 2: column 'v': .*a value is not of uint16"):
            converted(tmp_path / 'a.jsonl', tmp_path / 'out2', columns={'v': 'ndarray:uint16'})

    def test_nan_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / 'a.jsonl').write_text('{"v": 1.5}\n{"v": NaN}\n')
        assert [str(sample['v']) for sample in converted(tmp_path, tmp_path / 'out')] == ['1.5', 'nan']


class TestCSV:
    RECORDS = (
        {'id': '7', 'zip': '01234', 'x': '1.5', 'text': 'plain'},
        {'id': '-8', 'zip': '99999', 'x': '2', 'text': 'a "quoted", one\r\nwith\nlines'},
        {'id': '9', 'zip': '00000', 'x': '-.5e3', 'text': ''},
    )

    def write(self, path: Path, count: int, delimiter: str = ',') -> list[dict[str, Any]]:
        records = [self.RECORDS[number % 3] | {'id': str(number)} for number in range(count)]
        with path.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(self.RECORDS[0]), delimiter=delimiter, lineterminator='\n')
            writer.writeheader()
            writer.writerows(records)
        return [{'id': int(row['id']), 'zip': row['zip'], 'x': float(row['x']), 'text': row['text']} for row in records]

    @pytest.mark.parametrize('part_bytes', [1, 33, 500])
    @pytest.mark.parametrize('end', ['.csv', '.tsv', '.csv.gz'])
    def test_cut_anywhere(self, tmp_path: Path, part_bytes: int, end: str) -> None:
        plain = tmp_path / f'a{end.removesuffix(".gz")}'
        expected = self.write(plain, 40, '\t' if end == '.tsv' else ',')
        if end.endswith('.gz'):
            (tmp_path / f'a{end}').write_bytes(gzip.compress(plain.read_bytes()))
        job = prepare(tmp_path / f'a{end}', tmp_path / 'out', part_bytes=part_bytes)
        assert job.columns == {'id': 'int', 'zip': 'str', 'x': 'float64', 'text': 'str'}
        assert part_bytes > 100 or len(plan_parts(job)) > 3
        assert converted(tmp_path / f'a{end}', tmp_path / 'out', part_bytes=part_bytes) == expected

    def test_bad_rows_have_lines(self, tmp_path: Path) -> None:
        (tmp_path / 'a.csv').write_text('id,text\n1,"two\nlines"\n\n2\n3,c,d\nx,e\n4,"f"g\n5,h\n')
        convert(tmp_path, tmp_path / 'out', workers=1, on_error='reject', columns={'id': 'int'})
        assert [sample['id'] for sample in LocalDataset(tmp_path / 'out')] == [1, 5]
        found = [json.loads(line) for line in (tmp_path / 'out/rejected/part-00000.jsonl').read_text().splitlines()]
        assert [line['where'].rpartition('line ')[2] for line in found] == ['5', '6', '7', '8']

    def test_files_of_other_columns(self, tmp_path: Path) -> None:
        (tmp_path / 'a.csv').write_text('id,text\n1,a\n')
        (tmp_path / 'b.csv').write_text('id,title\n1,a\n')
        with pytest.raises(FormatError, match=r'b\.csv has the columns id, title, .*a\.csv has id, text'):
            converted(tmp_path, tmp_path / 'out')

    def test_values_as_said(self, tmp_path: Path) -> None:
        (tmp_path / 'a.csv').write_text('a,b,c\n1,true,"[1, 2]"\n0,no,[3]\n')
        found = converted(tmp_path, tmp_path / 'out', columns={'a': 'uint8', 'b': 'bool', 'c': 'json'})
        assert found == [{'a': 1, 'b': True, 'c': [1, 2]}, {'a': 0, 'b': False, 'c': [3]}]


class TestFiles:
    def test_texts(self, tmp_path: Path) -> None:
        for number in range(20):
            path = tmp_path / 'in' / f'{number % 3}' / f'{number:02} ü.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'text {number}\n' * 20)
        (tmp_path / 'in' / '.hidden.txt').write_text('x')
        (tmp_path / 'in' / '0' / 'no.txt').write_bytes(b'\xff\xfe')
        summary = convert(tmp_path / 'in', tmp_path / 'out', on_error='reject', **TINY)
        found = list(LocalDataset(tmp_path / 'out'))
        assert [sample['file'] for sample in found] == sorted(f'{n % 3}/{n:02} ü.txt' for n in range(20))
        assert all(sample['text'] == f'text {int(sample["file"][2:4])}\n' * 20 for sample in found)
        assert (summary.rejected, summary.parts > 1) == (1, True)

    @staticmethod
    def image(path: Path, color: int, kind: str) -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 6), (color, 2 * color, 0)).save(path, kind)
        return path.read_bytes()

    def test_images(self, tmp_path: Path) -> None:
        images = {
            f'{name}/{number}.JPG': self.image(tmp_path / 'in' / name / f'{number}.JPG', number, 'JPEG')
            for name in ('cat', 'ant')
            for number in range(10)
        }
        # Named like the others, but not one: it becomes one.
        self.image(tmp_path / 'in' / 'ant' / 'other.jpg', 200, 'PNG')
        summary = convert(tmp_path / 'in', tmp_path / 'out', **TINY)
        assert summary.columns == {'image': 'jpeg', 'file': 'str', 'class': 'str', 'label': 'int'}
        found = list(LocalDataset(tmp_path / 'out'))
        assert [(sample['class'], sample['label']) for sample in found] == [('ant', 0)] * 11 + [('cat', 1)] * 10
        for sample in found:
            if sample['file'] in images:
                assert sample['image'].tobytes() == Image.open(io.BytesIO(images[sample['file']])).tobytes()
        assert images['cat/3.JPG'] in b''.join(path.read_bytes() for path in (tmp_path / 'out').rglob('*.mds'))

    def test_image_splits_and_other_kinds(self, tmp_path: Path) -> None:
        for split, name in itertools.product(('train', 'val'), ('a', 'b')):
            self.image(tmp_path / 'in' / split / name / '0.png', 3, 'PNG')
        summary = convert(tmp_path / 'in', tmp_path / 'out', **TINY)
        assert summary.samples_by_split == {'train': 2, 'val': 2}
        assert [sample['label'] for sample in LocalDataset(tmp_path / 'out', split='val')] == [0, 1]
        self.image(tmp_path / 'in' / 'val' / 'b' / '1.webp', 3, 'WEBP')
        assert prepare(tmp_path / 'in', tmp_path / 'out2').columns['image'] == 'bytes'
        found = converted(tmp_path / 'in' / 'val', tmp_path / 'out3', columns={'image': 'pil'})
        assert [sample['image'].size for sample in found] == [(8, 6)] * 3
        self.image(tmp_path / 'in' / 'val' / 'lost.png', 3, 'PNG')
        with pytest.raises(ArgumentError, match='lost'):
            prepare(tmp_path / 'in' / 'val', tmp_path / 'out4')


class TestWebDataset:
    def write(self, path: Path, count: int, mode: Any = 'w') -> None:
        with tarfile.open(path, mode) as tar:
            for number in range(count):
                array = io.BytesIO()
                np.save(array, np.arange(number, dtype=np.int16))
                parts = {
                    'txt': f'text {number}'.encode(),
                    'cls': f'{number}\n'.encode(),
                    'json': json.dumps({'n': number}).encode(),
                    'npy': array.getvalue(),
                    'seg.bin': bytes([number % 256]),
                }
                for extension, data in parts.items():
                    member = tarfile.TarInfo(f'{"deep/" * 30}sample{number:04}.{extension}')
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))

    @pytest.mark.parametrize(('end', 'mode'), [('.tar', 'w'), ('.tar.gz', 'w:gz'), ('.tgz', 'w:gz')])
    def test_samples(self, tmp_path: Path, end: str, mode: Any) -> None:
        self.write(tmp_path / f'a{end}', 40, mode)
        job = prepare(tmp_path, tmp_path / 'out', part_bytes=20_000)
        assert job.columns == {
            '__key__': 'str',
            'txt': 'str',
            'cls': 'int',
            'json': 'json',
            'npy': 'ndarray:int16',
            'seg.bin': 'bytes',
        }
        assert (len(plan_parts(job)) > 3) == (end == '.tar')
        found = converted(tmp_path / f'a{end}', tmp_path / 'out', part_bytes=20_000)
        assert [sample['cls'] for sample in found] == list(range(40))
        assert found[7]['__key__'].endswith('deep/sample0007')
        assert (found[7]['txt'], found[7]['json'], found[7]['npy'].tolist(), found[7]['seg.bin']) == (
            'text 7',
            {'n': 7},
            list(range(7)),
            b'\7',
        )

    def test_a_tar_that_is_cut_off(self, tmp_path: Path) -> None:
        self.write(tmp_path / 'b.tar', 5)
        data = (tmp_path / 'b.tar').read_bytes().rstrip(b'\0')
        (tmp_path / 'b.tar').write_bytes(data[: len(data) - 700])
        with pytest.raises(FormatError, match=r'b\.tar is'):
            converted(tmp_path / 'b.tar', tmp_path / 'out')


class TestArrow:
    TABLE = pa.table(
        {
            'i': pa.array(range(100), pa.int32()),
            's': pa.array([f'é{number}' for number in range(100)]),
            'big': pa.array([b'x' * (number % 9) for number in range(100)], pa.large_binary()),
            'v': pa.array([[number / 2] * (number % 4) for number in range(100)], pa.list_(pa.float32())),
            'f': pa.array([[number, 1] for number in range(100)], pa.list_(pa.uint8(), 2)),
            'd': pa.array([str(number % 3) for number in range(100)]).dictionary_encode(),
            'b': pa.array([number % 2 == 0 for number in range(100)]),
            't': pa.array([number * 10**9 for number in range(100)], pa.timestamp('ns')),
            'n': pa.array([None if number % 10 == 3 else number for number in range(100)]),
            'm': pa.array([{'a': number, 'l': ['x']} for number in range(100)]),
        }
    )
    COLUMNS: ClassVar = {
        'i': 'int32',
        's': 'str',
        'big': 'bytes',
        'v': 'ndarray:float32',
        'f': 'ndarray:uint8:2',
        'd': 'str',
        'b': 'bool',
        't': 'str',
        'n': 'json',
        'm': 'json',
    }

    @pytest.mark.parametrize('kind', ['file', 'stream', 'parquet'])
    def test_types(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / ('a.parquet' if kind == 'parquet' else 'a.arrow')
        if kind == 'parquet':
            import pyarrow.parquet as pq

            pq.write_table(self.TABLE, path, row_group_size=30)
        else:
            with (pa.ipc.new_file if kind == 'file' else pa.ipc.new_stream)(path, self.TABLE.schema) as writer:
                writer.write_table(self.TABLE, max_chunksize=17)
        summary = convert(path, tmp_path / 'out', **TINY)
        assert summary.columns == self.COLUMNS
        assert summary.parts > 2
        found = list(LocalDataset(tmp_path / 'out'))
        assert [sample['i'] for sample in found] == list(range(100))
        for expected, sample in zip(self.TABLE.to_pylist(), found, strict=True):
            assert sample['v'].tolist() == expected['v'] and sample['f'].tolist() == expected['f']
            assert sample['t'] == expected['t'].isoformat()
            for name in ('s', 'big', 'd', 'b', 'n', 'm'):
                assert sample[name] == expected[name]

    def test_a_large_row_group_is_read_by_several(self, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(self.TABLE, tmp_path / 'a.parquet')
        job = prepare(tmp_path / 'a.parquet', tmp_path / 'out', select=['i'], part_bytes=900)
        assert len(plan_parts(job)) > 4
        found = converted(tmp_path / 'a.parquet', tmp_path / 'out', select=['i'], part_bytes=900)
        assert [sample['i'] for sample in found] == list(range(100))

    def test_no_parquet(self, tmp_path: Path) -> None:
        (tmp_path / 'a.parquet').write_bytes(b'PAR1 and no more')
        with pytest.raises(FormatError, match=r'a\.parquet is no Parquet file'):
            converted(tmp_path, tmp_path / 'out')
        (tmp_path / 'b.arrow').write_bytes(b'nothing of the kind')
        with pytest.raises(FormatError, match=r'b\.arrow is no Arrow file'):
            converted(tmp_path / 'b.arrow', tmp_path / 'out')

    def test_a_saved_dataset_of_hugging_face(self, tmp_path: Path) -> None:
        """As `datasets.DatasetDict.save_to_disk` lays it out: streams, and files of images as bytes and path."""
        picture = io.BytesIO()
        Image.new('RGB', (4, 4)).save(picture, 'PNG')
        (tmp_path / 'in').mkdir()
        (tmp_path / 'in' / 'dataset_dict.json').write_text('{"splits": ["train", "test"]}')
        for split, count in (('train', 30), ('test', 10)):
            folder = tmp_path / 'in' / split
            folder.mkdir()
            names = [f'data-0000{number}-of-00002.arrow' for number in range(2)]
            (folder / 'state.json').write_text(json.dumps({'_data_files': [{'filename': name} for name in names]}))
            (folder / 'dataset_info.json').write_text('{}')
            for number, name in enumerate(names):
                table = pa.table(
                    {
                        'id': range(number * count // 2, (number + 1) * count // 2),
                        'image': [{'bytes': picture.getvalue(), 'path': None}] * (count // 2),
                    }
                )
                with pa.ipc.new_stream(folder / name, table.schema) as writer:
                    writer.write_table(table, max_chunksize=4)
        summary = convert(tmp_path / 'in', tmp_path / 'out', **TINY)
        assert summary.columns == {'id': 'int', 'image': 'png'}
        assert summary.samples_by_split == {'test': 10, 'train': 30}
        for split, count in (('train', 30), ('test', 10)):
            found = list(LocalDataset(tmp_path / 'out', split=split))
            assert [sample['id'] for sample in found] == list(range(count))
            assert found[0]['image'].size == (4, 4)
        assert len(converted(tmp_path / 'in' / 'test', tmp_path / 'out2')) == 10


class TestMDS:
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Path:
        columns = {'id': 'int', 'x': 'float64', 'image': 'jpeg', 'p': 'pkl'}
        with MDSWriter(out=tmp_path / 'in', columns=columns, compression='zstd', hashes=['xxh64'], size_limit='10kb') as writer:
            for number in range(100):
                image = Image.new('RGB', (8, 8), (number, 0, 0))
                writer.write({'id': number, 'x': number / 2, 'image': image, 'p': {number}})
        return tmp_path / 'in'

    def test_other_shards(self, dataset: Path, tmp_path: Path) -> None:
        summary = convert(dataset, tmp_path / 'out', compression='gz', **TINY)
        assert summary.parts > 5
        old, new = (list(LocalDataset(folder, allow_unsafe_types=True)) for folder in (dataset, tmp_path / 'out'))
        assert [{**sample, 'image': 0} for sample in new] == [{**sample, 'image': 0} for sample in old]
        assert [sample['image'].tobytes() for sample in new] == [sample['image'].tobytes() for sample in old]

    def test_other_encodings_and_columns(self, dataset: Path, tmp_path: Path) -> None:
        found = converted(dataset, tmp_path / 'out', columns={'x': 'float32', 'image': 'png'}, select=['image', 'x', 'id'])
        assert [(sample['id'], sample['x']) for sample in found] == [(n, n / 2) for n in range(100)]
        assert LocalDataset(tmp_path / 'out')._table[0].column_encodings == ('int', 'png', 'float32')
        assert found[3]['image'].format == 'PNG'

    def test_what_runs_code_is_only_copied(self, dataset: Path, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match='column p can run any code'):
            converted(dataset, tmp_path / 'out', function=lambda record: record)

    def test_splits_and_merged(self, dataset: Path, tmp_path: Path) -> None:
        convert(dataset, tmp_path / 'both', splits={'a': 1, 'b': 1}, **TINY)
        summary = convert(tmp_path / 'both', tmp_path / 'out', select=['id'], **TINY)
        assert list(summary.samples_by_split) == ['a', 'b']
        assert sum(summary.samples_by_split.values()) == 100
        convert(dataset, tmp_path / 'one', **TINY)
        assert [sample['id'] for sample in converted(tmp_path / 'one', tmp_path / 'out2', select=['id'])] == list(range(100))


def numbers(start: int) -> Iterator[dict[str, int]]:
    yield from ({'id': start + number} for number in range(10))


class Squares(Sequence[Any]):
    def __len__(self) -> int:
        return 50

    def __getitem__(self, number: Any) -> Any:
        return {'id': number * number}


class TestIterables:
    @pytest.mark.parametrize('make', [list, iter, lambda records: lambda: (record for record in records), tuple])
    def test_anything_that_can_be_iterated(self, tmp_path: Path, make: Any) -> None:
        assert converted(make(rows(2500)), tmp_path / 'out', part_bytes='8kb') == rows(2500)

    def test_a_limit(self, tmp_path: Path) -> None:
        assert converted(({'x': n} for n in itertools.count()), tmp_path / 'out', limit=1500)[-1] == {'x': 1499}

    def test_a_sequence_and_calls_in_processes(self, tmp_path: Path) -> None:
        assert converted(Squares(), tmp_path / 'a', workers=2, part_bytes=100) == [{'id': n * n} for n in range(50)]
        assert converted(CallSource(numbers, range(0, 50, 10)), tmp_path / 'b', workers=2) == [{'id': n} for n in range(50)]

    def test_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / 'my_records.py').write_text('def make():\n    yield from ({"id": n} for n in range(5))\n')
        monkeypatch.chdir(tmp_path)
        assert converted('my_records:make', tmp_path / 'out') == [{'id': n} for n in range(5)]
        with pytest.raises(ArgumentError, match=r"'my_records:nothing' cannot be loaded"):
            convert('my_records:nothing', tmp_path / 'out2')

    @pytest.mark.parametrize('source', [5, {'a': 1}, b'x', None])
    def test_no_source(self, tmp_path: Path, source: Any) -> None:
        with pytest.raises(ArgumentError, match='no records can be read from'):
            convert(source, tmp_path / 'out')

    def test_no_records(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match='record 1: a record is a mapping'):
            convert([{'a': 1}, 5], tmp_path / 'out', workers=1)


class TestWhere:
    """Places: lists, globs, folders, other stores, odd names."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ('a.jsonl', 'b [1].jsonl', 'sub/c é.jsonl', 'sub/deep/d.jsonl', '_tmp/e.jsonl', 'notes.md'):
            path = tmp_path / 'in put' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({'name': name}) + '\n')
        return tmp_path / 'in put'

    @pytest.mark.parametrize(
        ('where', 'found'),
        [
            ('', ['a', 'b [1]', 'sub/c é', 'sub/deep/d']),
            ('/', ['a', 'b [1]', 'sub/c é', 'sub/deep/d']),
            ('/*.jsonl', ['a', 'b [1]']),
            ('/**/*.jsonl', ['_tmp/e', 'a', 'b [1]', 'sub/c é', 'sub/deep/d']),
            ('/sub/../b [1].jsonl', ['b [1]']),
            ('/s[tu]b/?*.jsonl', ['sub/c é']),
            ('/_tmp/*.jsonl', ['_tmp/e']),
        ],
    )
    def test_paths(self, folder: Path, tmp_path: Path, where: str, found: list[str]) -> None:
        names = [sample['name'] for sample in converted(f'{folder}{where}', tmp_path / 'out')]
        assert names == [f'{name}.jsonl' for name in found]

    def test_several(self, folder: Path, tmp_path: Path) -> None:
        found = converted([folder / 'sub', folder / 'a.jsonl', f'{folder}/*.jsonl'], tmp_path / 'out')
        assert [sample['name'] for sample in found] == ['sub/c é.jsonl', 'sub/deep/d.jsonl', 'a.jsonl', 'b [1].jsonl']

    def test_relative_to_the_working_directory(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder / 'sub')
        convert('../a.jsonl', '../out/../out put', **TINY)
        assert len(LocalDataset(folder / 'out put')) == 1

    def test_file_urls_and_memory(self, folder: Path, tmp_path: Path) -> None:
        from streaming.store import open_store

        assert len(converted(f'file://{str(folder).replace(" ", "%20")}/sub', tmp_path / 'out')) == 2
        open_store('mem://convert-source').put('deep/x.jsonl', jsonl(100))
        assert converted('mem://convert-source', tmp_path / 'out2') == rows(100)

    def test_a_kind_that_nobody_knows(self, tmp_path: Path) -> None:
        (tmp_path / 'a.xyz').write_bytes(jsonl(3))
        with pytest.raises(ArgumentError, match=r'cannot be told from the names of its 1 files \(a\.xyz'):
            open_source(tmp_path)
        with pytest.raises(ArgumentError, match='no kind of source'):
            open_source(tmp_path, 'xyz')
        assert converted(tmp_path / 'a.xyz', tmp_path / 'out', kind='jsonl') == rows(3)
        (tmp_path / 'b.xyz').write_bytes(b'')
        with pytest.raises(NotFoundError, match=r'no file that ends in \.jsonl'):
            open_source(tmp_path, 'jsonl')
