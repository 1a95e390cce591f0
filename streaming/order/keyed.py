"""Permutations and random numbers that can be asked for one place at a time, from a key alone.

Everything is 64-bit integer arithmetic modulo 2**64, so results are the same on every machine and every NumPy version.

- Random numbers are splitmix64 used as a counter-based generator: number ``i`` of key ``k`` is the finalizer of ``k +
  (i + 1) G`` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; constants as in
  Vigna's splitmix64.c).
- A permutation of ``0..size-1`` is the generalised Feistel network over ``Z_a x Z_b`` with ``a b >= size``, walking on
  while a result falls outside (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, methods 2 and
  3). ``a b`` exceeds ``size`` by less than ``a``, so that walks are rare. It is for mixing, not for secrets.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ['UInt64Array', 'derive_key', 'draw', 'permutation', 'permute', 'unpermute']

UInt64Array = NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

# Eight rounds leave no trace in the statistics of pairs from 64 places on; fewer places need more rounds
# (tests/order/test_keyed.py).
_ROUNDS = 8
_SMALL = 64
_SMALL_ROUNDS = 24
# What sets the rounds apart: multiples of the golden ratio's word.
_ROUND_KEYS = tuple(np.uint64((r * _GOLDEN) & _MASK) for r in range(1, _SMALL_ROUNDS + 1))
_ROUND_MIX_1 = np.uint64(_MIX_1)
_ROUND_MIX_2 = np.uint64(_MIX_2)
_32 = np.uint64(32)


def derive_key(*parts: int) -> int:
    """Fold integers of any size and sign (taken modulo 2**64), in order, into one 64-bit key."""
    key = 0
    for part in parts:
        z = ((key ^ (part & _MASK)) + _GOLDEN) & _MASK
        z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
        z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
        key = z ^ (z >> 31)
    return key


def draw(key: int, counters: NDArray[Any]) -> UInt64Array:
    """Random 64-bit words number ``counters`` (integers of at least 0) of the generator ``key``, in the same shape."""
    z = counters.astype(np.uint64)
    z += np.uint64(1)
    z *= np.uint64(_GOLDEN)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MIX_2)
    z ^= z >> np.uint64(31)
    return z


def permute(places: NDArray[Any], sizes: NDArray[Any], keys: UInt64Array) -> UInt64Array:
    """Look up places in keyed permutations.

    Args:
        places: Integers (N,); each at least 0 and below its size.
        sizes: How many places each one's permutation has (N,), 1 to 2**62.
        keys: Which permutation of that size each one looks into (N,).

    Returns:
        What stands at the places, uint64 (N,): for a fixed size and key, a bijection of ``0..size-1``.
    """
    return _walk(places, sizes, keys, inverse=False)


def permutation(places: NDArray[Any], size: int, key: int) -> NDArray[np.int64]:
    """Look up places, int64 (N,), in the one permutation of that size and key."""
    count = len(places)
    return permute(places, np.full(count, size), np.full(count, key, np.uint64)).astype(np.int64)


def unpermute(values: NDArray[Any], sizes: NDArray[Any], keys: UInt64Array) -> UInt64Array:
    """The inverse of `permute`: at which place each value stands."""
    return _walk(values, sizes, keys, inverse=True)


def _walk(places: NDArray[Any], sizes: NDArray[Any], keys: UInt64Array, *, inverse: bool) -> UInt64Array:
    bound = sizes.astype(np.uint64)
    result = _encipher_any(places.astype(np.uint64), bound, keys, inverse=inverse)
    outside = np.flatnonzero(result >= bound)
    while outside.size:
        again = _encipher_any(result[outside], bound[outside], keys[outside], inverse=inverse)
        result[outside] = again
        outside = outside[again >= bound[outside]]
    return result


def _encipher_any(places: UInt64Array, sizes: UInt64Array, keys: UInt64Array, *, inverse: bool) -> UInt64Array:
    small = sizes < np.uint64(_SMALL)
    if not small.any():
        return _encipher(places, sizes, keys, _ROUNDS, inverse=inverse)
    result = np.empty_like(places)
    for chosen, rounds in ((small, _SMALL_ROUNDS), (~small, _ROUNDS)):
        result[chosen] = _encipher(places[chosen], sizes[chosen], keys[chosen], rounds, inverse=inverse)
    return result


def _encipher(places: UInt64Array, sizes: UInt64Array, keys: UInt64Array, rounds: int, *, inverse: bool) -> UInt64Array:
    """One pass through the network: a bijection of ``0..ab-1``, which holds ``0..size-1``."""
    # sqrt and ceil are correctly rounded everywhere; whatever they give, a and b cover the size.
    a = np.ceil(np.sqrt(sizes.astype(np.float64))).astype(np.uint64)
    b = (sizes + (a - np.uint64(1))) // a
    high = places // a
    low = places - high * a
    halves, moduli = (low, high), (a, b)
    for round_ in reversed(range(rounds)) if inverse else range(rounds):
        half, other, modulus = halves[round_ % 2], halves[1 - round_ % 2], moduli[round_ % 2]
        step = _round(other, keys, round_, modulus)
        half += modulus - step if inverse else step
        half -= modulus * (half >= modulus)
    enciphered: UInt64Array = high * a + low
    return enciphered


def _round(half: UInt64Array, keys: UInt64Array, round_: int, modulus: UInt64Array) -> UInt64Array:
    """A keyed number below the modulus, for each half."""
    z: UInt64Array = keys + _ROUND_KEYS[round_]
    z ^= half
    z *= _ROUND_MIX_1
    z ^= z >> _32
    z *= _ROUND_MIX_2
    z >>= _32
    z *= modulus  # fits: the modulus is a square root, below 2**32
    z >>= _32
    return z
