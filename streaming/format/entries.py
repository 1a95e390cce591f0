"""Reading an index: nothing in it is believed before it was checked.

Names that lead out of the dataset, sizes and counts that cannot be, files that two shards share, keys that stand twice: each is
an error that names the index and the shard. Most shards of an index have all but their sizes and names in common: what they
share is looked at once, and those of one layout are looked at together.
"""

import json
import re
from typing import Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from streaming.errors import FormatError
from streaming.format.columns import unknown_extensions
from streaming.format.layout import Layout
from streaming.format.shard import FILES, FORMATS, INDEX_VERSION, SCHEMA_KEYS, FileInfo, ShardInfo

__all__ = ['Entries', 'read_entry', 'read_index']

_MOST_BYTES = 1 << 62
_MOST_SHARD_BYTES = (1 << 32) - 1

# Entries that are looked at together: their texts stay in the processor's cache. Fewer than the least are quicker one by one.
_MOST_ROWS = 2048
_LEAST_ROWS = 16
# Of entries of the same length. Each costs a check of its first entry, and a comparison of all that are left.
_MOST_LAYOUTS = 16


class _Version(msgspec.Struct):
    version: Any = msgspec.UNSET


class _BriefFile(msgspec.Struct, gc=False):
    """What is looked at of every file when an index is loaded."""

    basename: str
    bytes: int


class _Brief(msgspec.Struct, gc=False):
    """What is looked at of every shard when an index is loaded. What shards mostly share stays text."""

    version: int
    format: str
    samples: int
    raw_data: _BriefFile
    raw_meta: _BriefFile | None = None
    zip_data: _BriefFile | None = None
    zip_meta: _BriefFile | None = None
    compression: str | None = None
    hashes: msgspec.Raw = msgspec.Raw(b'[]')
    size_limit: int | None = None
    column_names: msgspec.Raw = msgspec.Raw()
    column_encodings: msgspec.Raw = msgspec.Raw()
    column_sizes: msgspec.Raw = msgspec.Raw()
    columns: msgspec.Raw = msgspec.Raw()
    newline: str | None = None
    separator: str | None = None

    def files(self) -> dict[str, _BriefFile]:
        """The files that it names, by key."""
        files = {'raw_data': self.raw_data, 'raw_meta': self.raw_meta, 'zip_data': self.zip_data, 'zip_meta': self.zip_meta}
        return {key: file for key, file in files.items() if file is not None}

    def shared(self) -> tuple[Any, ...]:
        """All that a shard has in common with the others of its writer."""
        texts = (self.hashes, self.column_names, self.column_encodings, self.column_sizes, self.columns)
        return (self.version, self.format, self.compression, self.size_limit, self.newline, self.separator, *map(bytes, texts))


class _Shards(msgspec.Struct):
    version: int
    shards: list[msgspec.Raw]
    extensions: list[str] = []


_read_shards = msgspec.json.Decoder(_Shards).decode
_read_brief = msgspec.json.Decoder(_Brief).decode

# Names that need no closer look: no folders, nothing hidden, nothing odd.
_is_plain = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}').fullmatch

# What looks like a key. Text in a value may too, so that the keys of an object are no more than these.
_find_keys = re.compile(rb'"[ \t\r\n]*:').findall


def _find_version(data: bytes) -> Any:
    """The version that an index has, if that alone can be read."""
    try:
        version = msgspec.json.decode(data, type=_Version).version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return INDEX_VERSION  # what is wrong is said with the rest
    return INDEX_VERSION if version is msgspec.UNSET else version


def _address(data: bytes | msgspec.Raw) -> int:
    return int(np.frombuffer(data, np.uint8).__array_interface__['data'][0])


def _without(data: bytes, texts: list[msgspec.Raw]) -> bytes:
    """An index without its entries; with them, where they are no slices of its text."""
    if not texts:
        return data
    begin, end = (_address(text) - _address(data) for text in (texts[0], texts[-1]))
    end += len(texts[-1])
    return data[:begin] + data[end:] if 0 < begin < end < len(data) else data


def _count_keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0


