"""Orders of an epoch that are computed, not stored: which row stands at which position.

Each is a pure function of (key, position), evaluated where it is asked for, so that any position
is reached at once and ranks agree without talking.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import compiled
from scdiff_data.sampling.keyed_permutation import (
    N_ROUNDS,
    KeyedPermutation,
    count_bits,
    derive_keys,
    hash_number,
    permute,
)

_CHUNK_ROWS = 1 << 16
"""Rows whose classes are looked at together."""

_PIECE = 4096
"""Positions that are permuted together: what is kept of them between the rounds fits the caches."""


class RunPermutation:
    """A permutation of 0 … n - 1 that moves runs of neighbours and keeps the order inside them.

    Full runs are permuted by a `KeyedPermutation`; the short one, if `run_size` does not divide n,
    is put before the full run at a keyed place, and what follows it moves on by its length.

    Parameters
    ----------
    n
        Size, at least 1.
    run_size
        Numbers in a run, at least 1.
    key
        Any whole numbers; each key gives another permutation.
    """

    def __init__(self, n: int, run_size: int, *key: int) -> None:
        self._run_size = run_size
        self._n_full, self._n_short = divmod(n, run_size)
        self._n_bits = count_bits(max(1, self._n_full))
        self._round_keys = derive_keys((*key, 0), N_ROUNDS)
        place = KeyedPermutation(self._n_full + 1, *key, 1)(np.zeros(1, np.int64))[0]
        self._short_at = int(place) * run_size
        """Position of the short run's first number."""

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values at the positions, int64 of the same length, each in 0 … n - 1."""
        values: NDArray[np.int64] = _permute_runs(
            positions,
            self._run_size,
            self._n_full,
            self._n_short,
            self._short_at,
            self._n_bits,
            self._round_keys,
        )
        return values

    def ranges(self, start: int, stop: int) -> NDArray[np.int64]:
        """Ranges of values at the positions start … stop - 1: [n_ranges, 2], in ascending order."""
        size, short_at = self._run_size, self._short_at
        # Where full runs start: multiples of the size, but moved on by the short run if after it.
        multiples = np.arange(max(0, start - self._n_short) // size * size, stop, size)
        after = multiples[multiples >= short_at] + self._n_short
        starts = np.concatenate([[start], multiples[multiples <= short_at], after])
        cuts = np.unique(np.append(starts[(starts >= start) & (starts < stop)], stop))
        first = self(cuts[:-1])
        found = np.stack([first, first + np.diff(cuts)], axis=1)
        return found[np.argsort(first)]


class WindowPermutation:
    """A permutation of 0 … n - 1 that serves a window of `window_size` numbers at a time.

    Whole runs of `run_size` neighbours come in the order of a `RunPermutation`, which is cut into
    windows of equal size; the numbers of a window are permuted among themselves. So whoever reads
    ahead reads long runs, and what was read can go once its window is over. Up to one window, this
    is the `KeyedPermutation` of the same key.

        n = 14, run_size = 3    ┌ window 0 ─────────┐ ┌ window 1 ─────────┐
        runs, moved              9 10 11  3 4 5  12     13  0 1 2  6 7 8
        windows, permuted        12 4 9 5 10 3 11       0 8 6 13 7 1 2

    Parameters
    ----------
    n
        Size, at least 1.
    window_size
        Numbers in a window, at most; at least `run_size`. Windows differ by at most one.
    run_size
        Numbers in a run, at least 1. A window begins and ends with a part of one.
    key
        Any whole numbers; each key gives another permutation.
    """

    def __init__(self, n: int, window_size: int, run_size: int, *key: int) -> None:
        self.n_windows = -(-n // window_size)
        self._size, self._n_larger = divmod(n, self.n_windows)
        """Numbers of a window, and how many windows have one more: the first ones."""
        self._order = KeyedPermutation(n, *key) if self.n_windows == 1 else None
        self._run_order = RunPermutation(n, run_size, *key)
        self._n_bits = count_bits(self._size + (self._n_larger > 0))
        self._keys = derive_keys((*key, 2), N_ROUNDS)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values at the positions, int64 of the same length, each in 0 … n - 1."""
        if self._order is not None:
            return self._order(positions)
        return self._run_order(
            _permute_windows(positions, self._size, self._n_larger, self._n_bits, self._keys)
        )

    def window_of(self, position: int) -> int:
        """The window that serves a position."""
        return int(_find_window(position, self._size, self._n_larger))

    def bounds(self, window: int) -> tuple[int, int]:
        """First position of a window, and the end of its positions."""
        start = window * self._size + min(window, self._n_larger)
        return start, start + self._size + (window < self._n_larger)

    def runs(self, window: int) -> NDArray[np.int64]:
        """Ranges of numbers that a window serves: [n_runs, 2] of start and stop, ascending."""
        if self._order is not None:
            return np.array([self.bounds(window)])
        return self._run_order.ranges(*self.bounds(window))


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
        chunks = divide_rows(len(classes))
        known = find_distinct(classes[chunk] for chunk in chunks)
        sizes = np.zeros(len(known), np.int64)
        for chunk in chunks:
            sizes += np.bincount(np.searchsorted(known, classes[chunk]), minlength=len(known))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        # Sorted by counting: as numpy sorts, a row would take many times as much.
        self._rows: NDArray[Any] = np.empty(len(classes), index_type)
        following = self._starts[:-1].copy()
        for chunk in chunks:
            _put(np.searchsorted(known, classes[chunk]), chunk.start, following, self._rows)

    def __call__(self, positions: NDArray[np.int64], *key: int) -> NDArray[np.int64]:
        """Rows drawn at the positions, int64 of the same length."""
        class_key, row_key = derive_keys(key, 2)
        label = _draw_below(positions, class_key, np.array([len(self._starts) - 1], np.int64))
        sizes = self._starts[label + 1] - self._starts[label]
        places = self._starts[label] + _draw_below(positions, row_key, sizes)
        rows: NDArray[np.int64] = self._rows[places].astype(np.int64)
        return rows


