"""A folder of images, with a sub-folder a class: each file is a record with its bytes and its class."""

from collections.abc import Mapping, Sequence
from typing import Any

from streaming.errors import ArgumentError
from streaming.writers.convert.sources.base import BadRecord
from streaming.writers.convert.sources.files import Files, InputFile
from streaming.writers.convert.sources.whole import WholeFileSource

__all__ = ['ImageSource']

_SPLITS = ('dev', 'test', 'train', 'training', 'val', 'valid', 'validation')


class ImageSource(WholeFileSource):
    """Files of images.

    Records have ``image``, the file's bytes, ``file``, its path below the folder, and, where there are sub-folders, ``class``,
    the name of the first one, and ``label``, its number among their sorted names. Where the first sub-folders are ``train``,
    ``val`` and so on, with classes below them, they are splits.

    Args:
        files: Where they lie.
        suffixes: What their names end in.

    Raises:
        NotFoundError: there is no such file.
        ArgumentError: some files are in sub-folders and some are not.
    """

    name = 'images'

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        super().__init__(files, suffixes)
        folders = [file.key.split('/')[:-1] for file in self._chosen]
        self._depth = 0
        if all(len(parts) > 1 and parts[0].lower() in _SPLITS for parts in folders):
            self._depth = 1
            self.splits = sorted({parts[0] for parts in folders})
        without = [file.key for file, parts in zip(self._chosen, folders, strict=True) if len(parts) <= self._depth]
        if without and len(without) < len(folders):
            raise ArgumentError(
                f'{self.url} has {len(without)} images in no sub-folder (such as {without[0]}), others are in classes'
            )
        classes = sorted({parts[self._depth] for parts in folders if len(parts) > self._depth})
        self._labels = {name: label for label, name in enumerate(classes)}
        keys = [file.key.lower() for file in self._chosen]
        self._encoding = (
            'jpeg'
            if all(key.endswith(('.jpg', '.jpeg')) for key in keys)
            else 'png'
            if all(key.endswith('.png') for key in keys)
            else 'bytes'
        )

    def encodings(self) -> dict[str, str]:
        of_class = {'class': 'str', 'label': 'int'} if self._labels else {}
        return {'image': self._encoding, 'file': 'str', **of_class}

    def split_of(self, file: InputFile) -> str:
        return file.key.split('/')[0] if self.splits else ''

    def about(self, file: InputFile) -> str | None:
        return file.key.split('/')[self._depth] if self._labels else None

    def record(self, key: str, data: bytes, about: str | None) -> Mapping[str, Any] | BadRecord:
        if not data:
            return BadRecord('the file is empty')
        record: dict[str, Any] = {'image': data, 'file': key}
        if about is not None:
            record.update({'class': about, 'label': self._labels[about]})
        return record
