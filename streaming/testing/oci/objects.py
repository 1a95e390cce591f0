"""Objects on disk: a folder a bucket, two files an object. What is put is there whole or not at all."""

import base64
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ['Bucket', 'Objects', 'StoredObject', 'Upload', 'spool']


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What is known of an object beside its bytes.

    Args:
        name: Its name.
        size: Its size in bytes.
        etag: New with every put.
        md5: Base64 MD5 of its bytes; of an object in parts, of their MD5s, followed by their number.
        parts: How many parts it was put in; 0 if in one.
        modified: When, in seconds since 1970.
    """

    name: str
    size: int
    etag: str
    md5: str
    parts: int
    modified: float


class Upload:
    """An upload in parts that is going on.

    Args:
        name: The object's name.
        folder: Where its parts lie.
        headers: Conditions that the commit shall meet.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.id = uuid.uuid4().hex
        self.name = name
        self.folder = folder / self.id
        self.folder.mkdir()
        self.parts: dict[int, StoredObject] = {}

    def path(self, number: int) -> Path:
        """Where a part lies."""
        return self.folder / str(number)


class Bucket:
    """One bucket.

    Args:
        folder: Where its objects lie; what an earlier server left there is taken up.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / 'spool'
        shutil.rmtree(self.spool, ignore_errors=True)
        self.spool.mkdir(parents=True)
        self.uploads: dict[str, Upload] = {}
        self.objects: dict[str, StoredObject] = {}
        for path in folder.glob('*.json'):
            stored = StoredObject(**json.loads(path.read_text()))
            self.objects[stored.name] = stored

    def path(self, stored: StoredObject) -> Path:
        """Where an object's bytes lie. Every version has its own file, so a read that is going on keeps its version."""
        return self.folder / f'{_flat(stored.name)}-{stored.etag}'

    def commit(self, name: str, temporary: Path, md5: str, parts: int = 0) -> StoredObject:
        """Make a file the object of that name."""
        stored = StoredObject(name, temporary.stat().st_size, str(uuid.uuid4()), md5, parts, time.time())
        temporary.replace(self.path(stored))
        note = self.spool / stored.etag
        note.write_text(json.dumps(asdict(stored)))
        note.replace(self.folder / f'{_flat(name)}.json')
        before = self.objects.get(name)
        self.objects[name] = stored
        if before is not None:
            self.path(before).unlink(missing_ok=True)
        return stored

    def delete(self, name: str) -> None:
        """Remove an object that exists."""
        stored = self.objects.pop(name)
        (self.folder / f'{_flat(name)}.json').unlink()
        self.path(stored).unlink(missing_ok=True)

    def commit_parts(self, upload: Upload, numbers: list[int]) -> StoredObject:
        """Put an object together from parts."""
        temporary = self.spool / f'{upload.id}-whole'
        digest = hashlib.md5(usedforsecurity=False)
        with temporary.open('wb') as file:
            for number in numbers:
                digest.update(base64.b64decode(upload.parts[number].md5))
                with upload.path(number).open('rb') as part:
                    shutil.copyfileobj(part, file, 1 << 20)
        md5 = f'{base64.b64encode(digest.digest()).decode()}-{len(numbers)}'
        self.abort(upload)
        return self.commit(upload.name, temporary, md5, len(numbers))

    def abort(self, upload: Upload) -> None:
        """Forget an upload."""
        del self.uploads[upload.id]
        shutil.rmtree(upload.folder, ignore_errors=True)


class Objects:
    """All buckets of a namespace.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.buckets = {path.name: Bucket(path) for path in folder.iterdir() if path.is_dir()}

    def create(self, name: str) -> Bucket:
        """A new bucket, or the one there is."""
        if name not in self.buckets:
            (self._folder / name).mkdir(exist_ok=True)
            self.buckets[name] = Bucket(self._folder / name)
        return self.buckets[name]


def _flat(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


async def spool(chunks: AsyncIterator[bytes], folder: Path) -> tuple[Path, str, int]:
    """Write a body to a new file: its path, its base64 MD5 and its size. What breaks off leaves nothing."""
    digest = hashlib.md5(usedforsecurity=False)
    descriptor, name = tempfile.mkstemp(dir=folder)
    size = 0
    try:
        with os.fdopen(descriptor, 'wb') as file:
            async for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
                size += len(chunk)
    except BaseException:  # a client that has left, too: no half an object stays
        Path(name).unlink()
        raise
    return Path(name), base64.b64encode(digest.digest()).decode(), size
