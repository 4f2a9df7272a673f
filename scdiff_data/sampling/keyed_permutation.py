"""A pseudo-random permutation that is computed, not stored, and the hashes that orders rest on."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import compiled

N_ROUNDS = 8
"""Rounds of the Feistel network: even, so that its halves end with the widths they began with."""


class KeyedPermutation:
    """A pseudo-random permutation of 0 … n - 1, evaluated where it is asked for.

    A Feistel network over the fewest bits that hold n - 1, walked on until it lands below n (Black
    and Rogaway, CT-RSA 2002): fewer than two steps on average, no memory.

    Parameters
    ----------
    n
        Size, 1 to 2^62.
    key
        Any whole numbers; each key gives another permutation.
    """

    def __init__(self, n: int, *key: int) -> None:
        self._n = n
        self._n_bits = count_bits(n)
        self._round_keys = derive_keys(key, N_ROUNDS)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values at the positions, int64 of the same length, each in 0 … n - 1."""
        values: NDArray[np.int64] = permute(positions, self._n, self._n_bits, self._round_keys)
        return values


def count_bits(n: int) -> int:
    """Bits of the network that permutes n numbers: two halves, none of them empty."""
    return max(2, (n - 1).bit_length())


def derive_keys(key: tuple[int, ...], n: int) -> NDArray[np.uint64]:
    """Make n keys of 64 bits from whole numbers."""
    text = ",".join(map(str, key)).encode()
    return np.frombuffer(hashlib.blake2b(text, digest_size=8 * n).digest(), np.uint64)


@compiled
def _mix(value: np.uint64) -> np.uint64:
    """Every bit of the result depends on every bit of the value (MurmurHash3's finalizer)."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@compiled
def hash_number(number: np.uint64, key: np.uint64) -> np.uint64:
    """64 bits; mixed twice, so that neighbouring numbers under related keys share nothing."""
    mixed: np.uint64 = _mix(_mix(number + np.uint64(0x9E3779B97F4A7C15)) ^ key)
    return mixed


@compiled
def permute(
    positions: NDArray[Any],
    n: int,
    n_bits: int,
    round_keys: NDArray[Any],
) -> NDArray[np.int64]:
    """Values of all positions at once, a round after another, so that vectors do eight a time."""
    values, places = positions.astype(np.uint64), np.arange(len(positions))
    left, right = np.empty(len(positions), np.uint64), np.empty(len(positions), np.uint64)
    permuted = np.empty(len(positions), np.int64)
    one, half = np.uint64(1), np.uint64(33)
    low_bits, high_bits = np.uint64(n_bits - n_bits // 2), np.uint64(n_bits // 2)
    n_left = len(positions)
    while n_left:
        for i in range(n_left):
            left[i], right[i] = values[i] >> low_bits, values[i] & ((one << low_bits) - one)
        mask, other_mask = (one << high_bits) - one, (one << low_bits) - one
        for key in round_keys:
            for i in range(n_left):
                mixed = (right[i] ^ key) * np.uint64(0xFF51AFD7ED558CCD)
                mixed = (mixed ^ (mixed >> half)) * np.uint64(0xC4CEB9FE1A85EC53)
                mixed ^= mixed >> half
                mixed = left[i] ^ (mixed & mask)
                left[i], right[i] = right[i], mixed
            mask, other_mask = other_mask, mask
        n_outside = 0
        for i in range(n_left):
            value = (left[i] << low_bits) | right[i]
            if value < np.uint64(n):
                permuted[places[i]] = value
            else:  # walk on from there
                values[n_outside], places[n_outside] = value, places[i]
                n_outside += 1
        n_left = n_outside
    return permuted
