"""A dataset of the package ``datasets`` as `save_to_disk` leaves it: Arrow files, and beside them which they are.

dataset_dict.json         the splits, where there are any; each is a sub-folder with
state.json                the names of the files, in order
data-00000-of-00001.arrow
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streaming.errors import FormatError
from streaming.writers.convert.sources.arrow import ArrowSource
from streaming.writers.convert.sources.files import Files, InputFile

__all__ = ['HuggingFaceSource']

_STATE = 'state.json'


class HuggingFaceSource(ArrowSource):
    """A dataset, or a dictionary of datasets, that was saved on disk. Its splits are those of the output.

    Args:
        files: Where they lie.
        suffixes: Nothing: the dataset says what its files are.

    Raises:
        MissingExtraError: pyarrow is not installed.
        FormatError: it is none.
    """

    name = 'huggingface'

    def __init__(self, files: Files, suffixes: Sequence[str]) -> None:
        there = {(file.place, file.key): file for file in files.find()}
        states = [file for file in files.find() if file.key.split('/')[-1] == _STATE]
        if not states:
            raise FormatError(f'{files.url} has no {_STATE}, so it is no dataset that save_to_disk has left')
        chosen = []
        for state in states:
            folder = state.key[: -len(_STATE)]
            for name in self._names(files, state):
                file = there.get((state.place, folder + name))
                if file is None:
                    raise FormatError(f'{files.name(state.place, state.key)} names {name!r}, which is not there')
                chosen.append(file)
        self.splits = list(dict.fromkeys(_folder(file.key) for file in states if '/' in file.key))
        files.keep(chosen)
        super().__init__(files, ('',))

    def _names(self, files: Files, state: InputFile) -> list[str]:
        name = files.name(state.place, state.key)
        try:
            found = [entry['filename'] for entry in json.loads(files.read(state.place, state.key))['_data_files']]
        except (ValueError, LookupError, TypeError) as error:
            raise FormatError(f'{name} does not say which files the dataset has') from error
        if not all(isinstance(name, str) and '/' not in name for name in found):
            raise FormatError(f'{name} names files that are not beside it')
        return found

    def split_of(self, file: InputFile) -> str:
        return _folder(file.key) if self.splits else ''

    def describe(self) -> Mapping[str, Any]:
        return {**self._files.describe(), 'splits': list(self.splits)}


def _folder(key: str) -> str:
    return key.rpartition('/')[0]
