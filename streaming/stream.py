"""One source of a dataset: where its shards are, how they are brought here, and its weight in a mix."""

import copy
import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming.cache.fetch import FetchPolicy
from streaming.cache.folder import INDEX_NAME, CacheFolder, default_cache_path
from streaming.cache.ranged import ObjectRanges
from streaming.cache.shards import ShardCache
from streaming.errors import ArgumentError, NotFoundError, StaleCacheError
from streaming.files import open_file
from streaming.format.hashing import get_hashes
from streaming.format.index import ShardTable
from streaming.readers import Reader, open_shard
from streaming.store import RetryPolicy, open_store
from streaming.store.protocol import Store

__all__ = ['OpenStream', 'Stream', 'get_stream_class', 'make_streams', 'register_stream']

_classes: dict[str, 'type[Stream] | str'] = {'stream': 'streaming.stream:Stream'}


def register_stream(name: str, cls: 'type[Stream]') -> None:
    """Let ``StreamingDataset(stream_name=name)`` make its stream from ``cls``."""
    _classes[name] = cls


def get_stream_class(name: str) -> 'type[Stream]':
    """The class registered under ``name``.

    Raises:
        ArgumentError: there is none.
    """
    if name not in _classes:
        raise ArgumentError(f'no stream class named {name!r}; there are {", ".join(sorted(_classes))}')
    found = _classes[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(':')
        found = getattr(importlib.import_module(module), attribute)
    return found


class Stream:
    """A dataset in a bucket or a folder, alone or as part of a mix.

    Args:
        remote: URL or path of the dataset's root. Default: None, it is read in ``local``, where it lies, and never changed.
        local: Folder for copies of the shards, shared by all processes of the node. Default: None, a folder of this user's under
            ``$XDG_CACHE_HOME`` (``~/.cache``).
        split: Sub-folder of both, such as ``'train'``. Default: None.
        proportion: Share of this stream's samples in an epoch, relative to the other streams' shares.
        repeat: How often each sample is seen in an epoch; 0.5 takes half of them.
        choose: How many samples are taken in an epoch. At most one of the three may be given. Default: each sample once.
        download_retry: How often a shard whose bytes are wrong is fetched anew. Default: 2.
        download_timeout: Seconds without a byte after which a download is an error. Default: 60.
        validate_hash: The hash to check, of those the writer recorded, and then no sample is delivered before its shard is
            verified. Default: None, the cheapest of them.
        keep_zip: Keep a compressed shard beside the decompressed one. Default: False.
        on_stale: What becomes of a ``local`` folder that holds an older version of the remote: ``'error'``, or ``'refresh'``:
            what is not the same any more is deleted there, and fetched anew. Default: error.
        store: The object store itself, instead of one opened from ``remote``: for credentials of one's own, say. It must pickle
            where workers are spawned. Default: None.

    Raises:
        ArgumentError: values that cannot work.
    """

    def __init__(
        self,
        *,
        remote: str | None = None,
        local: str | None = None,
        split: str | None = None,
        proportion: float | None = None,
        repeat: float | None = None,
        choose: int | None = None,
        download_retry: int | None = None,
        download_timeout: float | None = None,
        validate_hash: str | None = None,
        keep_zip: bool | None = None,
        on_stale: str | None = None,
        store: Store | None = None,
    ) -> None:
        if remote is None and local is None and store is None:
            raise ArgumentError('a stream needs a remote, a local folder, or both')
        self.remote = remote
        self.local = local
        self.split = split
        self.proportion = proportion
        self.repeat = repeat
        self.choose = choose
        self.download_retry = download_retry
        self.download_timeout = download_timeout
        self.validate_hash = validate_hash
        self.keep_zip = keep_zip
        self.on_stale = on_stale
        self.store = store
        self._check()

    def _check(self) -> None:
        weights = {name: getattr(self, name) for name in ('proportion', 'repeat', 'choose') if getattr(self, name) is not None}
        if len(weights) > 1:
            raise ArgumentError(f'a stream takes at most one of proportion, repeat and choose, got {weights}')
        for name, value in weights.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise ArgumentError(f'{name} must be a number that is not negative, got {value!r}')
        if self.download_retry is not None and self.download_retry < 0:
            raise ArgumentError(f'download_retry must not be negative, got {self.download_retry!r}')
        if self.download_timeout is not None and not self.download_timeout > 0:
            raise ArgumentError(f'download_timeout must be a positive number of seconds, got {self.download_timeout!r}')
        if self.validate_hash is not None and self.validate_hash not in get_hashes():
            raise ArgumentError(f'validate_hash is {self.validate_hash!r}; there are {", ".join(sorted(get_hashes()))}')
        if self.on_stale not in (None, 'error', 'refresh'):
            raise ArgumentError(f"on_stale must be 'error' or 'refresh', got {self.on_stale!r}")
        if self.split is not None and any(part in ('', '.', '..') for part in self.split.split('/')):
            raise ArgumentError(f'split must name a sub-folder, got {self.split!r}')

    def apply_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Take each value that this stream does not have from ``defaults``."""
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self._check()

    @property
    def weight(self) -> dict[str, float | int]:
        """The one of proportion, repeat and choose that was given, by name; empty if none was."""
        names = ('proportion', 'repeat', 'choose')
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _root(self) -> str | None:
        """The remote's root with the split."""
        if self.remote is None or self.split is None:
            return self.remote
        plain, mark, query = self.remote.partition('?')
        return f'{plain.rstrip("/")}/{self.split}{mark}{query}'

    def _folder(self) -> Path:
        if self.local is not None:
            return Path(self.local).expanduser() / (self.split or '')
        where = self.remote if self.remote is not None else self.store.url if self.store is not None else ''
        return default_cache_path(where, self.split)

    def open(self, index_hash: str | None = None) -> 'OpenStream':
        """Read the index and be ready to read shards.

        Args:
            index_hash: Where another process of this job has opened the stream: the index that it found, which is then taken from
                the folder without asking the remote. Default: None.

        Raises:
            NotFoundError: there is no such dataset.
            StaleCacheError: the local folder holds something else.
            FormatError: the index is not one.
        """
        folder = self._folder()
        timeout_s = self.download_timeout or 60.0
        store = self.store if self.store is not None else self._open_store(timeout_s)
        cache, cache_folder = None, None
        if store is None or _same_folder(self._root(), folder):
            data, source = _read_index(folder), str(folder / INDEX_NAME)
        else:
            cache_folder = CacheFolder(folder)
            refresh = self.on_stale == 'refresh'
            data = _read_index(folder) if index_hash else cache_folder.sync_index(store, timeout_s, refresh=refresh)
            source = store.url_of(INDEX_NAME)
        found = hashlib.sha256(data).hexdigest()
        if index_hash not in (None, found):
            raise StaleCacheError(f'{folder / INDEX_NAME} has changed since this job began; start the job anew')
        table = ShardTable.from_json(data, source)
        self._check_hashes(table, source)
        if store is not None and cache_folder is not None:
            policy = FetchPolicy(
                refetches=2 if self.download_retry is None else self.download_retry,
                validate_hash=self.validate_hash,
                keep_zip=bool(self.keep_zip),
            )
            cache = ShardCache(store, cache_folder, table, found, policy, timeout_s)
        return OpenStream(table=table, folder=folder, cache=cache, index_hash=found, source=source)

    def _open_store(self, timeout_s: float) -> Store | None:
        root = self._root()
        if root is None:
            return None
        # A request without a byte is given up in time for two more within the limit, and an outage is waited out nearly as long.
        retry = RetryPolicy(tries=1000, deadline_s=timeout_s * 2 / 3, budget_per_s=10.0)
        return open_store(root, {'timeout_s': timeout_s / 3}, retry=retry)

    def _check_hashes(self, table: ShardTable, source: str) -> None:
        if self.validate_hash is not None and len(table):
            recorded = table[0].hashes
            if self.validate_hash not in recorded:
                raise ArgumentError(
                    f'validate_hash is {self.validate_hash!r}, but {source} records {", ".join(recorded) or "no hashes"}'
                )


def make_streams(
    streams: Sequence[Stream] | None, name: str, arguments: dict[str, Any], defaults: Mapping[str, Any]
) -> list[Stream]:
    """The streams of a dataset, each a copy that has the dataset's defaults.

    Args:
        streams: Those that were given; None: one is made.
        name: Which registered class to make it from.
        arguments: Of that class.
        defaults: What a stream takes over where it says nothing itself.

    Raises:
        ArgumentError: both streams and a place of one were given, or neither.
    """
    given = [key for key in ('remote', 'local') if arguments.get(key) is not None]
    if streams is None:
        made = [get_stream_class(name)(**arguments)]
    elif given:
        raise ArgumentError(f'give either streams or {" and ".join(given)}, not both')
    elif not streams:
        raise ArgumentError('streams is empty; a dataset needs at least one')
    else:
        # Copies: two datasets may be made from the same streams, with other defaults.
        made = [copy.copy(stream) for stream in streams]
    for stream in made:
        stream.apply_defaults(defaults)
    return made


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream whose index has been read.

    Args:
        table: Its shards.
        folder: Where its raw shards lie or will lie.
        cache: What brings them; None where the folder is the source.
        index_hash: SHA-256 of the index, in hex.
        source: The index's URL, for messages.
    """

    table: ShardTable
    folder: Path
    cache: ShardCache | None
    index_hash: str
    source: str

    def is_here(self, shard: int) -> bool:
        """Whether the shard can be opened now."""
        return self.cache is None or self.cache.has(shard)

    def ranges_of(self, shard: int, check_cancelled: Callable[[], None]) -> ObjectRanges | None:
        """The shard's object, to read single samples of it; None where there is none, or it has no samples that can be found."""
        info = self.table[shard]
        if self.cache is None or info.format != 'mds' or info.compression is not None:
            return None
        return self.cache.ranges_of(info, check_cancelled)

    def cached_bytes(self) -> int:
        """Bytes of the shards' files, compressed and not, that lie in the cache folder; 0 where the folder is the source."""
        if self.cache is None:
            return 0
        total = 0
        for number in range(len(self.table)):
            shard = self.table[number]
            for name in {file.basename for file in (*shard.raw_files, *shard.stored)}:
                with suppress(FileNotFoundError, NotADirectoryError):
                    total += (self.folder / name).stat().st_size
        return total

    def open_shard(self, shard: int, *, columns: list[str] | None, allow_unsafe_types: bool) -> Reader:
        """Open a shard that is here."""
        return open_shard(self.folder, self.table[shard], columns=columns, allow_unsafe_types=allow_unsafe_types)


def _read_index(folder: Path) -> bytes:
    path = folder / INDEX_NAME
    try:
        with open_file(path) as file:
            return file.readall()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f'{path} does not exist: wrong folder or split, or the dataset is not finished (its index is written last)'
        ) from error


def _same_folder(root: str | None, folder: Path) -> bool:
    if root is None or '://' in root:
        return root is not None and root == f'file://{folder.absolute()}'
    return Path(root).expanduser().absolute() == folder.absolute()
