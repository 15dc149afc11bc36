"""Numbers that follow from a purpose alone: the same in every process, on every machine."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53


def hash_numbers(numbers: NDArray[np.int64], *purpose: str | int) -> NDArray[np.uint64]:
    """A hash of each number, different for each purpose, uint64 of the same shape.

    Source: splitmix64 (Steele, Lea, Flood 2014), seeded by SHA-256 of the purpose.
    """
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    hashes = (numbers.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    hashes += np.uint64(int.from_bytes(digest[:8], "big"))
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _FIRST
    hashes = (hashes ^ (hashes >> np.uint64(27))) * _SECOND
    return hashes ^ (hashes >> np.uint64(31))


def random_of(*purpose: str | int) -> Random:
    """A random source of the purpose's own."""
    # Python hashes a text it is seeded with by SHA-512, which takes longer than all the rest.
    digest = hashlib.blake2b("/".join(map(str, purpose)).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "big"))


def permutation(size: int, *purpose: str | int) -> NDArray[np.int64]:
    """The numbers below ``size`` in an order of the purpose's own, int64 [size]."""
    return np.argsort(hash_numbers(np.arange(size), *purpose), kind="stable")


def chances(numbers: NDArray[np.int64], *purpose: str | int) -> NDArray[np.float64]:
    """For each number one of [0, 1), float64 of the same shape."""
    return (hash_numbers(numbers, *purpose) >> np.uint64(11)).astype(np.float64) * _UNIT
