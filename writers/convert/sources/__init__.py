"""What can be converted, a file a kind: a name -> a class loaded on use, or found by what lies there."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from streaming.errors import ArgumentError
from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files, InputFile, has_suffix

__all__ = [
    'BadRecord',
    'Batch',
    'Files',
    'Range',
    'Source',
    'Wanted',
    'get_source_kinds',
    'open_source',
    'register_source',
]

_PACKED = ('', '.gz', '.zst', '.zstd', '.bz2', '.xz')


def _packed(*suffixes: str) -> tuple[str, ...]:
    return tuple(suffix + end for suffix in suffixes for end in _PACKED)


_HERE = 'streaming.writers.convert.sources'
# Kind -> "module:class", made from the files that lie there and from the suffixes that are its own.
_kinds: dict[str, 'str | Callable[[Files, Sequence[str]], Source]'] = {
    'parquet': f'{_HERE}.parquet:ParquetSource',
    'jsonl': f'{_HERE}.jsonl:JSONLSource',
}
# By what a file is called. A folder is of the first kind that it has files of: notes and pictures lie beside tables, not the
# other way round.
_suffixes: dict[str, tuple[str, ...]] = {
    'parquet': ('.parquet', '.pq', '.parq'),
    'jsonl': _packed('.jsonl', '.ndjson', '.jsonlines'),
}


def register_source(kind: str, source: 'str | Callable[[Files, Sequence[str]], Source]', suffixes: Sequence[str] = ()) -> None:
    """Let files of a kind be read by a source.

    Args:
        kind: Its name.
        source: The class, or where it is, as ``'module:class'``; it is called with `Files` and the suffixes.
        suffixes: What its files' names end in.
    """
    _kinds[kind] = source
    _suffixes[kind] = tuple(suffixes)


def get_source_kinds() -> list[str]:
    """The names of all kinds of files that can be converted, sorted."""
    return sorted(_kinds)


def open_source(source: Any, kind: str | None = None) -> Source:
    """Find out what a source is, and list its files.

    Args:
        source: A `Source`, a path, a URL, a glob, a list of those, an iterable of records, or a function that gives one.
        kind: What the files are. Default: None, what their names say.

    Raises:
        ArgumentError: it is nothing that can be converted.
        NotFoundError: there is nothing there.
        MissingExtraError: reading it needs a package that is not installed.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, Path)):
        return _open_files([source], kind)
    if isinstance(source, (list, tuple)) and source and all(isinstance(item, (str, Path)) for item in source):
        return _open_files(source, kind)
    raise ArgumentError(f'no records can be read from a {type(source).__name__}: {source!r:.80}')


def _open_files(locations: Sequence[str | Path], kind: str | None) -> Source:
    if kind is not None and kind not in _kinds:
        raise ArgumentError(f'no kind of source is called {kind!r}; there are {", ".join(get_source_kinds())}')
    files = Files(locations)
    found = _kind_of(files.find(), files.url) if kind is None else kind
    made = _kinds[found]
    if isinstance(made, str):
        module, _, name = made.partition(':')
        made = getattr(importlib.import_module(module), name)
    source: Source = made(files, _suffixes.get(found, ()))
    return source


def _kind_of(files: Iterable[InputFile], url: str) -> str:
    """The kind of some files, by their names.

    Raises:
        ArgumentError: the names do not say it.
    """
    names = [file.key for file in files]
    for kind, suffixes in _suffixes.items():
        if any(has_suffix(name, suffixes) for name in names):
            return kind
    raise ArgumentError(
        f'what {url} holds cannot be told from the names of its {len(names)} files ({names[0]}...); '
        f'say which of {", ".join(get_source_kinds())} it is'
    )
