"""The compiled loops that gather rows of shards, by the addresses of their memory maps."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import (
    at_address,
    compiled,
    copy_bytes,
    count_trailing_zeros,
    prefetch,
    translate_sixteen,
    zero_bytes,
)
from scdiff_data.shuffle import translate_row, unpack_row

FINE = 0
"""What becomes of a gather."""

OUTSIDE = 1
"""The same: there is no such row."""

DAMAGED = 2
"""The same: a packed row lies outside its shard."""

_AHEAD = 1024
"""Stride in bytes of software prefetches within a row; the hardware prefetcher fills the gaps."""

_ROWS_AHEAD = 6
"""Packed rows that are on their way while one is unpacked."""

_LINE = 64
"""Bytes that memory answers a prefetch with."""

_RUN = 64
"""Counts that are translated at a time: two lines."""


# What the loops see, with two shards of 4 cells, 3 genes, and the rows 5, 0, 2 asked for:
#
#     addresses [column, shard]     shard 0   shard 1      where in memory a shard's column starts
#         0  expression               a0        a1         of compact shards: `starts`
#         1  packed                   -         -          `packed`
#         2  bytes of `packed`        -         -          how many, no address
#         3  total_counts             b0        b1
#
#     jobs [column, 4]      place   bytes of a row   of these to copy   where in `narrow`
#         expression          0           6                 6           -1: it goes to `wide`
#         total_counts        3           4                 4            0
#
#     row 5 = shard 1, place 1           wide [3, 3]                narrow, as bytes
#     row 0 = shard 0, place 0             a1 + 1 * 6                 b1 + 1 * 4
#     row 2 = shard 0, place 2             a0                         b0
#                                          a0 + 2 * 6                 b0 + 2 * 4
#
# A row is in no cache, and fetching one from memory takes as long as copying it. So narrow rows are
# all prefetched first and copied last, and a wide row is prefetched while the row before it is
# copied: memory answers many requests at once. Rows are copied by memcpy, as bytes: one loop serves
# every type.
@compiled
def copy_rows(
    addresses: NDArray[Any],
    jobs: NDArray[Any],
    rows: NDArray[Any],
    start: int,
    n_cells: int,
    shard_size: int,
    wide: NDArray[Any],
    narrow: NDArray[Any],
) -> int:
    """Copy rows of columns one after another."""
    if not len(rows):
        return FINE
    shards, places = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    if not _locate(rows, start, n_cells, shard_size, shards, places):
        return OUTSIDE
    for job in range(len(jobs)):
        column, row_bytes, n_bytes, offset = jobs[job]
        if offset >= 0:
            for i in range(len(rows)):
                prefetch(addresses[column, shards[i]] + places[i] * row_bytes)
    for job in range(len(jobs)):
        column, row_bytes, n_bytes, offset = jobs[job]
        if offset < 0:
            target, at = wide.ctypes.data, addresses[column, shards[0]] + places[0] * row_bytes
            for i in range(len(rows)):
                here = at
                if i + 1 < len(rows):
                    at = addresses[column, shards[i + 1]] + places[i + 1] * row_bytes
                    for page in range(0, n_bytes, _AHEAD):
                        prefetch(at + page)
                copy_bytes(target + i * n_bytes, here, n_bytes)
    for job in range(len(jobs)):
        column, row_bytes, n_bytes, offset = jobs[job]
        if offset >= 0:
            target = narrow.ctypes.data + offset
            for i in range(len(rows)):
                at = addresses[column, shards[i]] + places[i] * row_bytes
                copy_bytes(target + i * n_bytes, at, n_bytes)
    return FINE


@compiled
def _locate(
    rows: NDArray[Any],
    start: int,
    n_cells: int,
    shard_size: int,
    shards: NDArray[Any],
    places: NDArray[Any],
) -> bool:
    """Shard of every row and its place there; False if a row is outside."""
    for i in range(len(rows)):
        row = rows[i] + n_cells if rows[i] < 0 else rows[i]
        if row < 0 or row >= n_cells:
            return False
        shards[i] = (row + start) // shard_size
        places[i] = (row + start) - shards[i] * shard_size
    return True


@compiled
def read_span(address: int, place: int, is_long: bool) -> Any:  # noqa: FBT001
    """Where a packed row starts and ends, by its shard's `starts`."""
    if is_long:
        wide = numba.carray(at_address(address + 8 * place), 2, np.uint64)
        return np.int64(wide[0]), np.int64(wide[1])
    narrow = numba.carray(at_address(address + 4 * place), 2, np.uint32)
    return np.int64(narrow[0]), np.int64(narrow[1])


