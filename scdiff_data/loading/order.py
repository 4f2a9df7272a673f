"""Orders of an epoch that are computed, not stored: which row stands at which position.

Each is a pure function of (key, position), evaluated where it is asked for, so that any position
is reached at once and ranks agree without talking.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import compiled

_N_ROUNDS = 8
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
        self._n_bits = max(2, (n - 1).bit_length())
        self._round_keys = _derive_keys(key, _N_ROUNDS)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values at the positions, int64 of the same length, each in 0 … n - 1."""
        values: NDArray[np.int64] = _permute(positions, self._n, self._n_bits, self._round_keys)
        return values


class BlockPermutation:
    """A permutation of 0 … n - 1 that moves blocks of neighbours and keeps the order inside them.

    Full blocks are permuted by a `KeyedPermutation`; the short one, if `block_size` does not divide
    n, is put before the full block at a keyed place, and what follows it moves on by its length.

    Parameters
    ----------
    n
        Size, at least 1.
    block_size
        Numbers in a block, at least 1.
    key
        Any whole numbers; each key gives another permutation.
    """

    def __init__(self, n: int, block_size: int, *key: int) -> None:
        self._block_size = block_size
        self._n_full, self._n_short = divmod(n, block_size)
        self._order = KeyedPermutation(max(1, self._n_full), *key, 0)
        place = KeyedPermutation(self._n_full + 1, *key, 1)(np.zeros(1, np.int64))[0]
        self._short_at = int(place) * block_size
        """Position of the short block's first number."""

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values at the positions, int64 of the same length, each in 0 … n - 1."""
        after_start = positions - self._short_at
        is_short = (after_start >= 0) & (after_start < self._n_short)
        is_after = after_start >= self._n_short
        block, offset = np.divmod(positions - is_after * self._n_short, self._block_size)
        block[is_short] = 0  # any: replaced below
        values = self._order(block) * self._block_size + offset
        return np.where(is_short, self._n_full * self._block_size + after_start, values)


class BalancedDraw:
    """Draws with replacement: a class uniformly, then one of its rows uniformly.

    Each row is thus drawn with the inverse of its class's frequency. Every draw is a keyed hash of
    its position. Memory: one index of the rows by class, 4 bytes a row (8 from 2^31 rows on).

    Parameters
    ----------
    classes
        Each row's class, whole numbers [n].
    """

    def __init__(self, classes: NDArray[np.integer[Any]]) -> None:
        index_type = np.int32 if len(classes) < 2**31 else np.int64
        self._rows: NDArray[Any] = np.argsort(classes, kind="stable").astype(index_type)
        sizes = np.unique(classes, return_counts=True)[1]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def __call__(self, positions: NDArray[np.int64], *key: int) -> NDArray[np.int64]:
        """Rows drawn at the positions, int64 of the same length."""
        class_key, row_key = _derive_keys(key, 2)
        label = _draw_below(positions, class_key, np.array([len(self._starts) - 1], np.int64))
        sizes = self._starts[label + 1] - self._starts[label]
        places = self._starts[label] + _draw_below(positions, row_key, sizes)
        rows: NDArray[np.int64] = self._rows[places].astype(np.int64)
        return rows


def _derive_keys(key: tuple[int, ...], n: int) -> NDArray[np.uint64]:
    text = ",".join(map(str, key)).encode()
    return np.frombuffer(hashlib.blake2b(text, digest_size=8 * n).digest(), np.uint64)


@compiled
def _mix(value: np.uint64) -> np.uint64:
    """Every bit of the result depends on every bit of the value (MurmurHash3's finalizer)."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@compiled
def _draw_below(
    positions: NDArray[Any],
    key: np.uint64,
    limits: NDArray[Any],
) -> NDArray[np.int64]:
    """A number in 0 … limit - 1 for every position; one limit each, or one for all."""
    values = np.empty(len(positions), np.int64)
    for i in range(len(positions)):
        limit = np.uint64(limits[i] if len(limits) > 1 else limits[0])
        # Twice, so that neighbouring positions under related keys share nothing.
        bits = _mix(_mix(np.uint64(positions[i]) + np.uint64(0x9E3779B97F4A7C15)) ^ key)
        # 32 × 32 bits: the bias is below limit / 2^32, and limits are counts of one class's cells.
        if limit < np.uint64(1 << 31):
            values[i] = np.int64(((bits >> np.uint64(32)) * limit) >> np.uint64(32))
        else:
            values[i] = np.int64(bits % limit)
    return values


@compiled
def _permute(
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
