"""Converting as a whole: the same for any number of workers, in order, shuffled, split, limited, and what is refused."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streaming import LocalDataset, MDSWriter
from streaming.errors import AlreadyExistsError, ArgumentError, FormatError, NotFoundError
from streaming.writers import convert as package
from streaming.writers.convert import ConvertSummary, Progress, convert, plan_parts, prepare

COUNT = 1000
SMALL: dict[str, Any] = {'part_bytes': '8kb', 'size_limit': '4kb'}


def record(number: int) -> dict[str, Any]:
    return {'id': number, 'text': f'text {number} ' * (number % 7), 'score': number / 4}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / 'in' / 'lines of text.jsonl'
    path.parent.mkdir()
    path.write_text(''.join(json.dumps(record(number)) + '\n' for number in range(COUNT)))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and '.convert' not in path.parts
    }


def ids(folder: Path) -> list[int]:
    return [sample['id'] for sample in LocalDataset(folder)]


@pytest.mark.parametrize(
    ('several', 'options'),
    [((2, 7), {}), ((2, 7), {'shuffle_seed': 3, 'splits': {'train': 0.8, 'val': 0.2}, 'compression': 'zstd'})],
)
def test_the_same_for_any_number_of_workers(
    lines: Path, tmp_path: Path, several: tuple[int, ...], options: dict[str, Any]
) -> None:
    outputs = []
    for workers in (1, *several):
        out = tmp_path / f'out{workers}'
        summary = convert(lines, out, workers=workers, hashes=['xxh64'], **SMALL, **options)
        assert (summary.samples, summary.records) == (COUNT, COUNT)
        assert summary.parts >= 7
        outputs.append(files(out))
    assert all(output == outputs[0] for output in outputs)
    assert len(outputs[0]) > 15


def test_parquet_and_jsonl_become_the_same_samples(lines: Path, tmp_path: Path) -> None:
    path = tmp_path / 'in' / 'ünï ✓.parquet'
    pq.write_table(pa.Table.from_pylist([record(number) for number in range(COUNT)]), path, row_group_size=150)
    summary = convert(path, tmp_path / 'parquet', workers=1, **SMALL)
    convert(lines, tmp_path / 'jsonl', workers=1, **SMALL)
    assert summary.columns == {'id': 'int', 'text': 'str', 'score': 'float64'}
    assert list(LocalDataset(tmp_path / 'parquet')) == list(LocalDataset(tmp_path / 'jsonl'))
    assert list(LocalDataset(tmp_path / 'parquet')) == [record(number) for number in range(COUNT)]


def test_the_package_can_be_called(lines: Path, tmp_path: Path) -> None:
    assert package(lines, tmp_path / 'out', workers=1).samples == COUNT  # type: ignore[operator]


def test_a_shuffle_is_one_of_all_samples(lines: Path, tmp_path: Path) -> None:
    orders = []
    for seed in (1, 2):
        convert(lines, tmp_path / f'{seed}', workers=1, shuffle_seed=seed, **SMALL)
        order = ids(tmp_path / f'{seed}')
        assert sorted(order) == list(range(COUNT))
        orders.append(order)
        # Of a shuffle, the mean distance of what were neighbours is a third of all.
        distances = [abs(a - b) for a, b in pairwise(order)]
        assert 0.28 * COUNT < sum(distances) / len(distances) < 0.38 * COUNT
        assert not list((tmp_path / f'{seed}' / '.convert').glob('spill*'))
    assert orders[0] != orders[1]


def test_splits_hold_each_sample_once(lines: Path, tmp_path: Path) -> None:
    summary = convert(lines, tmp_path / 'out', workers=1, splits={'train': 3, 'val/a': 1}, **SMALL)
    train, val = ids(tmp_path / 'out' / 'train'), ids(tmp_path / 'out' / 'val' / 'a')
    assert sorted(train + val) == list(range(COUNT))
    assert summary.samples_by_split == {'train': len(train), 'val/a': len(val)}
    assert 0.65 * COUNT < len(train) < 0.85 * COUNT
    assert train == sorted(train)
    assert not (tmp_path / 'out' / 'index.json').exists()


def test_a_split_is_a_folder(lines: Path, tmp_path: Path) -> None:
    convert(lines, tmp_path, workers=1, split='train', **SMALL)
    assert len(LocalDataset(tmp_path, split='train')) == COUNT
    with pytest.raises(AlreadyExistsError, match=r'train/index\.json'):
        convert(lines, tmp_path, workers=1, split='train', limit=5, **SMALL)


@pytest.mark.parametrize('limit', [1, 150, '1k', 5000])
def test_a_limit_takes_the_first(lines: Path, tmp_path: Path, limit: int | str) -> None:
    count = min(COUNT, 1000 if limit == '1k' else int(limit))
    summary = convert(lines, tmp_path / 'out', workers=1, limit=limit, **SMALL)
    assert ids(tmp_path / 'out') == list(range(count))
    assert summary.records == count


def keep_even_twice(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if record['id'] % 2 == 0:
        for copy in range(2):
            yield {'id': record['id'], 'copy': copy}


def even_or_none(record: dict[str, Any]) -> dict[str, Any] | None:
    return record if record['id'] % 2 == 0 else None


def test_a_function_maps_filters_and_explodes(lines: Path, tmp_path: Path) -> None:
    convert(lines, tmp_path / 'a', workers=1, function=even_or_none, **SMALL)
    assert ids(tmp_path / 'a') == list(range(0, COUNT, 2))
    summary = convert(lines, tmp_path / 'b', workers=1, function=keep_even_twice, **SMALL)
    assert list(LocalDataset(tmp_path / 'b')) == [{'id': i, 'copy': c} for i in range(0, COUNT, 2) for c in range(2)]
    assert (summary.records, summary.samples) == (COUNT, COUNT)


def test_a_function_by_name_in_other_processes(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'my_functions.py').write_text('def double(record):\n    return {"id": 2 * record["id"]}\n')
    monkeypatch.chdir(tmp_path)
    convert(lines, 'out', workers=2, function='my_functions:double', **SMALL)
    assert ids(tmp_path / 'out') == list(range(0, 2 * COUNT, 2))


def test_columns_are_chosen_and_encoded_as_said(lines: Path, tmp_path: Path) -> None:
    options = {'columns': {'score': 'float32'}, 'select': ['id', 'score']}
    summary = convert(lines, tmp_path / 'out', workers=1, **options, **SMALL)  # type: ignore[arg-type]
    assert summary.columns == {'id': 'int', 'score': 'float32'}
    assert list(LocalDataset(tmp_path / 'out')[5]) == ['id', 'score']


def test_progress_goes_up_to_the_end(lines: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    convert(lines, tmp_path / 'out', workers=2, on_progress=seen.append, **SMALL)
    assert [progress.parts for progress in seen] == sorted(progress.parts for progress in seen)
    last = seen[-1]
    assert (last.records, last.parts) == (COUNT, last.total_parts)
    assert last.input_bytes == last.total_input_bytes == lines.stat().st_size


def test_done_again_it_says_what_was_done(lines: Path, tmp_path: Path) -> None:
    first = convert(lines, tmp_path / 'out', workers=1, **SMALL)
    before = files(tmp_path / 'out')
    again = convert(lines, tmp_path / 'out', workers=2, **SMALL)
    assert isinstance(again, ConvertSummary)
    assert (again.samples, again.shards, again.columns) == (first.samples, first.shards, first.columns)
    assert files(tmp_path / 'out') == before


def test_an_index_that_was_removed_is_made_again(lines: Path, tmp_path: Path) -> None:
    convert(lines, tmp_path / 'out', workers=1, **SMALL)
    before = files(tmp_path / 'out')
    (tmp_path / 'out' / 'index.json').unlink()
    assert convert(lines, tmp_path / 'out', workers=1, **SMALL).samples == COUNT
    assert files(tmp_path / 'out') == before


def test_another_job_is_refused_unless_it_may_overwrite(lines: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    convert(lines, out, workers=1, split='train', **SMALL)
    keep = out / 'other' / 'part-00000' / 'shard.00000.mds'
    keep.parent.mkdir(parents=True)
    keep.write_text('of somebody else')
    with pytest.raises(AlreadyExistsError, match=r'limit: None there, 10 here.*exist_ok=True'):
        convert(lines, out, workers=1, split='train', limit=10, **SMALL)
    convert(lines, out, workers=1, limit=10, exist_ok=True, **SMALL)
    assert ids(out) == list(range(10))
    assert set(files(out)) == {'index.json', 'part-00000/shard.00000.mds', 'part-00000/index.json', str(keep.relative_to(out))}


def test_a_dataset_of_a_writer_is_not_overwritten_by_accident(lines: Path, tmp_path: Path) -> None:
    with MDSWriter(out=tmp_path / 'out', columns={'x': 'int'}) as writer:
        writer.write({'x': 1})
    with pytest.raises(AlreadyExistsError, match=r'index\.json'):
        convert(lines, tmp_path / 'out', workers=1)
    convert(lines, tmp_path / 'out', workers=1, exist_ok=True)
    assert len(LocalDataset(tmp_path / 'out')) == COUNT
    assert not (tmp_path / 'out' / 'shard.00000.mds').exists()


def test_what_differs_is_said(lines: Path, tmp_path: Path) -> None:
    lines.write_text(lines.read_text() + 'no json\n')
    with pytest.raises(FormatError):
        convert(lines, tmp_path / 'out', workers=1, **SMALL)
    with pytest.raises(AlreadyExistsError, match=r"unfinished conversion of another job \(compression: None there, 'zstd' here"):
        convert(lines, tmp_path / 'out', workers=1, compression='zstd', **SMALL)


@pytest.mark.parametrize('workers', [1, 2])
def test_a_bad_record_is_an_error_with_its_line(lines: Path, tmp_path: Path, workers: int) -> None:
    text = lines.read_text().splitlines()
    text[700] = '{"id": '
    lines.write_text('\n'.join(text))
    with pytest.raises(FormatError, match=r'lines of text.jsonl, line 701: it is no JSON'):
        convert(lines, tmp_path / 'out', workers=workers, **SMALL)
    assert not (tmp_path / 'out' / 'index.json').exists()


def test_bad_records_go_to_a_file(lines: Path, tmp_path: Path) -> None:
    text = lines.read_text().splitlines()
    text[300], text[700], text[701] = '{"id": ', '[1]', '{"id": "x", "text": "", "score": 1.0}'
    lines.write_text('\n\n'.join(text))
    summary = convert(lines, tmp_path / 'out', workers=2, on_error='reject', columns={'id': 'int'}, **SMALL)
    assert (summary.rejected, summary.samples, summary.records) == (3, COUNT - 3, COUNT)
    assert set(range(COUNT)) - set(ids(tmp_path / 'out')) == {300, 700, 701}
    rejected = [
        json.loads(line) for path in sorted((tmp_path / 'out' / 'rejected').iterdir()) for line in path.read_text().splitlines()
    ]
    assert [line['where'].rpartition(' ')[2] for line in rejected] == ['601', '1401', '1403']
    assert rejected[0]['record'] == '{"id": '
    assert 'list' in rejected[1]['error'] and 'column' in rejected[2]['error']


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match='nowhere'):
        convert(tmp_path / 'nowhere', tmp_path / 'out')
    with pytest.raises(NotFoundError, match=r'no file matches .*\*\.parquet'):
        convert(tmp_path / '*.parquet', tmp_path / 'out')
    (tmp_path / 'empty.jsonl').touch()
    with pytest.raises(FormatError, match='no records'):
        convert(tmp_path / 'empty.jsonl', tmp_path / 'out')


def test_a_function_that_cannot_be_sent(lines: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r'module:function, or pass workers=1'):
        convert(lines, tmp_path / 'out', workers=2, function=lambda record: record, **SMALL)


def test_the_plan_is_whole_and_without_gaps(lines: Path, tmp_path: Path) -> None:
    parts = plan_parts(prepare(lines, tmp_path / 'out', part_bytes='8kb'))
    pieces = [piece for part in parts for piece in part.ranges]
    assert [part.number for part in parts] == list(range(len(pieces)))
    assert len(pieces) >= 7
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].end) == (0, None)
