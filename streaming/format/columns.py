"""Encodings by name: one value <-> its bytes in a shard."""

import json
import operator
import pickle
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from importlib.metadata import entry_points
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streaming.errors import ArgumentError, ColumnTypeError, FormatError

__all__ = ['Encoding', 'get_encoding', 'get_mds_encodings', 'register_encoding']

Bytes = bytes | memoryview


class Encoding(ABC):
    """How the values of a column are written.

    Attributes:
        name: Its name in an index.
        size: Bytes of every value; None where they vary.
        code: What the struct module calls its values, where they are plain numbers; None elsewhere.
        is_safe: Whether reading cannot run code.
        needs: What the index says a reader must know to read it: for an encoding of another package, its name. None for what
            mosaicml-streaming reads too.
    """

    name: str
    size: int | None = None
    code: str | None = None
    is_safe: bool = True
    needs: str | None = None

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """The bytes of a value.

        Raises:
            ColumnTypeError: the encoding does not take such a value.
        """

    @abstractmethod
    def decode(self, data: Bytes) -> Any:
        """The value of its bytes; it shares no memory with them.

        Raises:
            ValueError: they are not what this encoding writes.
        """

    def refuse(self, value: Any, expected: str) -> ColumnTypeError:
        """The error for a value that the encoding does not take."""
        return ColumnTypeError(f'encoding {self.name!r} takes {expected}, got {shown(value)}')


def shown(value: Any) -> str:
    """A value in a message: its type, and how it begins."""
    try:
        text = f'{value!r:.80}'
    except Exception as error:  # an int of too many digits, lists that are nested too deeply, whatever a class may raise
        text = f'which cannot be printed ({type(error).__name__})'
    return f'{type(value).__name__}: {text}'


def check_names(names: Iterable[Any]) -> None:
    """See that names of columns can stand in an index.

    Raises:
        ArgumentError: one is no text, or holds what UTF-8 cannot say.
    """
    for name in names:
        if not isinstance(name, str):
            raise ArgumentError(f'a column is named by a str, got {shown(name)}')
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ArgumentError(f'a column is named {name!r}, which holds a lone surrogate') from None


class Raw(Encoding):
    name = 'bytes'

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, (bytearray, memoryview)):
            raise self.refuse(value, 'bytes')
        return bytes(value)

    def decode(self, data: Bytes) -> bytes:
        return bytes(data)


class Str(Encoding):
    name = 'str'

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise self.refuse(value, 'str')
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise self.refuse(value, 'text without lone surrogates, which UTF-8 cannot say,') from None

    def decode(self, data: Bytes) -> str:
        return str(data, 'utf-8')


class Scalar(Encoding):
    """A fixed-size number.

    Attributes:
        dtype: What NumPy calls its bytes.
        kind: What it decodes to: int, or a type of NumPy.
    """

    def __init__(self, name: str, code: str, to_python: Callable[[Any], Any], kind: Callable[[Any], Any], expected: str) -> None:
        self.name = name
        self.code = code
        self._struct = struct.Struct('<' + code)
        self.size = self._struct.size
        self.dtype = np.dtype('int64' if kind is int else name).newbyteorder('<')
        self.kind = kind
        self._convert = to_python
        self._expected = expected

    def encode(self, value: Any) -> bytes:
        try:
            return self._struct.pack(self._convert(value))
        except (TypeError, ValueError):
            raise self.refuse(value, self._expected) from None
        except (struct.error, OverflowError):
            raise self.refuse(value, f'{self._expected} within its range') from None

    def decode(self, data: Bytes) -> Any:
        return self.kind(self._struct.unpack(data)[0])


_pack_float = struct.Struct('<f').pack


def _to_float(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(value)


class Bool(Encoding):
    """One byte. mosaicml-streaming has no such encoding."""

    name = 'bool'
    size = 1
    needs = 'bool'

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, (bool, np.bool_)):
            raise self.refuse(value, 'a bool')
        return b'\1' if value else b'\0'

    def decode(self, data: Bytes) -> bool:
        if data[0] > 1:
            raise ValueError(f'{data[0]} is neither 0 nor 1')
        return bool(data[0])


class BFloat16(Encoding):
    """The upper half of a float32, rounded to even; decodes to float32. mosaicml-streaming has no such encoding."""

    name = 'bfloat16'
    size = 2
    needs = 'bfloat16'

    def encode(self, value: Any) -> bytes:
        try:
            return to_bfloat16(np.frombuffer(_pack_float(_to_float(value)), '<f4')).tobytes()
        except (TypeError, ValueError):
            raise self.refuse(value, 'a float') from None
        except OverflowError:
            raise self.refuse(value, 'a float within its range') from None

    def decode(self, data: Bytes) -> Any:
        return from_bfloat16(np.frombuffer(data, '<u2'))[0]


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32 values, rounded to nearest, ties to even; what is no number stays none."""
    bits = values.view('<u4')
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype('<u2')


def from_bfloat16(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 values of their upper halves."""
    return (values.astype('<u4') << 16).view('<f4').astype(np.float32, copy=False)


class _Text(Encoding):
    """A number written as text."""

    def __init__(self, name: str, types: tuple[type, ...], parse: Callable[[str], Any]) -> None:
        self.name = name
        self._types = types
        self._parse = parse

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, self._types) or isinstance(value, bool):
            raise self.refuse(value, ' or '.join(kind.__name__ for kind in self._types))
        try:
            return str(value).encode()
        except ValueError as error:  # Python sets a limit to digits, so as not to take forever
            raise self.refuse(value, f'what can be written in digits ({error})') from None

    def decode(self, data: Bytes) -> Any:
        try:
            return self._parse(str(data, 'utf-8'))
        except InvalidOperation:
            raise ValueError(f'{bytes(data)[:80]!r} is no number') from None


