"""What `convert.py` has everybody convert, and how the peers read it: as their users do, file by file."""

import glob
import io
import json
import os
import resource
import shutil
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

__all__ = ['Watch', 'inputs', 'make', 'records']

_FILES = 8
_CLASSES = 100
_WORDS = 20_000


class Watch:
    """Times a conversion, from when it is made: by the clock, and by the time of processors, of this process and its children."""

    def __init__(self) -> None:
        self._begin = perf_counter(), _cpu_seconds()

    def result(self, records: int, version: str) -> dict[str, Any]:
        """Records a second, and a second of a processor, which other work on the machine hardly changes."""
        seconds, cpu_seconds = perf_counter() - self._begin[0], _cpu_seconds() - self._begin[1]
        return {'value': records / seconds, 'records_per_cpu_second': round(records / cpu_seconds), 'version': version}


def _cpu_seconds() -> float:
    usage = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)


def make(folder: str, workload: str, size: int) -> dict[str, Any]:
    """Write an input, unless an earlier run has left it there; says how many records and megabytes it has."""
    said = f'{folder}.json'
    if os.path.exists(said):
        _read_all(folder)
        with open(said) as file:
            return dict(json.load(file))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    makers = {'parquet': _make_parquet, 'jpeg': _make_jpegs, 'jsonl.zst': _make_lines}
    count = makers[workload](folder, size)
    total = sum(os.path.getsize(path) for path in glob.glob(f'{folder}/**', recursive=True) if os.path.isfile(path))
    made = {'value': count, 'megabytes': round(total / 1e6)}
    # Last: what was interrupted is made again.
    with open(said, 'w') as file:
        json.dump(made, file)
    return made


def _read_all(folder: str) -> None:
    """Bring an input to memory for all: where there is one round, whoever is first would read it from the disk for the others."""
    for path in glob.glob(f'{folder}/**', recursive=True):
        if os.path.isfile(path):
            with open(path, 'rb') as file:
                while file.read(1 << 20):
                    pass


def _texts(seed: int) -> Iterator[str]:
    """Texts of a kilobyte or so, of words that compress as words do."""
    chance = np.random.default_rng(seed)
    letters = chance.integers(97, 123, (_WORDS, 9)).astype(np.uint8)
    words = np.array([bytes(row[: 2 + number % 8]).decode() for number, row in enumerate(letters)])
    weights = 1 / np.arange(10, _WORDS + 10)
    weights /= weights.sum()
    while True:
        drawn = words[chance.choice(_WORDS, 100_000, p=weights)]
        at = 0
        while at < len(drawn) - 400:
            length = int(chance.integers(60, 400))
            yield ' '.join(drawn[at : at + length])
            at += length


def _make_parquet(folder: str, megabytes: int) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({'id': pa.int64(), 'text': pa.string()})
    count = 0
    for number in range(_FILES):
        texts = _texts(number)
        path = f'{folder}/{number:03}.parquet'
        with pq.ParquetWriter(path, schema, compression='zstd') as writer:
            while os.path.getsize(path) < megabytes * 1_000_000 // _FILES:
                rows = [next(texts) for _ in range(2000)]
                writer.write_table(pa.table({'id': range(count, count + len(rows)), 'text': rows}, schema))
                count += len(rows)
    return count


def _make_lines(folder: str, megabytes: int) -> int:
    import zstandard

    count = 0
    for number in range(_FILES):
        texts = _texts(number)
        with open(f'{folder}/{number:03}.jsonl.zst', 'wb') as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
            while file.tell() < megabytes * 1_000_000 // _FILES:
                for _ in range(1000):
                    packed.write(json.dumps({'id': count, 'text': next(texts)}).encode() + b'\n')
                    count += 1
    return count


def _make_jpegs(folder: str, count: int) -> int:
    from PIL import Image

    chance = np.random.default_rng(0)
    images = []
    for _ in range(50):
        file = io.BytesIO()
        coarse = Image.fromarray(chance.integers(0, 255, (28, 28, 3)).astype(np.uint8))
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=90)
        images.append(file.getvalue())
    for number in range(_CLASSES):
        os.makedirs(f'{folder}/class{number:03}')
    for number in range(count):
        with open(f'{folder}/class{number % _CLASSES:03}/{number:06}.jpg', 'wb') as file:
            file.write(images[number % len(images)])
    return count


def inputs(source: str, workload: str) -> list[str]:
    """The files of an input, in order."""
    return sorted(glob.glob(f'{source}/class*/*.jpg' if workload == 'jpeg' else f'{source}/*.{workload}'))


def records(path: str, workload: str) -> Iterator[dict[str, Any]]:
    """The records of a file. Of an image the class's number and the image, opened."""
    if workload == 'parquet':
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    elif workload == 'jsonl.zst':
        import zstandard

        with open(path, 'rb') as file, zstandard.ZstdDecompressor().stream_reader(file) as content:
            for line in io.TextIOWrapper(content, encoding='utf-8'):
                yield json.loads(line)
    else:
        from PIL import Image

        yield {'label': int(os.path.basename(os.path.dirname(path))[len('class') :]), 'image': Image.open(path)}