def divide_rows(n: int) -> list[slice]:
    """Rows 0 … n - 1, some at a time, for what takes much memory of each."""
    return [slice(at, min(at + _CHUNK_ROWS, n)) for at in range(0, n, _CHUNK_ROWS)]


def find_distinct(chunks: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """The distinct values of some arrays, ascending."""
    distinct: NDArray[Any] | None = None
    for chunk in chunks:
        found = np.unique(chunk)
        distinct = found if distinct is None else np.unique(np.concatenate([distinct, found]))
    return np.empty(0) if distinct is None else distinct


@compiled
def _put(classes: NDArray[Any], first: int, following: NDArray[Any], rows: NDArray[Any]) -> None:
    """Put each row, from `first` on, to the next place of its class."""
    for i in range(len(classes)):
        rows[following[classes[i]]] = first + i
        following[classes[i]] += 1


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
        bits = hash_number(np.uint64(positions[i]), key)
        # 32 × 32 bits: the bias is below limit / 2^32, and limits are counts of one class's cells.
        if limit < np.uint64(1 << 31):
            values[i] = np.int64(((bits >> np.uint64(32)) * limit) >> np.uint64(32))
        else:
            values[i] = np.int64(bits % limit)
    return values


# 16 positions in 3 windows of `size` 5, the first `n_larger` 1 of which have one more:
#
#     window        0             1            2
#     positions     0 1 2 3 4 5 | 6 7 8 9 10 | 11 12 13 14 15
#     permuted      3 0 5 1 4 2 | 8 6 10 9 7 | 15 11 14 12 13     each a position among the runs


@compiled
def _find_window(position: int, size: int, n_larger: int) -> int:
    in_larger = n_larger * (size + 1)
    if position < in_larger:
        return position // (size + 1)
    return n_larger + (position - in_larger) // size


@compiled
def _permute_windows(
    positions: NDArray[Any],
    size: int,
    n_larger: int,
    n_bits: int,
    keys: NDArray[Any],
) -> NDArray[np.int64]:
    """Each position's own in its window, by a permutation that is keyed by the window."""
    permuted = np.empty(len(positions), np.int64)
    round_keys = np.empty(len(keys), np.uint64)
    at = 0
    while at < len(positions):
        window = _find_window(positions[at], size, n_larger)
        start = window * size + min(window, n_larger)
        stop = start + size + (window < n_larger)
        end = at + 1  # of the positions from here on that lie in the same window
        limit = min(at + _PIECE, len(positions))
        while end < limit and start <= positions[end] < stop:
            end += 1
        for i in range(len(keys)):
            round_keys[i] = hash_number(np.uint64(window), keys[i])
        inside = positions[at:end] - start
        permuted[at:end] = start + permute(inside, stop - start, n_bits, round_keys)
        at = end
    return permuted


# 11 values in runs of `run_size` 3: `n_full` 3, and one of `n_short` 2 at position `short_at` 6.
#
#     run           0       1       short   2
#     positions     0 1 2 | 3 4 5 | 6 7   | 8 9 10
#     values        3 4 5 | 0 1 2 | 9 10  | 6 7 8      full runs permuted, the short one is the last


@compiled
def _permute_runs(
    positions: NDArray[Any],
    run_size: int,
    n_full: int,
    n_short: int,
    short_at: int,
    n_bits: int,
    round_keys: NDArray[Any],
) -> NDArray[np.int64]:
    values = np.empty(len(positions), np.int64)
    for at in range(0, len(positions), _PIECE):
        some = positions[at : at + _PIECE]
        run = np.empty(len(some), np.int64)
        offset = np.empty(len(some), np.int64)
        for i in range(len(some)):
            after = some[i] - short_at
            among_full = some[i] - n_short if after >= n_short else some[i]
            run[i] = among_full // run_size
            offset[i] = among_full - run[i] * run_size
            if 0 <= after < n_short:
                run[i] = 0  # any: replaced below
        run = permute(run, max(1, n_full), n_bits, round_keys)
        for i in range(len(some)):
            after = some[i] - short_at
            is_short = 0 <= after < n_short
            values[at + i] = (
                n_full * run_size + after if is_short else run[i] * run_size + offset[i]
            )
    return values
