"""Making a cache of an older version of a dataset one of the newer: what is the same stays, the rest of what was fetched goes."""

from contextlib import suppress
from pathlib import Path

from streaming.cache.ledger import unused
from streaming.errors import StaleCacheError
from streaming.format.index import FileInfo, ShardInfo, ShardTable

__all__ = ['forget_stale']


def forget_stale(folder: Path, hidden: Path, old: ShardTable, new: ShardTable) -> None:
    """Delete the fetched files that are not what the new index says, and all that the hidden folder knows of shards.

    A file stays if the new index names it with the same size and the same hashes. Where no hashes were recorded, none does.

    Args:
        folder: The cache folder.
        hidden: Its hidden part.
        old: The shards that it holds.
        new: The shards that it shall hold.

    Raises:
        StaleCacheError: a running process reads the older version, or some of it was put there by somebody else.
    """
    wanted = {file.basename: file for shard in new for file in _files(shard)}
    with unused(hidden) as is_free:
        if not is_free:
            raise StaleCacheError(f'{folder} holds an older version of the dataset, which a running process reads: let it end')
        files = [file for shard in old for file in _files(shard)]
        stale = [folder / file.basename for file in files if not _is_same(file, wanted.get(file.basename))]
        theirs = [path for path in stale if path.exists() and path.stat().st_mode & 0o222]
        if theirs:
            raise StaleCacheError(
                f'{folder} holds an older version of the dataset, and {len(theirs)} of its files were not fetched but put there '
                f'otherwise, {theirs[0].name} for one. They are not deleted: move them, or use another local folder'
            )
        for path in stale:
            path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            for path in (*(hidden / 'fetching').glob('*.part*'), hidden / 'ledger'):
                path.unlink()


def _files(shard: ShardInfo) -> list[FileInfo]:
    """The shard's files, compressed and not."""
    return [*shard.raw_files, *(file for file in shard.stored if file not in shard.raw_files)]


def _is_same(old: FileInfo, new: FileInfo | None) -> bool:
    return new is not None and old == new and bool(old.hashes)