@compiled
def _find_packed(
    addresses: NDArray[Any],
    rows: NDArray[Any],
    start: int,
    n_cells: int,
    shard_size: int,
    is_long: bool,  # noqa: FBT001
    at: NDArray[Any],
    size: NDArray[Any],
) -> int:
    """Address and bytes of every packed row."""
    if not _locate(rows, start, n_cells, shard_size, at, size):
        return OUTSIDE
    step = 8 if is_long else 4
    for i in range(len(rows)):
        prefetch(addresses[0, at[i]] + step * size[i])
    for i in range(len(rows)):
        shard = at[i]
        low, high = read_span(addresses[0, shard], size[i], is_long)
        # An odd number of bytes would be half a pair; what is beyond the shard is another's memory.
        if low > high or high > addresses[2, shard] or (high - low) & 1:
            return DAMAGED
        at[i], size[i] = addresses[1, shard] + low, high - low
    return FINE


@compiled
def unpack_rows(
    addresses: NDArray[Any],
    rows: NDArray[Any],
    start: int,
    n_cells: int,
    shard_size: int,
    is_long: bool,  # noqa: FBT001
    counts: NDArray[Any],
) -> int:
    """Unpack compact rows into int16 [n, n_genes]."""
    at, size = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    state: int = _find_packed(addresses, rows, start, n_cells, shard_size, is_long, at, size)
    if state == FINE:
        n_bytes = counts.itemsize * counts.shape[1]
        for i in range(min(_ROWS_AHEAD, len(rows))):
            _prefetch_row(at[i], size[i])
        for i in range(len(rows)):
            if i + _ROWS_AHEAD < len(rows):
                _prefetch_row(at[i + _ROWS_AHEAD], size[i + _ROWS_AHEAD])
            zero_bytes(counts.ctypes.data + n_bytes * i, n_bytes)
            unpack_row(at[i], size[i], counts[i])
    return state


@compiled
def translate_packed(
    addresses: NDArray[Any],
    rows: NDArray[Any],
    start: int,
    n_cells: int,
    shard_size: int,
    is_long: bool,  # noqa: FBT001
    table: NDArray[Any],
    tokens: NDArray[Any],
) -> int:
    """Unpack compact rows into the tokens of their counts, [n, n_genes] of the table's type."""
    at, size = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    state: int = _find_packed(addresses, rows, start, n_cells, shard_size, is_long, at, size)
    if state == FINE:
        for i in range(min(_ROWS_AHEAD, len(rows))):
            _prefetch_row(at[i], size[i])
        for i in range(len(rows)):
            if i + _ROWS_AHEAD < len(rows):
                _prefetch_row(at[i + _ROWS_AHEAD], size[i + _ROWS_AHEAD])
            tokens[i, :] = table[0]
            translate_row(at[i], size[i], table, tokens[i])
    return state


@compiled
def _prefetch_row(address: int, n_bytes: int) -> None:
    for line in range(0, n_bytes, _LINE):
        prefetch(address + line)


# A narrow table takes 64 counts at a time. Most are below 16, and a shuffle of bytes looks 16 of
# them up at once; what is above is noted, and looked up by itself when the row is done:
#
#     counts   0  3  0 20  1 ...        of 64:  bits   0 0 0 1 0 ...     large [n]
#     found    0  3  0 t4  1 ...                first gene of the 64     where [n]
#                      └─ becomes table[20]
@compiled
def translate_dense(
    addresses: NDArray[Any],
    rows: NDArray[Any],
    start: int,
    n_cells: int,
    shard_size: int,
    n_stored: int,
    table: NDArray[Any],
    tokens: NDArray[Any],
) -> int:
    """The tokens of dense rows' counts, [n, n_genes] of the table's type."""
    shards, places = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    if not _locate(rows, start, n_cells, shard_size, shards, places):
        return OUTSIDE
    n_genes, is_narrow = tokens.shape[1], table.itemsize == 1
    one, most = np.uint64(1), np.uint16(32767)
    n_runs = n_genes // _RUN
    large, where = np.empty((2, n_runs), np.uint64)
    for i in range(len(rows)):
        # What this row takes from memory is asked for of the row after next.
        following = min(i + 2, len(rows) - 1)
        ahead = addresses[0, shards[following]] + 2 * n_stored * places[following]
        here = addresses[0, shards[i]] + 2 * n_stored * places[i]
        counts, found = numba.carray(at_address(here), n_genes, np.uint16), tokens[i]
        n_large = 0
        for run in range(n_runs):
            first = _RUN * run
            prefetch(ahead + 2 * first)
            prefetch(ahead + 2 * first + _LINE)
            if is_narrow:
                bits = np.uint64(0)
                for k in range(4):
                    to = found.ctypes.data + first + 16 * k
                    from_ = here + 2 * first + 32 * k
                    bits |= translate_sixteen(to, from_, table.ctypes.data) << np.uint64(16 * k)
                large[n_large], where[n_large] = bits, first
                n_large += bits != 0
            else:
                for gene in range(np.uint64(first), np.uint64(first + _RUN)):
                    found[gene] = table[counts[gene] & most]
        for gene in range(np.uint64(n_runs * _RUN), np.uint64(n_genes)):
            found[gene] = table[counts[gene] & most]
        for k in range(n_large):
            bits = large[k]
            while bits:
                gene = where[k] + count_trailing_zeros(bits)
                found[gene] = table[counts[gene] & most]
                bits &= bits - one
    return FINE
