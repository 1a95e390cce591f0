"""merge_index: the indices of parts that were written side by side -> one index over all their shards.

The shards stay where they are; the index names them by their path below the folder that it lies in.
"""

import logging
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload
from urllib.parse import unquote

from streaming.errors import ArgumentError, FormatError, NotFoundError, StoreError
from streaming.format.index import FileInfo, ShardInfo, ShardTable, dump_index
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.writers.destination import INDEX, split_out

__all__ = ['merge_index', 'moved']

logger = logging.getLogger(__name__)

# Indices are small: most of the time is waiting.
_PARALLEL = 32
_URL = re.compile(r'(?P<head>[A-Za-z][A-Za-z0-9+.-]*:(?://[^/?]*|(?=/)))(?P<path>[^?]*)(?P<query>\?.*)?')

Url = str | Path
Out = str | Path | tuple[str | Path, str | Path]


@overload
def merge_index(
    index_file_urls: Sequence[Url | tuple[Url, Url]], out: Out, keep_local: bool = True, download_timeout: float = 60
) -> None: ...


@overload
def merge_index(out: Out, keep_local: bool = True, download_timeout: float = 60) -> None: ...


def merge_index(*args: Any, **kwargs: Any) -> None:
    """Merge the indices of parts into one, which is written last and whole.

    Called with a list, it merges those in its order. Called with ``out`` alone, it merges all that lie in sub-folders of it, at
    any depth, in the order of their paths; a merged index among them adds nothing to the indices that it was made of.

    Args:
        index_file_urls: Paths or URLs of the parts' ``index.json``, or pairs of a path and the URL to read where that path does
            not exist. A part should lie below ``out``; else its shards are named as if its folder lay directly in ``out``.
        out: The folder of the merged index: a path, a URL, or ``(local, remote)``.
        keep_local: With ``(local, remote)``, whether to put a copy of the merged index in ``local``. Default: True.
        download_timeout: Seconds without a byte after which a request has failed. Default: 60.

    Raises:
        NotFoundError: there are no parts, or an index does not exist.
        FormatError: an index is not one, or two say different things of one shard.
        ArgumentError: two parts would get one name, or ``out`` has shards of its own beside its index.
    """
    if 'index_file_urls' in kwargs or (args and not isinstance(args[0], (str, Path, tuple))):
        _merge_list(*args, **kwargs)
    else:
        _merge_below(*args, **kwargs)


def _merge_list(
    index_file_urls: Iterable[Url | tuple[Url, Url]], out: Out, keep_local: bool = True, download_timeout: float = 60
) -> None:
    # A pair, once for each; what is given twice counts once.
    pairs = list(
        dict.fromkeys(tuple(map(str, item)) if isinstance(item, (tuple, list)) else (str(item),) for item in index_file_urls)
    )
    if not pairs:
        raise NotFoundError('there are no indices to merge: index_file_urls is empty')
    with _Merge(out, keep_local, download_timeout) as merge:
        merge.write(merge.locate([[_Place.parse(url).index() for url in pair] for pair in pairs]))


def _merge_below(out: Out, keep_local: bool = True, download_timeout: float = 60) -> None:
    with _Merge(out, keep_local, download_timeout) as merge:
        merge.write(merge.find())


@dataclass(frozen=True, slots=True)
class _Place:
    """A path or a URL, in parts.

    Args:
        head: Scheme and host, as in ``s3://bucket``; empty for a plain path.
        path: With a leading slash.
        query: With its question mark, or empty.
    """

    head: str
    path: str
    query: str

    @classmethod
    def parse(cls, url: str) -> '_Place':
        match = _URL.fullmatch(url)
        if match is None:
            return cls('', os.path.abspath(Path(url).expanduser()), '')
        if match['head'].lower() in ('file:', 'file://', 'file://localhost'):
            return cls('', os.path.abspath(unquote(match['path'])), '')
        return cls(match['head'], match['path'].rstrip('/'), match['query'] or '')

    def index(self) -> '_Place':
        """The index in this folder, or this index."""
        return self if posixpath.basename(self.path) == INDEX else replace(self, path=posixpath.join(self.path, INDEX))

    def below(self, folder: '_Place') -> str | None:
        """Its path below a folder, None where it does not lie there."""
        inside = self.head == folder.head and self.path.startswith(folder.path.rstrip('/') + '/')
        return self.path[len(folder.path.rstrip('/')) + 1 :] if inside else None

    def is_file(self) -> bool:
        """Whether it is a file of this machine."""
        return not self.head and os.path.isfile(self.path)

    def __str__(self) -> str:
        return f'{self.head}{self.path}{self.query}'


@dataclass(frozen=True, slots=True)
class _Part:
    """An index to be merged.

    Args:
        store: Where it lies.
        key: Its key there.
        folder: Where its shards lie below ``out``.
    """

    store: Store
    key: str
    folder: str

    def read(self) -> list[ShardInfo]:
        """Its shards, named as the merged index does."""
        table = ShardTable.from_json(self.store.get(self.key), self.store.url_of(self.key))
        return [moved(shard, self.folder) for shard in table]


