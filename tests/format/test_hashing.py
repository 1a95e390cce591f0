"""Hashes by name."""

import hashlib

import pytest
import xxhash

from streaming.errors import ArgumentError
from streaming.format.hashing import cheapest, get_hashes, hash_bytes, new_hash


def test_every_hash_gives_hex() -> None:
    for name in get_hashes():
        try:
            digest = hash_bytes(name, b'data')
        except ValueError:
            # Named by hashlib, but this machine's OpenSSL has it switched off.
            with pytest.raises(ValueError, match='unsupported'):
                hashlib.new(name)
            continue
        assert int(digest, 16) >= 0


def test_known_digests() -> None:
    assert hash_bytes('sha1', b'') == 'da39a3ee5e6b4b0d3255bfef95601890afd80709'
    assert hash_bytes('xxh64', b'') == 'ef46db3751d8e999'
    assert hash_bytes('xxh3_64', memoryview(b'abc')) == xxhash.xxh3_64(b'abc').hexdigest()


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ArgumentError, match='sha1'):
        new_hash('nothing')


def test_shake_has_no_length_of_its_own() -> None:
    assert not any(name.startswith('shake') for name in get_hashes())


def test_cheapest() -> None:
    assert cheapest(['sha1', 'xxh64']) == 'xxh64'
    assert cheapest(['sha256', 'md5']) == 'md5'
    assert cheapest(['from another planet']) is None
    assert cheapest([]) is None
