"""Keyed permutations: bijections with an inverse, without a trace of structure, the same forever."""

import numpy as np
import pytest

from streaming.order.keyed import derive_key, draw, permute, unpermute


@pytest.mark.parametrize('size', [1, 2, 3, 5, 16, 63, 64, 65, 100, 4096, 65537])
def test_every_key_gives_a_bijection_and_its_inverse(size: int) -> None:
    places = np.arange(size)
    for number in range(5):
        keys = np.full(size, derive_key(number, size), np.uint64)
        values = permute(places, np.full(size, size), keys)
        assert np.array_equal(np.sort(values), places)
        assert np.array_equal(unpermute(values, np.full(size, size), keys), places)


def test_sizes_and_keys_may_differ_from_place_to_place() -> None:
    sizes = np.array([1, 7, 7, 1000, 10**12])
    keys = draw(3, np.arange(5))
    places = np.array([0, 6, 2, 999, 10**11])
    together = permute(places, sizes, keys)
    alone = [permute(places[i : i + 1], sizes[i : i + 1], keys[i : i + 1])[0] for i in range(5)]
    assert together.tolist() == alone


@pytest.mark.parametrize('size', [2, 3, 5, 8, 17, 64, 65, 100])
def test_pairs_are_spread_evenly(size: int) -> None:
    """Where the first two places go, over 40,000 keys: chi-square within six sigmas of what chance gives."""
    trials = 40_000
    keys, sizes = draw(derive_key(11), np.arange(trials)), np.full(trials, size)
    first, second = (permute(np.full(trials, place), sizes, keys).astype(np.int64) for place in (0, 1))
    counts = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
    assert not counts.diagonal().any()
    apart = counts[~np.eye(size, dtype=bool)]
    expected = trials / len(apart)
    chi_square = float(((apart - expected) ** 2 / expected).sum())
    freedom = len(apart) - 1
    assert abs(chi_square - freedom) < 6 * np.sqrt(2 * freedom) + 6


def test_the_generator_is_splitmix64() -> None:
    """The first numbers of splitmix64 seeded with 1234567, as published with it."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert draw(1234567, np.arange(5)).tolist() == expected


def test_keys_take_any_integer() -> None:
    assert derive_key(-1) == derive_key(2**64 - 1)
    assert len({derive_key(*parts) for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**70,)]}) == 5
