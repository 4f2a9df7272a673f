"""The compiled loops that gather rows of archives, by the addresses of their memory maps."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import ask_for_bytes, at_address, compiled, copy_bytes, prefetch

MISSING = 0
"""What `find_rows` finds: there is no such row."""

NARROW = 1
"""The same: rows whose indices are int32."""

WIDE = 2
"""The same: rows of which some have int64 indices."""

_AHEAD = 2048
"""Stride in bytes of software prefetches within a row; the hardware prefetcher fills the gaps."""


# What the loops below see, with the rows (archive 1, row 0) and (archive 0, row 2) asked for:
#
#     addresses [archive, 8]   indptr   indices   data  are these int64?   genes   rows   seen  sums
#         0                      p0       i0       d0     0                  10      3      s0    0
#         1                      p1       i1       d1     0                  10      7      s1    t1
#
#     archive 0 of 3 cells:   indptr  0   2   5   6         where each cell's values start
#                             indices 4 9 | 0 4 7 | 2       genes, ascending in a cell
#                             data    1 3 | 1 1 2 | 8       counts
#
#     places [row, 8]   indices      data        values   int64?   genes   total   exactly?   seen
#         0             i1           d1            4        0       10    t1          2      s1
#         1             i0 + 4 * 5   d0 + 2 * 5    1        0       10       8        1      s0 + 2
#
# A row adds up to its cell's total exactly, or to no more (0), or to what stands in memory (2).
# `find_rows` fills `places`, and `starts`, so that `copy_rows` has room for just these values;
# `scatter_rows` writes dense rows instead. A row is looked at when it is first taken: a byte at
# `seen` says that it was. All of it lies at random places of memory, so each loop prefetches the
# next row's values while it copies this one's.
@compiled
def find_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    totals: NDArray[Any],
    are_exact: NDArray[Any],
    places: NDArray[Any],
    starts: NDArray[Any],
) -> int:
    """Fill `places` and `starts`; gives `MISSING`, `NARROW` or `WIDE`."""
    state = NARROW
    for i in range(len(rows)):
        if rows[i] < 0 or rows[i] >= addresses[archives[i], 5]:
            return MISSING
        prefetch(addresses[archives[i], 0] + (8 if addresses[archives[i], 3] else 4) * rows[i])
        prefetch(addresses[archives[i], 6] + rows[i])
    starts[0] = 0
    for i in range(len(rows)):
        address = addresses[archives[i]]
        index_at, data_at, n, is_wide = _find_row(address, rows[i])
        places[i, 0], places[i, 1], places[i, 2], places[i, 3] = index_at, data_at, n, is_wide
        places[i, 4], places[i, 5] = address[4], totals[i]
        places[i, 6], places[i, 7] = are_exact[archives[i]], address[6] + rows[i]
        if address[7]:
            places[i, 5], places[i, 6] = address[7] + 8 * rows[i], 2
        starts[i + 1] = starts[i] + n
        if is_wide:
            state = WIDE
    return state


@compiled
def ask_for_rows(addresses: NDArray[Any], archives: NDArray[Any], rows: NDArray[Any]) -> None:
    """Start to fetch rows; those that are not there are left out."""
    for i in range(len(rows)):
        if 0 <= rows[i] < addresses[archives[i], 5]:
            index_at, data_at, n, is_wide = _find_row(addresses[archives[i]], rows[i])
            if n:
                ask_for_bytes(index_at, (8 if is_wide else 4) * n)
                ask_for_bytes(data_at, 2 * n)


@compiled
def copy_rows(
    places: NDArray[Any], starts: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]
) -> bool:
    """Copy rows one after another; False if one is not sound."""
    for i in range(len(places)):
        following = min(i + 1, len(places) - 1)  # asked for while this one is copied
        index_at, data_at, n, is_wide = places[following, :4]
        for at in range(0, (8 if is_wide else 4) * n, _AHEAD):
            prefetch(index_at + at)
        for at in range(0, 2 * n, _AHEAD):
            prefetch(data_at + at)
        index_at, data_at, n, is_wide = places[i, :4]
        copy_bytes(data.ctypes.data + 2 * starts[i], data_at, 2 * n)
        if is_wide or indices.itemsize == 4:
            size = indices.itemsize
            copy_bytes(indices.ctypes.data + size * starts[i], index_at, size * n)
        else:
            indices[starts[i] : starts[i + 1]] = numba.carray(at_address(index_at), n, np.int32)
        at = indices.ctypes.data + indices.itemsize * starts[i]
        if not _is_sound(places[i], at, indices.itemsize == 8):
            return False
    return True


@compiled
def scatter_rows(places: NDArray[Any], dense: NDArray[Any]) -> bool:
    """Write dense rows; False if one is not sound."""
    # 32 values are one cache line of counts and two of indices: so many are copied, then the next
    # row's lines of the same places are prefetched.
    run, line = np.uint64(32), np.int64(64)
    for i in range(len(places)):
        following = min(i + 1, len(places) - 1)
        index_ahead, data_ahead = places[following, 0], places[following, 1]
        index_at, data_at, n_values, is_wide, n_genes = places[i, :5]
        if n_genes > dense.shape[1] or not _is_sound(places[i], index_at, is_wide > 0):
            return False
        n, cell = np.uint64(n_values), dense[i]
        counts = numba.carray(at_address(data_at), n_values, np.int16)
        genes = numba.carray(at_address(index_at), n_values, np.uint32)
        long_genes = numba.carray(at_address(index_at), n_values, np.uint64)
        cell[:] = 0
        start = np.uint64(0)
        while start < n:
            prefetch(index_ahead)
            prefetch(index_ahead + line)
            prefetch(data_ahead)
            index_ahead, data_ahead = index_ahead + 2 * line, data_ahead + line
            for k in range(start, min(start + run, n)):
                cell[long_genes[k] if is_wide else np.uint64(genes[k])] = counts[k]
            start += run
    return True


@compiled
def _is_sound(place: NDArray[Any], index_at: int, is_wide: bool) -> bool:  # noqa: FBT001
    """Whether a row's genes are there, and its counts add up."""
    _, data_at, n, _, n_genes, total, is_exact, seen_at = place
    seen = numba.carray(at_address(seen_at), 1, np.uint8)
    if seen[0]:
        return True
    if is_exact == 2:
        total = numba.carray(at_address(total), 1, np.int64)[0]
    largest, added = np.uint64(0), np.int64(0)
    if is_wide:
        for gene in numba.carray(at_address(index_at), n, np.uint64):
            largest = max(largest, gene)
    else:
        for narrow in numba.carray(at_address(index_at), n, np.uint32):
            largest = max(largest, np.uint64(narrow))
    for count in numba.carray(at_address(data_at), n, np.int16):
        added += np.int64(count)
    is_right = (n == 0 or largest < np.uint64(n_genes)) and (
        added == total or (added < total and not is_exact)
    )
    seen[0] = is_right
    return bool(is_right)


@compiled
def _find_row(address: NDArray[Any], row: int) -> tuple[int, int, int, bool]:
    """Addresses of a row's indices and counts, how many there are, and whether they are int64."""
    is_wide = address[3] > 0
    if is_wide:
        wide = numba.carray(at_address(address[0] + 8 * row), 2, np.int64)
        low, high = int(wide[0]), int(wide[1])
    else:
        narrow = numba.carray(at_address(address[0] + 4 * row), 2, np.int32)
        low, high = int(narrow[0]), int(narrow[1])
    return address[1] + (8 if is_wide else 4) * low, address[2] + 2 * low, high - low, is_wide
