"""Entries of an index that are alike, checked many at a time.

What one writer says of its shards differs in numbers, names and digests alone, and each of these mostly has as many letters as in
the shard before. So once the text of an entry was checked, any text that has the same bytes around those values, digits where it
has a number and plain letters where it has a name or a digest, is an entry as well, with the same keys and other values. What is
not alike is not wrong: it is checked on its own.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ['Layout']

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Int64Array = NDArray[np.int64]

# So many digits are a number below 1 << 62, and four of it are in int64.
_MOST_DIGITS = 18
# The longest name of a file or folder.
_MOST_LETTERS = 255

_find_tokens = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}:,]|[^][{}:,"\s]+').finditer

_SLASH = ord('/')
# Letters that stand for themselves in JSON and in the name of a file, and those of them that may begin a part of a name.
_is_plain = np.array([0x20 <= letter < 0x7F and letter not in b'"\\' for letter in range(256)])
_may_begin = _is_plain & ~np.isin(np.arange(256), list(b'./'))

_find_last_odd = re.compile(rb'.*[^ !#-\[\]-~]', re.DOTALL).match


def _values(text: bytes) -> Iterator[tuple[tuple[str, ...], slice]]:
    """Each value of an object that is no object or list, by the keys that lead to it; a string's without its quotes."""
    path, is_value, name = [''], False, b''
    for token in _find_tokens(text):
        match token[0]:
            case b'{' | b'[':
                path.append('')
            case b'}' | b']':
                path.pop()
            case b':':
                path[-1], is_value = name[1:-1].decode(), True
                continue
            case b',':
                pass
            case name:
                quotes = int(name.startswith(b'"'))
                if is_value:
                    yield tuple(path[1:]), slice(token.start() + quotes, token.end() - quotes)
        is_value = False


@dataclass(frozen=True, slots=True)
class _Name:
    """Where a name differs: after a prefix that needs a closer look and had one."""

    prefix: bytes
    letters: slice

    @classmethod
    def find(cls, text: bytes, place: slice) -> '_Name | None':
        """None where what is odd in it reaches into its last part."""
        odd = _find_last_odd(text[place])
        begin = 0 if odd is None else text.find(b'/', place.start + odd.end(), place.stop) + 1 - place.start
        if begin < 0 or not 0 < place.stop - place.start - begin <= _MOST_LETTERS:
            return None
        prefix = json.loads(b'"%s"' % text[place.start : place.start + begin])
        return cls(prefix.encode(errors='surrogatepass'), slice(place.start + begin, place.stop))

    def check(self, letters: Bytes) -> Bools:
        """Which rows are names inside the dataset, in folders that are not hidden."""
        begins = _may_begin[letters]
        good: Bools = _is_plain[letters].all(axis=1) & begins[:, 0] & (letters[:, -1] != _SLASH)
        good &= (begins[:, 1:] | (letters[:, :-1] != _SLASH)).all(axis=1)
        return good

    def read(self, letters: Bytes) -> list[bytes]:
        """The names, as UTF-8."""
        names: list[bytes] = np.ascontiguousarray(letters).view(f'S{letters.shape[1]}')[:, 0].tolist()
        return [self.prefix + name for name in names] if self.prefix else names


class Layout:
    """The text of an entry, and where others may differ from it.

    Args:
        text: It was checked, and has no key twice.
        files: Keys of the files that it names.

    Raises:
        ValueError: it says something in an unusual way, so that nothing can be said of others.
    """

    def __init__(self, text: bytes, files: Collection[str]) -> None:
        self._text = np.frombuffer(text, np.uint8)
        self._numbers: dict[str, slice] = {}
        self._names: dict[str, _Name] = {}
        self._digests: list[slice] = []
        for path, place in _values(text):
            self._take(text, path, place)
        self._is_free = np.zeros(len(text), np.bool_)
        for place in (*self._numbers.values(), *(name.letters for name in self._names.values()), *self._digests):
            self._is_free[place] = True
        if self._numbers.keys() != {'samples', *files} or self._names.keys() != set(files):
            raise ValueError('a key is written with escapes')

    def _take(self, text: bytes, path: tuple[str, ...], place: slice) -> None:
        match path:
            case ('samples',) | ('raw_data' | 'raw_meta' | 'zip_data' | 'zip_meta', 'bytes'):
                if not text[place].isdigit() or place.stop - place.start > _MOST_DIGITS:
                    raise ValueError('a number that is not a few digits')
                self._numbers[path[0]] = place
            case ('raw_data' | 'raw_meta' | 'zip_data' | 'zip_meta', 'basename'):
                name = _Name.find(text, place)
                if name is None:
                    raise ValueError('a name of odd letters')
                self._names[path[0]] = name
            case ('raw_data' | 'raw_meta' | 'zip_data' | 'zip_meta', 'hashes', _):
                self._digests.append(place)
            case _:
                pass

    def __len__(self) -> int:
        return len(self._text)

    def match(self, rows: Bytes) -> Bools:
        """Which texts are entries of this layout, (rows,).

        Args:
            rows: Texts of the same length, (rows, length).
        """
        good: Bools = ((rows == self._text) | self._is_free).all(axis=1)
        for place in self._numbers.values():
            good &= (_digits(rows, place) <= 9).all(axis=1)
            if place.stop - place.start > 1:
                good &= rows[:, place.start] != ord('0')
        for name in self._names.values():
            good &= name.check(rows[:, name.letters])
        for place in self._digests:
            good &= _is_plain[rows[:, place]].all(axis=1)
        return good

    def read_numbers(self, rows: Bytes) -> tuple[Int64Array, dict[str, Int64Array]]:
        """Samples of texts that `match`, (rows,), and bytes of each file, by key; of those that do not, any number."""
        numbers = {key: _digits(rows, place) @ _powers(place) for key, place in self._numbers.items()}
        return numbers.pop('samples'), numbers

    def read_names(self, rows: Bytes) -> list[bytes]:
        """Names of all files of texts that `match`, as UTF-8."""
        return [text for name in self._names.values() for text in name.read(rows[:, name.letters])]


def _digits(rows: Bytes, place: slice) -> Bytes:
    # What is no digit comes out above 9.
    digits: Bytes = rows[:, place] - np.uint8(ord('0'))
    return digits


def _powers(place: slice) -> Int64Array:
    return 10 ** np.arange(place.stop - place.start - 1, -1, -1, dtype=np.int64)
