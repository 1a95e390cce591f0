"""A dataset of very many shards out of one: hard links to it, and an index that names them all."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ['multiply_litdata', 'multiply_mds', 'multiply_tar']

# A file has 65,000 names at the most on ext4.
_NAMES = 30_000


def _link(folder: Path, original: Path, pattern: str, count: int) -> Iterator[str]:
    source = original
    for number in range(count):
        name = pattern.format(number)
        if number % _NAMES == 0:
            source = Path(shutil.copy(original, folder / name))
        else:
            os.link(source, folder / name)
        yield name


def _multiply(folder: str, into: str, key: str, pattern: str, count: int, rename: Any) -> dict[str, Any]:
    index = json.loads((Path(folder) / 'index.json').read_bytes())
    (entry,) = index[key]
    target = Path(into)
    target.mkdir()
    original = Path(folder) / rename(entry, None)
    entries = []
    for name in _link(target, original, pattern, count):
        rename(entry, name)
        entries.append(json.dumps(entry))
    index[key] = ['ENTRIES']
    (target / 'index.json').write_text(json.dumps(index).replace('"ENTRIES"', ', '.join(entries)))
    return {'value': count}


def multiply_mds(folder: str, into: str, count: int) -> dict[str, Any]:
    """A dataset of ``count`` MDS shards."""

    def rename(entry: dict[str, Any], name: str | None) -> str:
        if name is not None:
            entry['raw_data']['basename'] = name
        found: str = entry['raw_data']['basename']
        return found

    return _multiply(folder, into, 'shards', 'shard.{:05}.mds', count, rename)


def multiply_litdata(folder: str, into: str, count: int) -> dict[str, Any]:
    """A dataset of ``count`` chunks of litData."""

    def rename(entry: dict[str, Any], name: str | None) -> str:
        if name is not None:
            entry['filename'] = name
        found: str = entry['filename']
        return found

    return _multiply(folder, into, 'chunks', 'chunk-0-{}.bin', count, rename)


def multiply_tar(folder: str, into: str, count: int) -> dict[str, Any]:
    """A folder of ``count`` tar files."""
    (original,) = Path(folder).glob('*.tar')
    Path(into).mkdir()
    for _ in _link(Path(into), original, '{:06}.tar', count):
        pass
    return {'value': count}
