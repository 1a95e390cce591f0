"""The samples that all benchmarks write and read: what training jobs have, from two numbers to a blob. NumPy only."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

__all__ = ['WORKLOADS', 'Workload', 'samples']

TOKENS = 2048
VECTOR = 256


@dataclass(frozen=True)
class Workload:
    """A kind of samples.

    Args:
        columns: As `MDSWriter` takes them.
        pool: Different samples there are; they come around again, too far apart for a codec to notice.
        make: Number -> sample.
        counts: Samples of a dataset of each size.
        sample_bytes: About how many bytes a sample has.
    """

    columns: dict[str, str]
    pool: int
    make: Callable[[int, np.random.Generator], dict[str, Any]]
    counts: dict[str, int]
    sample_bytes: int


def _words() -> list[str]:
    letters = random.Random(7)
    return [''.join(letters.choices('etaoinshrdlucmfwyp', k=letters.randint(2, 9))) for _ in range(4000)]


_WORDS = np.array(_words(), dtype=object)


def _text(size: int, generator: np.random.Generator) -> str:
    """So many characters of words of which few are frequent, as in any language."""
    ranks = (generator.random(size // 3) ** 3 * len(_WORDS)).astype(np.int64)
    return ' '.join(_WORDS[ranks])[:size].ljust(size, '.')


def _tokens(number: int, generator: np.random.Generator) -> dict[str, Any]:
    return {'tokens': (generator.random(TOKENS) ** 3 * 50_000).astype(np.uint16)}


def _mixed(number: int, generator: np.random.Generator) -> dict[str, Any]:
    return {
        'id': number,
        'meta': {'source': 'shelf', 'tags': ['a', 'b', str(number)], 'score': number / 7, 'page': {'number': number, 'of': 900}},
        'text': _text(300, generator),
        'vector': generator.random(VECTOR, np.float32),
    }


WORKLOADS = {
    'ints': Workload(
        {'x': 'int', 'y': 'int'},
        1 << 16,
        lambda number, _: {'x': number, 'y': number * 7919},
        {'tiny': 2_000, 'small': 100_000, 'full': 4_000_000},
        16,
    ),
    'text': Workload(
        {'label': 'int', 'text': 'str'},
        8192,
        lambda number, generator: {'label': number, 'text': _text(1024, generator)},
        {'tiny': 500, 'small': 40_000, 'full': 400_000},
        1036,
    ),
    'blobs': Workload(
        {'data': 'bytes', 'label': 'int'},
        128,
        lambda number, generator: {'data': generator.bytes(100_000), 'label': number},
        {'tiny': 256, 'small': 1_000, 'full': 10_000},
        100_012,
    ),
    'tokens': Workload(
        {'tokens': f'ndarray:uint16:{TOKENS}'},
        4096,
        _tokens,
        {'tiny': 300, 'small': 20_000, 'full': 320_000},
        4096,
    ),
    'mixed': Workload(
        {'id': 'int', 'meta': 'json', 'text': 'str', 'vector': f'ndarray:float32:{VECTOR}'},
        4096,
        _mixed,
        {'tiny': 300, 'small': 20_000, 'full': 200_000},
        1450,
    ),
}


def samples(workload: str, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The first so many samples: the same ones everywhere."""
    kind = WORKLOADS[workload]
    generator = np.random.default_rng(seed)
    pool = [kind.make(number, generator) for number in range(min(count, kind.pool))]
    return islice(cycle(pool), count)
