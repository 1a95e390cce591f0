"""Cache folders: which there are, and clearing them. Only what was fetched there is deleted, and only where nobody reads it."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming.cache.folder import INDEX_NAME, CacheFolder, cache_home
from streaming.cache.ledger import unused
from streaming.errors import ArgumentError, FormatError
from streaming.format.index import ShardTable

__all__ = ['Cache', 'Cleared', 'clear_cache', 'find_caches']

# Splits of a dataset are folders below the one that is named.
_DEPTH = 4
# What `SharedArrays` leaves for datasets that need no cache folder.
_ARRAYS = 'arrays'
_ARRAY = re.compile(r'[0-9a-f]{32}\.(?:npy|lock)|tmp\w+\.part')


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A cache folder.

    Args:
        path: The folder.
        remote: What it is a cache of, without secrets; None: of nothing, it holds orders of epochs.
        bytes: Of its files.
        shards_here: Shards whose files are there, compressed or not.
        shards: Shards of the dataset.
        used: When it was last used, in seconds since 1970.
        in_use: Whether a running process uses it.
    """

    path: str
    remote: str | None
    bytes: int
    shards_here: int
    shards: int
    used: float
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What became of a cache folder that was to be cleared.

    Args:
        path: The folder.
        files: How many files were deleted, or would be.
        bytes: Of them.
        kept: What is left in the folder, because it was not fetched there.
    """

    path: str
    files: int
    bytes: int
    kept: tuple[str, ...]


def find_caches(folders: Iterable[str | Path] | None = None) -> list[Cache]:
    """The cache folders in some folders, by path.

    Args:
        folders: Cache folders, or folders of such. Default: None, this user's own.
    """
    found: dict[Path, Cache] = {}
    for folder in [cache_home()] if folders is None else folders:
        for path in _walk(Path(folder).expanduser().absolute(), _DEPTH):
            found[path] = _describe(path)
    return [found[path] for path in sorted(found)]


def clear_cache(folder: str | Path, *, dry_run: bool = False) -> Cleared:
    """Delete what was fetched into a cache folder, and the folder if nothing else is in there.

    Files that the index does not name, and files that somebody else has put there (fetched ones are read-only), stay.

    Args:
        folder: The cache folder.
        dry_run: Delete nothing, and say what would be. Default: False.

    Raises:
        ArgumentError: it is no cache folder, or a running process uses it.
    """
    path = Path(folder).expanduser().absolute()
    if not _is_cache(path):
        raise ArgumentError(f'{path} is not a cache folder: nothing says what was fetched there, so nothing is deleted')
    hidden = CacheFolder(path).hidden
    if not hidden.is_dir():
        return _delete(path, _arrays_in(path), dry_run)
    with unused(hidden) as is_free:
        if not is_free:
            raise ArgumentError(f'{path} is in use by a running process: let it end first')
        return _delete(path, [*_fetched_files(path), *_files_in(hidden)], dry_run)


def _delete(path: Path, files: list[Path], dry_run: bool) -> Cleared:
    """Delete some files of a cache folder, and the folders that are empty then."""
    size = sum(file.lstat().st_size for file in files)
    kept = sorted({*_files_in(path)} - {*files})
    if not dry_run:
        for file in files:
            file.unlink(missing_ok=True)
        for folder, _, _ in os.walk(path, topdown=False):
            with suppress(OSError):  # something is left in there
                os.rmdir(folder)
    return Cleared(path=str(path), files=len(files), bytes=size, kept=tuple(map(str, kept)))


def _fetched_files(path: Path) -> list[Path]:
    """The shards that were fetched, and the index, unless it was not, or shards that were not lie beside it."""
    index = path / INDEX_NAME
    try:
        data = index.read_bytes()
        table = ShardTable.from_json(data, str(index))
    except (FileNotFoundError, FormatError):
        return []
    if hashlib.sha256(data).hexdigest() != _source_of(path).get('index_sha256'):
        return []
    names = {file.basename for shard in table for file in (*shard.raw_files, *shard.stored)}
    here = [path / name for name in sorted(names) if (path / name).is_file()]
    fetched = [file for file in here if not file.stat().st_mode & 0o222]
    return [*fetched, index] if len(fetched) == len(here) else fetched


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """The cache folders at and below a folder."""
    if _is_cache(folder):
        yield folder
    elif depth:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(folder) as entries:
            for below in sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False)):
                yield from _walk(Path(below), depth - 1)


def _is_cache(path: Path) -> bool:
    return bool(_source_of(path)) or bool(path.parent == cache_home() and _arrays_in(path))


def _source_of(path: Path) -> dict[str, Any]:
    """What a cache folder says of its remote; empty where it is none."""
    try:
        found = json.loads((CacheFolder(path).hidden / 'source.json').read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get('remote'), str) else {}


def _arrays_in(path: Path) -> list[Path]:
    return [file for file in _files_in(path / _ARRAYS) if _ARRAY.fullmatch(file.name)]


def _files_in(path: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names]


def _describe(path: Path) -> Cache:
    files = _files_in(path)
    hidden = CacheFolder(path).hidden
    here, shards = _count_shards(path)
    is_free = True
    if hidden.is_dir():
        with unused(hidden) as is_free:
            pass
    return Cache(
        path=str(path),
        remote=_source_of(path).get('remote'),
        bytes=sum(file.lstat().st_size for file in files),
        shards_here=here,
        shards=shards,
        used=max((file.lstat().st_mtime for file in files), default=0.0),
        in_use=not is_free,
    )


def _count_shards(path: Path) -> tuple[int, int]:
    """Shards that are here, and shards that there are."""
    try:
        table = ShardTable.from_json((path / INDEX_NAME).read_bytes(), str(path))
    except (FileNotFoundError, FormatError):
        return 0, 0
    here = sum(
        all((path / file.basename).is_file() for file in shard.raw_files)
        or all((path / file.basename).is_file() for file in shard.stored)
        for shard in table
    )
    return here, len(table)
