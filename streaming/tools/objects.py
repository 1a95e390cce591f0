"""One object of a dataset, read in pieces and held against what the index says of it."""

from collections.abc import Iterator

from streaming.cache.ranged import ObjectRanges
from streaming.errors import CorruptError
from streaming.format.hashing import get_hashes, new_hash
from streaming.format.index import FileInfo
from streaming.store.protocol import ObjectInfo, Store
from streaming.tools.parallel import OnBytes

__all__ = ['FileCheck', 'check_size', 'read_object']

_PIECE_BYTES = 8 << 20


def read_object(store: Store, file: FileInfo, on_bytes: OnBytes) -> Iterator[memoryview]:
    """The bytes of an object in order, a few MiB at a time, all of one version and as many as the index says.

    Args:
        store: Where it is.
        file: What the index says of it.
        on_bytes: Called as bytes arrive; what it raises ends the read.

    Raises:
        CorruptError: it has another size, or is overwritten meanwhile.
        StoreError: the store failed.
    """
    if not file.bytes:
        check_size(store.head(file.basename), file, store.url_of(file.basename))
    ranges = ObjectRanges(store, file, on_bytes)
    for start in range(0, file.bytes, _PIECE_BYTES):
        piece = memoryview(bytearray(min(_PIECE_BYTES, file.bytes - start)))
        ranges.read(start, piece)
        yield piece


def check_size(info: ObjectInfo, file: FileInfo, url: str) -> None:
    """Hold an object's size against the index.

    Raises:
        CorruptError: it has another one.
    """
    if info.size != file.bytes:
        raise CorruptError(f'{url} has {info.size} bytes, the index says {file.bytes}')


class FileCheck:
    """Length and all hashes of a file, as its bytes go by.

    Args:
        file: What the index says.
        what: The file, for messages.

    Attributes:
        names: Of the hashes that are checked: those that are recorded, without any that this machine does not know.
    """

    def __init__(self, file: FileInfo, what: str) -> None:
        self._file = file
        self._what = what
        known = get_hashes()
        self._hashes = {name: new_hash(name) for name in file.hashes if name in known}
        self._size = 0
        self.names = tuple(self._hashes)

    def update(self, data: bytes | memoryview) -> None:
        """Take in the next bytes."""
        self._size += len(data)
        for digest in self._hashes.values():
            digest.update(data)

    def finish(self) -> None:
        """Hold all against the index.

        Raises:
            CorruptError: it is another file.
        """
        if self._size != self._file.bytes:
            raise CorruptError(f'{self._what} has {self._size} bytes, the index says {self._file.bytes}')
        for name, digest in self._hashes.items():
            found, wanted = digest.hexdigest(), self._file.hashes[name]
            if found != wanted:
                raise CorruptError(f'{self._what}: its {name} is {found}, the index says {wanted}')