class _Merge:
    """The stores of one merge."""

    def __init__(self, out: Out, keep_local: bool, timeout_s: float) -> None:
        self._options = {'timeout_s': timeout_s}
        self._open = ExitStack()
        local, remote = split_out(out)
        self._places = [_Place.parse(place) for place in (local, remote) if place is not None]
        self._store = self._store_of(str(local if remote is None else remote))
        self._copy = self._store_of(local) if remote is not None and local is not None and keep_local else None

    def __enter__(self) -> '_Merge':
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _store_of(self, url: str) -> Store:
        return self._open.enter_context(closing(open_store(url, self._options)))

    def find(self) -> list[_Part]:
        """All indices in sub-folders of ``out``.

        Raises:
            NotFoundError: there is none.
            ArgumentError: the index that is there already is of shards that lie beside it.
        """
        keys = [info.key for info in self._store.list() if posixpath.basename(info.key) == INDEX]
        # Folders whose name begins with a dot are nobody's data.
        parts = [_Part(self._store, key, posixpath.dirname(key)) for key in keys if '/' in key and not re.search(r'(^|/)\.', key)]
        if not parts:
            raise NotFoundError(f'there are no indices to merge: no {INDEX} in a folder below {self._store.url}')
        self._refuse_own_shards(keys)
        return parts

    def _refuse_own_shards(self, keys: Sequence[str]) -> None:
        try:
            shards = _Part(self._store, INDEX, '').read() if INDEX in keys else []
        except FormatError:
            return  # it is lost already
        own = next((shard.raw_data.basename for shard in shards if '/' not in shard.raw_data.basename), None)
        if own is not None:
            raise ArgumentError(f'{self._store.url} is a dataset with shards of its own ({own}), which a merged index would lose')

    def locate(self, indices: Sequence[Sequence[_Place]]) -> list[_Part]:
        """The parts of a list: each a place, or a local one and a remote one."""
        sources, folders = [], []
        for places in indices:
            source = places[0] if len(places) == 1 or places[0].is_file() else places[-1]
            below = next((key for place in places for out in self._places if (key := place.below(out)) is not None), None)
            if below is None:
                logger.warning('%s does not lie below %s; its shards have to be brought there', source, self._store.url)
                below = posixpath.join(posixpath.basename(posixpath.dirname(source.path)), INDEX)
            sources.append(source)
            folders.append(posixpath.dirname(below))
        keys = self._keys_of(sources)
        return [_Part(*keys[source], folder) for source, folder in zip(sources, folders, strict=True)]

    def _keys_of(self, sources: Sequence[_Place]) -> dict[_Place, tuple[Store, str]]:
        """Where to read each: in as few stores as there are hosts, so that thousands of parts share their connections."""
        main = self._places[-1]
        found: dict[_Place, tuple[Store, str]] = {}
        elsewhere: dict[tuple[str, str], list[_Place]] = defaultdict(list)
        for source in sources:
            key = source.below(main)
            if key is not None and source.query in ('', main.query):
                found[source] = self._store, key
            else:
                elsewhere[source.head, source.query].append(source)
        for (head, query), group in elsewhere.items():
            root = _Place(head, posixpath.commonpath([posixpath.dirname(place.path) for place in group]), query)
            store = self._store_of(str(root))
            found.update((place, (store, str(place.below(root)))) for place in group)
        return found

    def write(self, parts: Sequence[_Part]) -> None:
        """Read all parts, then put the merged index."""
        with ThreadPoolExecutor(min(_PARALLEL, len(parts)), thread_name_prefix='streaming-merge') as pool:
            try:
                tables = list(pool.map(_Part.read, parts))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        index = dump_index(_without_repeats(parts, tables))
        # Of names too long now that their folders are in front, say, nobody may make a dataset that cannot be read.
        ShardTable.from_json(index, self._store.url_of(INDEX))
        for store in (self._copy, self._store):
            if store is not None and store.put(INDEX, index).size != len(index):
                raise StoreError(f'{store.url_of(INDEX)} has not the {len(index)} bytes that were put')


def moved(shard: ShardInfo, folder: str) -> ShardInfo:
    """A shard that lies in a folder, as the index above that folder names it."""

    def move(file: FileInfo | None) -> Any:
        return file and replace(file, basename=posixpath.join(folder, file.basename))

    return replace(
        shard,
        raw_data=move(shard.raw_data),
        raw_meta=move(shard.raw_meta),
        zip_data=move(shard.zip_data),
        zip_meta=move(shard.zip_meta),
    )


def _without_repeats(parts: Sequence[_Part], tables: Sequence[Sequence[ShardInfo]]) -> list[ShardInfo]:
    """All shards once, in order.

    Raises:
        ArgumentError: two parts have one name.
        FormatError: two indices say different things of one shard.
    """
    shards: dict[str, tuple[ShardInfo, _Part]] = {}
    for part, table in zip(parts, tables, strict=True):
        for shard in table:
            known, first = shards.setdefault(shard.raw_data.basename, (shard, part))
            if known is shard:
                continue
            both = f'{first.store.url_of(first.key)} and {part.store.url_of(part.key)}'
            if first.folder == part.folder:
                raise ArgumentError(f'the shards of {both} would have the same names: {shard.raw_data.basename}')
            if known != shard:
                raise FormatError(f'{both} say different things of {shard.raw_data.basename}: one of them is out of date')
    return [shard for shard, _ in shards.values()]