def _numpy_to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f'{type(value).__name__} is no JSON')


# json.dumps, which with options makes an encoder for every value.
_dump_json = json.JSONEncoder(default=_numpy_to_json).encode


class _Json(Encoding):
    name = 'json'

    def encode(self, value: Any) -> bytes:
        try:
            return _dump_json(value).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise self.refuse(value, f'what JSON can say ({error})') from error

    def decode(self, data: Bytes) -> Any:
        try:
            try:
                return msgspec.json.decode(data)
            except msgspec.DecodeError:  # NaN and infinities are no JSON, but Python's json writes them
                return json.loads(str(data, 'utf-8'))
        except RecursionError:
            raise ValueError('its JSON is nested too deeply') from None


class _Pickle(Encoding):
    name = 'pkl'
    is_safe = False

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def decode(self, data: Bytes) -> Any:
        return pickle.loads(data)


_SCALARS: tuple[tuple[str, str, Callable[[Any], Any], Callable[[Any], Any], str], ...] = (
    ('int', 'q', operator.index, int, 'an int'),
    *((f'uint{8 << i}', 'BHIQ'[i], operator.index, getattr(np, f'uint{8 << i}'), 'an int') for i in range(4)),
    *((f'int{8 << i}', 'bhiq'[i], operator.index, getattr(np, f'int{8 << i}'), 'an int') for i in range(4)),
    *((f'float{16 << i}', 'efd'[i], _to_float, getattr(np, f'float{16 << i}'), 'a float') for i in range(3)),
)

_registry: dict[str, Encoding] = {
    encoding.name: encoding
    for encoding in (
        Raw(),
        Str(),
        *(Scalar(*scalar) for scalar in _SCALARS),
        _Text('str_int', (int,), int),
        _Text('str_float', (float,), float),
        _Text('str_decimal', (Decimal,), Decimal),
        _Json(),
        _Pickle(),
        Bool(),
        BFloat16(),
    )
}


def register_encoding(encoding: Encoding) -> None:
    """Let ``encoding.name`` be the encoding of a column, for writing and reading."""
    _registry[encoding.name] = encoding


# Encodings that have a module of their own, imported when a column asks for them.
_IMAGES = ('pil', 'png', 'jpeg', 'jpeg_array', 'jpegarray')
_ENTRY_POINTS = 'streaming.encodings'

# Lists of lists of ...: a name in an index may say anything.
_MOST_NESTED = 16


def _load(name: str) -> Encoding | None:
    """An encoding that is not here yet: of arrays, of images, of lists, or of another package."""
    if name in _IMAGES:
        from streaming.format import images

        plain: dict[str, type[Encoding]] = {'pil': images.Pil, 'png': images.Png, 'jpeg': images.Jpeg}
        return plain[name]() if name in plain else images.JpegArray(name)
    if name == 'ndarray' or name.startswith('ndarray:'):
        from streaming.format.arrays import array_encoding

        return array_encoding(name)
    if name.startswith('list[') and name.endswith(']') and name.count('list[') <= _MOST_NESTED:
        from streaming.format.lists import ListOf

        return ListOf(get_encoding(name[len('list[') : -1]))
    for point in entry_points(group=_ENTRY_POINTS, name=name):
        made: Encoding = point.load()()
        return made
    return None


def get_mds_encodings() -> set[str]:
    """The names of all encodings.

    ``ndarray`` may be followed by a dtype, and that by a shape: ``ndarray:float32:2,3``. Any may stand in ``list[...]``.
    """
    plain = {name for name in _registry if ':' not in name and '[' not in name}
    return plain | set(_IMAGES) | {'ndarray', 'list[pil]', 'list[png]', 'list[jpeg]'} | entry_points(group=_ENTRY_POINTS).names


def get_encoding(name: str) -> Encoding:
    """The encoding of that name.

    Raises:
        ArgumentError: there is none.
    """
    found = _registry.get(name) or _load(name)
    if found is not None:
        return _registry.setdefault(name, found)
    raise ArgumentError(f'no encoding {name!r:.200}; there are {", ".join(sorted(get_mds_encodings()))}')


# What an index may say that its reader must know. An encoding of another package is named here by its own name.
_EXTENSIONS = frozenset({'bool', 'bfloat16', 'list'})


def unknown_extensions(names: Iterable[str]) -> list[str]:
    """Those of an index's extensions that nobody here knows, sorted."""
    return sorted(name for name in set(names) - _EXTENSIONS if not _is_known(name))


def _is_known(name: str) -> bool:
    try:
        get_encoding(name)
    except ArgumentError:
        return False
    return True


def extensions_of(encodings: Iterable[str]) -> list[str]:
    """What a reader must know beyond mosaicml-streaming to read some encodings, sorted."""
    needs: set[str] = set()
    for name in encodings:
        try:
            needed = get_encoding(name).needs
        except ArgumentError:  # not known here; whoever reads such a column says so
            continue
        if needed is not None:
            needs.add(needed)
    return sorted(needs)


def decode_error(column: str, encoding: str, error: Exception) -> FormatError:
    """The error for a value that is not what its encoding writes."""
    return FormatError(f'column {column!r} is not {encoding}: {error}')
