"""What can be converted, a file a kind: a name -> a class loaded on use, or found by what lies there."""

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streaming.errors import ArgumentError
from streaming.writers.convert.named import load_named
from streaming.writers.convert.sources.base import BadRecord, Batch, Range, Source, Wanted
from streaming.writers.convert.sources.files import Files, InputFile

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


# A function by its name: no path, and no URL.
_FUNCTION = re.compile(r'[A-Za-z_][\w.]*:[A-Za-z_][\w.]*')

_HERE = 'streaming.writers.convert.sources'
# Kind -> "module:class", made from the files that lie there and from the suffixes that are its own.
_kinds: dict[str, 'str | Callable[[Files, Sequence[str]], Source]'] = {
    'parquet': f'{_HERE}.parquet:ParquetSource',
    'arrow': f'{_HERE}.arrow:ArrowSource',
    'jsonl': f'{_HERE}.jsonl:JSONLSource',
    'csv': f'{_HERE}.csv:CSVSource',
    'webdataset': f'{_HERE}.webdataset:WebDatasetSource',
    'images': f'{_HERE}.images:ImageSource',
    'text': f'{_HERE}.text:TextSource',
    'huggingface': f'{_HERE}.huggingface:HuggingFaceSource',
    'mds': f'{_HERE}.mds:MDSSource',
}
# A folder that holds one of these is what it says, whatever else is there.
_marks = {'index.json': 'mds', 'dataset_dict.json': 'huggingface', 'state.json': 'huggingface'}
# By what a file is called. A folder is of the first kind that it has files of: notes and pictures lie beside tables, not the
# other way round.
_suffixes: dict[str, tuple[str, ...]] = {
    'parquet': ('.parquet', '.pq', '.parq'),
    'arrow': ('.arrow', '.feather', '.ipc', '.arrows'),
    'jsonl': _packed('.jsonl', '.ndjson', '.jsonlines'),
    'csv': _packed('.csv', '.tsv', '.tab'),
    'webdataset': (*_packed('.tar'), '.tgz'),
    'images': ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff'),
    'text': ('.txt', '.text', '.md'),
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
        source: A `Source`, a path, a URL, a glob, a list of those, an iterable of records, a function that gives one,
            or its name as ``'module:function'``.
        kind: What the files are. Default: None, what their names say.

    Raises:
        ArgumentError: it is nothing that can be converted.
        NotFoundError: there is nothing there.
        MissingExtraError: reading it needs a package that is not installed.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str) and kind is None and _FUNCTION.fullmatch(source) and not Path(source).exists():
        return _open_named(source)
    if isinstance(source, (str, Path)):
        return _open_files([source], kind)
    if isinstance(source, (list, tuple)) and source and all(isinstance(item, (str, Path)) for item in source):
        return _open_files(source, kind)
    if hasattr(source, '__len__') and hasattr(source, '__getitem__') and not isinstance(source, (Mapping, bytes)):
        return _made('iterables:SequenceSource', source)
    if callable(source) or (isinstance(source, Iterable) and not isinstance(source, (Mapping, bytes))):
        return _made('iterables:IterableSource', source)
    raise ArgumentError(f'no records can be read from a {type(source).__name__}: {source!r:.80}')


def _open_named(name: str) -> Source:
    """What a function gives, or anything else that has a name."""
    found = load_named(name, 'the source')
    if isinstance(found, Source):
        return found
    return _made('iterables:IterableSource', name) if callable(found) else open_source(found)


def _made(where: str, argument: Any) -> Source:
    source: Source = _class(where)(argument)
    return source


def _class(where: str) -> Any:
    module, _, name = where.rpartition(':')
    return getattr(importlib.import_module(module if '.' in module else f'{_HERE}.{module}'), name)


def _open_files(locations: Sequence[str | Path], kind: str | None) -> Source:
    if kind is not None and kind not in _kinds:
        raise ArgumentError(f'no kind of source is called {kind!r}; there are {", ".join(get_source_kinds())}')
    files = Files(locations)
    found = _kind_of(files.find(), files.url) if kind is None else kind
    made = _kinds[found]
    if isinstance(made, str):
        made = _class(made)
    source: Source = made(files, _suffixes.get(found, ()))
    return source


def _kind_of(files: Iterable[InputFile], url: str) -> str:
    """The kind of some files, by their names.

    Raises:
        ArgumentError: the names do not say it.
    """
    names = [file.key for file in files]
    tops = {name.rpartition('/')[2] for name in names if name.count('/') <= 1}
    for mark, kind in _marks.items():
        if mark in tops:
            return kind
    # All names are looked at for each kind, and there may be millions.
    lowered = list(map(str.lower, names))
    for kind, suffixes in _suffixes.items():
        if any(name.endswith(suffixes) for name in lowered):
            return kind
    raise ArgumentError(
        f'what {url} holds cannot be told from the names of its {len(names)} files ({names[0]}...); '
        f'say which of {", ".join(get_source_kinds())} it is'
    )
