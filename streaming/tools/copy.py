"""A dataset from one store to another: verified on the way, taken up where it broke off, the index last."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from streaming.cache.folder import INDEX_NAME
from streaming.errors import AlreadyExistsError, ArgumentError, NotFoundError, StoreError
from streaming.format.index import FileInfo
from streaming.store import open_store
from streaming.store.protocol import Store
from streaming.tools.objects import FileCheck, read_object
from streaming.tools.parallel import OnBytes, in_parallel
from streaming.tools.source import DatasetSource

__all__ = ['Copied', 'copy_dataset']

# What a copy that has not ended leaves beside the objects: which dataset they are of.
_MARK = '.streaming-copy.json'
# A larger object goes through a temporary file.
_MEMORY_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What became of a copy.

    Args:
        source: The root that was copied from, without secrets.
        destination: The root that was copied to, without secrets.
        samples: How many the dataset has.
        objects: How many it has beside its index.
        bytes: Of them.
        copied_objects: How many were copied; the others were there already.
        copied_bytes: Of them.
        hashed_objects: How many of those that were copied have a recorded hash; the others were held against their size alone.
    """

    source: str
    destination: str
    samples: int
    objects: int
    bytes: int
    copied_objects: int
    copied_bytes: int
    hashed_objects: int


def copy_dataset(
    source: str | Path,
    destination: str | Path,
    *,
    workers: int = 8,
    on_begin: Callable[[int], None] | None = None,
    on_bytes: OnBytes | None = None,
) -> Copied:
    """Copy a dataset. Every object is held against the index (its size and every recorded hash) before it is put.

    The index is put last, so there is no dataset before all of it is there. A copy that broke off is taken up by the same call: a
    small object says which dataset is being copied, and goes when the index has come. Two copies of one dataset to one place do
    no harm.

    Args:
        source: A path or a URL of the dataset's root.
        destination: A path or a URL of the new root.
        workers: Objects at a time. Each takes up to 64 MiB; a larger object goes through a temporary file. Default: 8.
        on_begin: Called once with the number of bytes that will be copied. Default: None.
        on_bytes: Called from several threads with the number of bytes that were just read. Default: None.

    Raises:
        NotFoundError: there is no dataset.
        AlreadyExistsError: the destination holds another dataset, or a part of one.
        CorruptError: an object is not what the index says. Nothing of it was put, and there is no new index.
        StoreError: a store failed; call again.
    """
    with DatasetSource(source) as original, closing(open_store(str(destination))) as target:
        if original.url == target.url:
            raise ArgumentError(f'a dataset cannot be copied onto itself: {original.url}')
        files = {file.basename: file for shard in original.table for file in shard.stored}
        there = _begin(original, target, files)
        missing = [file for name, file in files.items() if there.get(name) != file.bytes]
        if on_begin is not None:
            on_begin(sum(file.bytes for file in missing))

        def copy(file: FileInfo, note: OnBytes) -> int:
            return _copy(original.store, target, file, note)

        stores = (original.store, target)
        copied = list(in_parallel(missing, copy, workers=workers, stores=stores, on_bytes=on_bytes))
        _put(target, INDEX_NAME, original.index, len(original.index))
        target.delete(_MARK)
        return Copied(
            source=original.url,
            destination=target.url,
            samples=original.table.num_samples,
            objects=len(files),
            bytes=sum(file.bytes for file in files.values()),
            copied_objects=len(copied),
            copied_bytes=sum(copied),
            hashed_objects=sum(bool(file.hashes) for file in missing),
        )


def _begin(original: DatasetSource, target: Store, files: Mapping[str, FileInfo]) -> dict[str, int]:
    """See that nothing is overwritten, and leave a mark; sizes of the objects that an earlier copy of this dataset has put."""
    index, mark = _get(target, INDEX_NAME), _get(target, _MARK)
    ours = json.dumps({'index_sha256': original.index_sha256}).encode()
    if index not in (None, original.index):
        raise AlreadyExistsError(f'{target.url} holds another dataset, or another version of this one: copy to another place')
    if index is None and mark not in (None, ours):
        raise AlreadyExistsError(
            f'{target.url_of(_MARK)}: a copy of another dataset was begun here and has not ended: end it, or delete what is there'
        )
    there = {info.key: info.size for info in target.list() if info.key in files}
    if index is None and mark is None:
        if there:
            raise AlreadyExistsError(
                f'{target.url_of(min(there))} exists, of a writer that did not finish: delete what is there, or copy elsewhere'
            )
        _put(target, _MARK, ours, len(ours))
    return there


def _copy(source: Store, target: Store, file: FileInfo, on_bytes: OnBytes) -> int:
    """Copy one object; its size. A put is atomic, so what has the right size under its name is whole."""
    pieces = _checked(source, file, on_bytes)
    if file.bytes <= _MEMORY_BYTES:
        _put(target, file.basename, b''.join(pieces), file.bytes)
    else:
        with tempfile.NamedTemporaryFile(prefix='streaming-') as large:
            large.writelines(pieces)
            large.flush()
            _put(target, file.basename, Path(large.name), file.bytes)
    return file.bytes


def _checked(source: Store, file: FileInfo, on_bytes: OnBytes) -> Iterator[memoryview]:
    """The pieces of an object, and an error instead of an end if it is not what the index says."""
    check = FileCheck(file, source.url_of(file.basename))
    for piece in read_object(source, file, on_bytes):
        check.update(piece)
        yield piece
    check.finish()


def _put(target: Store, key: str, source: bytes | Path, size: int) -> None:
    found = target.put(key, source).size
    if found != size:
        raise StoreError(f'{target.url_of(key)}: {size} bytes were put, the store has {found}')


def _get(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key)
    except NotFoundError:
        return None
