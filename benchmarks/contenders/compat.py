"""Writing and reading under either package called streaming, with values reduced to text that two processes can compare."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from streaming import CSVWriter, JSONWriter, MDSWriter, StreamingDataLoader, StreamingDataset, TSVWriter, XSVWriter

__all__ = ['expected', 'order', 'read', 'resume', 'write', 'write_text']

COLUMNS = {
    **{f'{kind}{bits}': f'{kind}{bits}' for kind in ('uint', 'int') for bits in (8, 16, 32, 64)},
    **{f'float{bits}': f'float{bits}' for bits in (16, 32, 64)},
    'id': 'int',
    'bytes': 'bytes',
    'str': 'str',
    'str_int': 'str_int',
    'str_float': 'str_float',
    'str_decimal': 'str_decimal',
    'json': 'json',
    'pkl': 'pkl',
    'array': 'ndarray',
    'array_typed': 'ndarray:float32',
    'array_shaped': 'ndarray:uint16:3,4',
    'pil': 'pil',
    'png': 'png',
    'jpeg': 'jpeg',
    'jpeg_array': 'jpeg_array',
    'jpegarray': 'jpegarray',
    'list_pil': 'list[pil]',
    'list_png': 'list[png]',
    'list_jpeg': 'list[jpeg]',
}

TEXT_COLUMNS = {'id': 'int', 'name': 'str', 'weight': 'float'}


def samples(count: int) -> Iterator[dict[str, Any]]:
    """Samples with a value in every encoding that mosaicml-streaming has: edges first, then random ones."""
    random = np.random.default_rng(5)
    for number in range(count):
        sample: dict[str, Any] = {'id': number}
        for kind in ('uint', 'int'):
            for bits in (8, 16, 32, 64):
                limits = np.iinfo(f'{kind}{bits}')
                choices = (limits.min, limits.max, int(random.integers(limits.min, limits.max, dtype=limits.dtype)))
                sample[f'{kind}{bits}'] = limits.dtype.type(choices[min(number, 2)])
        for bits in (16, 32, 64):
            sample[f'float{bits}'] = np.dtype(f'float{bits}').type((0, -np.inf, random.normal())[min(number, 2)])
        size = int(random.integers(1, 400))
        picture = Image.fromarray(random.integers(0, 256, (9 + number % 5, 7, 3), dtype=np.uint8))
        jpeg = BytesIO()
        picture.save(jpeg, format='JPEG')
        sample |= {
            # No empty arrays: mosaicml-streaming refuses to write them.
            'bytes': random.bytes(size * (number > 0)),
            'str': 'grüße \U0001f600 ' * (size % 9),
            'str_int': 10**size,
            'str_float': float(random.normal()) * 1e200,
            'str_decimal': Decimal(number) / Decimal(7),
            'json': {'a': [1, None, True, {'b': 'ü'}], 'n': number / 3},
            'pkl': {'a': (1, 2), 3: {number}},
            'array': random.integers(-9, 9, (1 + number % 3, 2, 300 if number % 3 else 3)).astype(
                ('int8', 'float64', 'uint32')[number % 3]
            ),
            'array_typed': random.random(size, np.float32),
            'array_shaped': random.integers(0, 1 << 16, (3, 4), dtype=np.uint16),
            'pil': picture.convert(('RGB', 'L', 'RGBA')[number % 3]),
            'png': picture,
            'jpeg': picture,
            'jpeg_array': [jpeg.getvalue()] * (1 + number % 3),
            'jpegarray': [jpeg.getvalue()],
            'list_pil': [picture] * (number % 3),
            'list_png': [picture] * (number % 3),
            'list_jpeg': [picture] * (number % 3),
        }
        yield sample


def plain(value: Any) -> Any:
    """The value as JSON can say it, with its type."""
    if isinstance(value, np.ndarray):
        return ['ndarray', value.dtype.name, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, np.generic):
        return ['scalar', value.dtype.name, value.tobytes().hex()]
    if isinstance(value, Image.Image):
        return ['image', value.mode, value.size, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, bytes):
        return ['bytes', len(value), hashlib.sha256(value).hexdigest()]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [plain(item) for item in value]]
    if isinstance(value, dict):
        return ['dict', [[plain(key), plain(item)] for key, item in value.items()]]
    if isinstance(value, float):
        return ['float', value.hex()]
    return [type(value).__name__, str(value)]


def _digests(samples: Iterator[dict[str, Any]]) -> dict[str, Any]:
    columns: dict[str, list[str]] = {}
    for sample in samples:
        for name, value in sample.items():
            columns.setdefault(name, []).append(hashlib.sha256(json.dumps(plain(value)).encode()).hexdigest()[:16])
    return {'value': columns}


def expected(count: int) -> dict[str, Any]:
    """For each column the digest of every sample as it is given to the writer."""
    return _digests(samples(count))


def write(folder: str, count: int, compression: str | None, hashes: list[str], size_limit: int = 1 << 14) -> dict[str, Any]:
    """Write the samples."""
    with MDSWriter(out=folder, columns=COLUMNS, compression=compression, hashes=hashes, size_limit=size_limit) as writer:
        for sample in samples(count):
            writer.write(sample)
    return {'value': count}


def write_text(folder: str, kind: str, count: int, compression: str | None) -> dict[str, Any]:
    """Write the same rows as one of the text formats."""
    make: Any = {'json': JSONWriter, 'csv': CSVWriter, 'tsv': TSVWriter, 'xsv': XSVWriter}[kind]
    options = {'separator': '|'} if kind == 'xsv' else {}
    with make(
        out=folder, columns=TEXT_COLUMNS, compression=compression, hashes=['sha1'], size_limit=1 << 12, **options
    ) as writer:
        for number in range(count):
            writer.write({'id': number, 'name': f'näme {number} ' * (number % 7), 'weight': number / 7})
    return {'value': count}


def read(folder: str) -> dict[str, Any]:
    """For each column the digest of every sample, read as from a remote."""
    local = tempfile.mkdtemp(prefix='streaming-compatible-')
    try:
        dataset = StreamingDataset(
            remote=folder, local=local, batch_size=1, allow_unsafe_types=True, validate_hash=_hash_of(folder)
        )
        return _digests(dataset[number] for number in range(dataset.num_samples))
    finally:
        shutil.rmtree(local, ignore_errors=True)


def _hash_of(folder: str) -> str | None:
    with open(f'{folder}/index.json') as file:
        hashes = json.load(file)['shards'][0]['hashes']
    return hashes[0] if hashes else None


def _loader(folder: str, algorithm: str | None, workers: int, canonical_nodes: int) -> Any:
    dataset = StreamingDataset(
        local=folder,
        batch_size=4,
        shuffle=algorithm is not None,
        shuffle_algo=algorithm or 'py1e',
        shuffle_seed=17,
        num_canonical_nodes=canonical_nodes,
        shuffle_block_size=300,
        allow_unsafe_types=True,
    )
    return StreamingDataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=_ids)


def _ids(samples: list[dict[str, Any]]) -> Any:
    return torch.tensor([sample['id'] for sample in samples])  # what mosaicml-streaming can count


def order(folder: str, algorithm: str | None, workers: int, canonical_nodes: int) -> dict[str, Any]:
    """The ids of two epochs."""
    loader = _loader(folder, algorithm, workers, canonical_nodes)
    return {'value': [sample for _ in range(2) for batch in loader for sample in batch.tolist()]}


def resume(folder: str, algorithm: str | None, state: dict[str, Any] | None) -> dict[str, Any]:
    """From a state, or the start: the ids of five batches, the state after them, and the rest of the epoch."""
    loader = _loader(folder, algorithm, 0, 2)
    if state is not None:
        loader.load_state_dict(state)
    batches = iter(loader)
    begun = [batch.tolist() for batch in islice(batches, 5)]
    after = json.loads(json.dumps(loader.state_dict()))
    return {'value': begun, 'state': after, 'rest': [batch.tolist() for batch in batches]}