class Entries:
    """An index that was checked: the text of each shard's entry, and numbers of all.

    Args:
        texts: The entries.

    Attributes:
        samples: Of each shard, int64 (shards,).
        raw_bytes: Of each shard's uncompressed files, int64 (shards,).
        stored_bytes: Of each shard's files in the store, int64 (shards,).
    """

    def __init__(self, texts: list[msgspec.Raw]) -> None:
        self.texts = texts
        self.samples, self.raw_bytes, self.stored_bytes = np.zeros((3, len(texts)), np.int64)

    def put(self, where: Any, compression: str | None, samples: Any, sizes: dict[str, Any]) -> None:
        """Take in shards: one, or as many as the numbers have rows."""
        self.samples[where] = samples
        self.raw_bytes[where] = raw = sizes['raw_data'] + sizes.get('raw_meta', 0)
        self.stored_bytes[where] = raw if compression is None else sizes['zip_data'] + sizes.get('zip_meta', 0)


def read_index(data: bytes, source: str) -> Entries:
    """Check the text of an ``index.json``.

    Args:
        data: Its bytes.
        source: Its URL or path, for messages.

    Raises:
        FormatError: it is not an index, or says what cannot be.
    """
    return _Checker(source).index(data)


def read_entry(text: msgspec.Raw, source: str) -> ShardInfo:
    """Check the text of one shard's entry.

    Raises:
        FormatError: it is not what the format says.
    """
    try:
        return _Checker(source).text(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Where an index is loaded, what is not looked at is only skipped.
        raise FormatError(f'{source} is no JSON: {error}') from error


class _Checker:
    """Holds what an index says against the format. Every complaint names the index and the shard."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._where = ''

    def refuse(self, what: str) -> NoReturn:
        raise FormatError(f'{self._source}{self._where}: {what}')

    def index(self, data: bytes) -> Entries:
        """Check a whole index."""
        try:
            index = _read_shards(data)
            self._check_version(index.version)
            unknown = unknown_extensions(index.extensions)
            if unknown:
                # An encoding of another package is known where that is installed.
                self.refuse(f'it needs {", ".join(unknown)}, which nothing here knows: upgrade the library, or install what does')
            self._refuse_doubles(_without(data, index.shards))
            return self._look_at(index.shards)
        except msgspec.ValidationError as error:
            self._check_version(_find_version(data))
            raise FormatError(f'{self._source}{self._where}: {error}') from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._check_version(_find_version(data))
            raise FormatError(f'{self._source} is not JSON, or only a part of it: {error}') from error

    def _look_at(self, texts: list[msgspec.Raw]) -> Entries:
        found = Entries(texts)
        names: list[bytes] = []
        alone: list[int] = []
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        order = np.argsort(lengths, kind='stable')
        for numbers in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            alone += self._look_at_alike(found, numbers, names)
        shared_by_some: set[tuple[Any, ...]] = set()
        # In their order, so that of many that are wrong the first is named.
        for number in sorted(alone):
            names += self._look_at_one(found, number, shared_by_some)
        different = set(names)
        if len(different) < len(names) or b'index.json' in different:
            self._refuse_names(texts)
        self._where = ''
        return found

    def _look_at_alike(self, found: Entries, numbers: NDArray[np.int64], names: list[bytes]) -> list[int]:
        """Take in the entries of one length that are like others which were checked.

        Args:
            found: What to take them in to.
            numbers: The entries, whose texts have the same length.
            names: Takes in their files' names.

        Returns:
            Those that must be looked at on their own.
        """
        layouts: list[tuple[_Brief, Layout]] = []
        alone: list[int] = []
        for begin in range(0, len(numbers), _MOST_ROWS):
            left = numbers[begin : begin + _MOST_ROWS]
            rows = np.frombuffer(b''.join([found.texts[number] for number in left.tolist()]), np.uint8).reshape(len(left), -1)
            tried = 0
            while len(left) >= _LEAST_ROWS:
                if tried == len(layouts):
                    another = None if tried == _MOST_LAYOUTS else self._layout(found.texts[left[0]])
                    if another is None:
                        break
                    layouts.append(another)
                brief, layout = layouts[tried]
                tried += 1
                good = layout.match(rows)
                samples, sizes = layout.read_numbers(rows)
                good &= self._can_be(samples, sizes)
                if good.any():
                    found.put(left[good], brief.compression, samples[good], {key: size[good] for key, size in sizes.items()})
                    names += layout.read_names(rows[good])
                    left, rows = left[~good], rows[~good]
            alone += left.tolist()
        return alone

    def _layout(self, text: msgspec.Raw) -> tuple[_Brief, Layout] | None:
        """Check an entry, and see how others may be like it. None where it is wrong or odd: alone, it is told which."""
        try:
            brief = _read_brief(text)
            self.text(text)
            self._check_brief(brief)
            return brief, Layout(bytes(text), brief.files())
        except (FormatError, ValueError, msgspec.MsgspecError, RecursionError):
            return None

    def _look_at_one(self, found: Entries, number: int, shared_by_some: set[tuple[Any, ...]]) -> list[bytes]:
        """Take in an entry; gives the names of its files."""
        text = found.texts[number]
        self._where = f', shard {number}'
        brief = _read_brief(text)
        shared = brief.shared()
        if shared not in shared_by_some:
            self.text(text)
            shared_by_some.add(shared)
        self._check_brief(brief)
        files = brief.files()
        data, expected = bytes(text), {b'"basename"': len(files), b'"samples"': 1, b'"version"': 1}
        if any(data.count(key) != count for key, count in expected.items()):
            # A column of that name, or a key that stands twice, of which one would be believed.
            self._refuse_doubles(data)
        found.put(number, brief.compression, brief.samples, {key: file.bytes for key, file in files.items()})
        return [file.basename.encode(errors='surrogatepass') for file in files.values()]

    def _refuse_names(self, texts: list[msgspec.Raw]) -> None:
        names: set[str] = set()
        for number, text in enumerate(texts):
            self._where = f', shard {number}'
            for key, file in _read_brief(text).files().items():
                if file.basename in names:
                    self.refuse(f'the file {file.basename!r} is named twice')
                self._basename(file.basename, key)
                names.add(file.basename)

    def _check_version(self, version: Any) -> None:
        """Of another version, nothing else can be expected."""
        if version != INDEX_VERSION:
            self.refuse(f'version {version!r} of the format; this library reads version {INDEX_VERSION}')

    def _refuse_doubles(self, data: bytes) -> None:
        def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(pairs)
            if len(found) != len(pairs):
                self.refuse(f'an object has a key twice: {", ".join(sorted(found))}')
            return found

        try:
            json.loads(data, object_pairs_hook=check)
        except (ValueError, RecursionError) as error:
            raise error if isinstance(error, FormatError) else FormatError(f'{self._source}: {error}') from error

    def _check_brief(self, brief: _Brief) -> None:
        if not 0 <= brief.samples < _MOST_BYTES:
            self.refuse(f'samples is {brief.samples}, not a count')
        for key, file in brief.files().items():
            if not _is_plain(file.basename):
                self._basename(file.basename, key)
            if not 0 <= file.bytes < _MOST_BYTES:
                self.refuse(f'bytes of {key} is {file.bytes}, not a count')
        if brief.raw_meta is None and brief.format != 'mds':
            self.refuse('raw_meta is missing')
        if brief.compression is not None and (brief.zip_data is None or (brief.zip_meta is None) != (brief.format == 'mds')):
            self.refuse('the compressed files are missing')
        # Each sample has an offset, so a count that is too large for the file is a lie.
        offsets = brief.raw_meta or brief.raw_data
        for file in (brief.raw_data, offsets):
            if file.bytes > _MOST_SHARD_BYTES:
                self.refuse(f'{file.basename!r} has {file.bytes} bytes; offsets of 32 bits end at 4 GiB')
        if 4 * (brief.samples + 2) > offsets.bytes:
            self.refuse(f'{brief.samples} samples cannot be in {offsets.basename!r} of {offsets.bytes} bytes')

    def _can_be(self, samples: NDArray[np.int64], sizes: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Which of many shards have counts that `_check_brief` takes, (shards,)."""
        offsets = sizes.get('raw_meta', sizes['raw_data'])
        good: NDArray[np.bool_] = (sizes['raw_data'] <= _MOST_SHARD_BYTES) & (offsets <= _MOST_SHARD_BYTES)
        return good & (4 * (samples + 2) <= offsets)

    def text(self, text: msgspec.Raw) -> ShardInfo:
        """Check the text of one shard's entry."""
        entry = msgspec.json.decode(text)
        if len(_find_keys(text)) != _count_keys(entry):
            self._refuse_doubles(bytes(text))
        return self.shard(entry)

    def shard(self, entry: Any) -> ShardInfo:
        if not isinstance(entry, dict):
            self.refuse(f'a shard is an object, this is a {type(entry).__name__}')
        if entry.get('version') != INDEX_VERSION:
            self.refuse(f'version {entry.get("version")!r} of the format; this library reads version {INDEX_VERSION}')
        kind = entry.get('format')
        if kind not in FORMATS:
            self.refuse(f'format {kind!r}; there are {", ".join(FORMATS)}')
        compression = entry.get('compression')
        if compression is not None and not isinstance(compression, str):
            self.refuse(f'compression is {compression!r}, not a name')
        files: dict[str, Any] = {}
        for file in FILES[kind]:
            files[f'raw_{file}'] = self._file(entry, f'raw_{file}')
            files[f'zip_{file}'] = None if compression is None else self._file(entry, f'zip_{file}')
        size_limit = entry.get('size_limit')
        shard = ShardInfo(
            format=kind,
            samples=self._count(entry.get('samples'), 'samples'),
            compression=compression,
            hashes=tuple(self._strings(entry.get('hashes', []), 'hashes')),
            size_limit=None if size_limit is None else self._count(size_limit, 'size_limit'),
            **self._schema(entry, kind),
            **files,
        )
        # Each sample has an offset, so a count that is too large for the file is a lie.
        offsets = shard.raw_files[-1]
        if 4 * (shard.samples + 2) > offsets.bytes:
            self.refuse(f'{shard.samples} samples cannot be in {offsets.basename!r} of {offsets.bytes} bytes')
        return shard

    def _schema(self, entry: dict[str, Any], kind: str) -> dict[str, Any]:
        schema: dict[str, Any] = {}
        keys = SCHEMA_KEYS[kind]
        if 'column_names' in keys:
            names = self._strings(entry.get('column_names'), 'column_names')
            encodings = self._strings(entry.get('column_encodings'), 'column_encodings')
            if len(names) != len(encodings) or len(set(names)) != len(names):
                self.refuse('column_names and column_encodings do not match, or a name stands twice')
            schema.update(column_names=tuple(names), column_encodings=tuple(encodings))
        if 'column_sizes' in keys:
            sizes = entry.get('column_sizes')
            if not isinstance(sizes, list) or len(sizes) != len(schema['column_names']):
                self.refuse('column_sizes is not a list as long as column_names')
            schema['column_sizes'] = tuple(None if size is None else self._count(size, 'column_sizes') for size in sizes)
        if 'columns' in keys:
            columns = entry.get('columns')
            if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
                self.refuse('columns is not an object of encodings')
            schema['columns'] = columns
        for key in ('newline', 'separator'):
            if key in keys:
                value = entry.get(key)
                if not isinstance(value, str) or not value:
                    self.refuse(f'{key} is {value!r}')
                schema[key] = value
        if kind in ('csv', 'tsv'):
            schema['separator'] = ',' if kind == 'csv' else '\t'
        return schema

    def _file(self, entry: dict[str, Any], key: str) -> FileInfo:
        value = entry.get(key)
        if not isinstance(value, dict):
            self.refuse(f'{key} is {"missing" if value is None else "not an object"}')
        hashes = value.get('hashes', {})
        if not isinstance(hashes, dict) or not all(isinstance(digest, str) for digest in hashes.values()):
            self.refuse(f'hashes of {key} are not an object of digests')
        return FileInfo(self._basename(value.get('basename'), key), self._count(value.get('bytes'), f'bytes of {key}'), hashes)

    def _basename(self, name: Any, key: str) -> str:
        inside = isinstance(name, str) and name and not any(part in ('', '.', '..') for part in name.split('/'))
        # No file system has longer names.
        is_short = inside and len(name) <= 1024 and all(len(part.encode(errors='replace')) <= 255 for part in name.split('/'))
        if not is_short or any(letter in name for letter in '\\\0'):
            self.refuse(f'{key} is named {name!r:.200}, which is not a file inside the dataset')
        if name == 'index.json' or name.startswith('.streaming/'):
            self.refuse(f'{key} is named {name!r}, which is not a shard')
        return str(name)

    def _count(self, value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_BYTES:
            self.refuse(f'{what} is {value!r:.100}, not a count')
        return int(value)

    def _strings(self, value: Any, what: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(f'{what} is not a list of names')
        return value
