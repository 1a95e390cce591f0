"""Hashes by name: every fixed-length algorithm of hashlib and of xxhash."""

import hashlib
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Protocol

import xxhash

from streaming.errors import ArgumentError

__all__ = ['Hash', 'cheapest', 'get_hashes', 'hash_bytes', 'new_hash', 'register_hash']


class Hash(Protocol):
    """A hash that is being computed."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest so far, lower-case hex."""
        ...


def _hashlib_names() -> list[str]:
    # The shake family has no length of its own.
    return sorted(name for name in hashlib.algorithms_available if not name.startswith('shake') and name == name.lower())


_registry: dict[str, Callable[[], Hash]] = {
    'xxh32': xxhash.xxh32,
    'xxh64': xxhash.xxh64,
    'xxh128': xxhash.xxh128,
    'xxh3_64': xxhash.xxh3_64,
    'xxh3_128': xxhash.xxh3_128,
}

# By speed on current machines; what is not here is slower than all of these.
_BY_SPEED = ('xxh3_64', 'xxh3_128', 'xxh128', 'xxh64', 'xxh32', 'blake2b', 'sha1', 'blake2s', 'md5', 'sha256', 'sha512')


def register_hash(name: str, new: Callable[[], Hash]) -> None:
    """Let ``name`` be a hash, made by ``new``. Packages name theirs in an entry point of the group ``streaming.hashes``."""
    _registry[name] = new


def get_hashes() -> set[str]:
    """The names of all hashes."""
    return {*_registry, *_hashlib_names()}


def new_hash(name: str) -> Hash:
    """Begin a hash.

    Raises:
        ArgumentError: there is none of that name.
    """
    make = _registry.get(name)
    if make is not None:
        return make()
    if name in _hashlib_names():
        return hashlib.new(name, usedforsecurity=False)
    for point in entry_points(group='streaming.hashes', name=name):
        made: Hash = _registry.setdefault(name, point.load())()
        return made
    raise ArgumentError(f'no hash named {name!r}; there are {", ".join(sorted(get_hashes()))}')


def hash_bytes(name: str, data: bytes | memoryview) -> str:
    """The hex digest of some bytes."""
    digest = new_hash(name)
    digest.update(data)
    return digest.hexdigest()


def cheapest(names: Iterable[str]) -> str | None:
    """The fastest of some hashes that this machine knows; None if there is none."""
    known = [name for name in names if name in get_hashes()]
    return min(known, key=lambda name: _BY_SPEED.index(name) if name in _BY_SPEED else len(_BY_SPEED), default=None)
