"""Rows of many archives at once, copied from their memory maps by a compiled loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive.file import CsrRows, map_matrix
from scdiff_data.base import (
    ArrayPool,
    DiskWatch,
    ask_for,
    ask_for_bytes,
    at_address,
    compiled,
    copy_bytes,
    expect_random,
    prefetch,
)

_AHEAD = 2048
"""Stride in bytes of software prefetches within a row; the hardware prefetcher fills the gaps."""


class ArchiveRows:
    """Rows of many archives, gathered from their memory maps.

    Each process maps an archive when it is first asked for one of its rows. What is pickled or
    inherited by a fork holds no open file. Where rows come from the disk, the system is told of all
    rows of a gather before the first is read.

    Parameters
    ----------
    paths
        The archives. A row is named by its archive's place in this list, and its place there.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, CsrRows] = {}
        self.watch = DiskWatch()
        self._addresses = np.zeros((len(self._paths), 4), np.int64)
        self._pools = {name: ArrayPool() for name in ("indices", "data", "dense")}

    def gather(
        self, archives: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int16]]:
        """Rows as CSR: indptr [n + 1] and indices, int32 if the archives' are, and data int16."""
        self._prepare(archives, rows)
        starts = np.zeros(len(rows) + 1, np.int64)
        is_long = _measure_rows(self._addresses, archives, rows, starts)
        index_type = np.int64 if is_long or starts[-1] >= 2**31 else np.int32
        n_values = (int(starts[-1]),)
        indices = self._pools["indices"].take(n_values, index_type)
        data = self._pools["data"].take(n_values, np.int16)
        _copy_rows(self._addresses, archives, rows, starts, indices, data)
        self.watch.look()
        return starts.astype(index_type), indices, data

    def gather_dense(
        self,
        archives: NDArray[np.integer[Any]],
        rows: NDArray[np.integer[Any]],
        n_genes: int,
    ) -> NDArray[np.int16]:
        """Rows as dense counts, int16 [n, n_genes]."""
        self._prepare(archives, rows)
        dense = self._pools["dense"].take((len(rows), n_genes), np.int16)
        _scatter_rows(self._addresses, archives, rows, dense)
        self.watch.look()
        return dense

    def ask_for(self, archives: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]) -> None:
        """Start to fetch rows that a later `gather` takes, but for a probe at times."""
        self._map_missing(archives)
        chosen = self.watch.choose(np.arange(len(rows)))
        asked = archives[chosen], rows[chosen]
        self.watch.tell(_ask_for_rows, self._addresses, *asked, kept=self._maps)

    def _prepare(self, archives: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]) -> None:
        self._map_missing(archives)
        if self.watch.is_cold and self.watch.asks_itself:
            self.ask_for(archives, rows)

    def _map_missing(self, archives: NDArray[np.integer[Any]]) -> None:
        if len(self._maps) < len(self._paths):
            for archive in np.unique(archives):
                if archive not in self._maps:
                    self._map(int(archive))

    def _map(self, archive: int) -> None:
        rows = self._maps[archive] = map_matrix(self._paths[archive])
        arrays = rows.indptr, rows.indices, rows.data
        ask_for(rows.indptr)
        expect_random(rows.indices)
        expect_random(rows.data)
        self._addresses[archive, :3] = [array.ctypes.data for array in arrays]
        self._addresses[archive, 3] = rows.indptr.dtype == np.int64


# What the loops below see, with the rows (archive 1, row 0) and (archive 0, row 2) asked for:
#
#     addresses [archive, 4]    indptr   indices   data   are the former two int64?
#         0                       p0       i0       d0      0
#         1                       p1       i1       d1      0
#
#     archive 0 of 3 cells:   indptr  0   2   5   6         where each cell's values start
#                             indices 4 9 | 0 4 7 | 2       genes, ascending in a cell
#                             data    1 3 | 1 1 2 | 8       counts
#
#     row 2 of archive 0: values 5 … 5, its genes at i0 + 4 * 5, its counts at d0 + 2 * 5
#
# `_measure_rows` finds out how many values there are, so that `_copy_rows` has room for just these;
# `_scatter_rows` writes dense rows instead. All of it lies at random places of memory, so each loop
# prefetches the next row's values while it copies this one's.
@compiled
def _measure_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    starts: NDArray[Any],
) -> bool:
    """Fill `starts`; says whether an archive's indices are int64."""
    is_long = False
    for i in range(len(rows)):
        indptr, _, _, is_wide = addresses[archives[i]]
        prefetch(indptr + (8 if is_wide else 4) * np.int64(rows[i]))
    for i in range(len(rows)):
        low, high = _row_range(addresses[archives[i]], rows[i])
        starts[i + 1] = starts[i] + high - low
        is_long |= addresses[archives[i], 3] > 0
    return is_long


@compiled
def _ask_for_rows(addresses: NDArray[Any], archives: NDArray[Any], rows: NDArray[Any]) -> None:
    for i in range(len(rows)):
        index_at, data_at, n, is_wide = _find_row(addresses[archives[i]], rows[i])
        if n:
            ask_for_bytes(index_at, (8 if is_wide else 4) * n)
            ask_for_bytes(data_at, 2 * n)


@compiled
def _copy_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    starts: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> None:
    for i in range(len(rows)):
        following = min(i + 1, len(rows) - 1)  # asked for while this one is copied
        index_at, data_at, n, is_wide = _find_row(addresses[archives[following]], rows[following])
        for at in range(0, (8 if is_wide else 4) * n, _AHEAD):
            prefetch(index_at + at)
        for at in range(0, 2 * n, _AHEAD):
            prefetch(data_at + at)
        index_at, data_at, n, is_wide = _find_row(addresses[archives[i]], rows[i])
        copy_bytes(data.ctypes.data + 2 * starts[i], data_at, 2 * n)
        if is_wide or indices.itemsize == 4:
            size = indices.itemsize
            copy_bytes(indices.ctypes.data + size * starts[i], index_at, size * n)
        else:
            indices[starts[i] : starts[i + 1]] = numba.carray(at_address(index_at), n, np.int32)


@compiled
def _scatter_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    dense: NDArray[Any],
) -> None:
    # 32 values are one cache line of counts and two of indices: so many are copied, then the next
    # row's lines of the same places are prefetched.
    run, line = np.uint64(32), np.int64(64)
    for i in range(len(rows)):
        following = min(i + 1, len(rows) - 1)
        index_ahead, data_ahead, _, _ = _find_row(addresses[archives[following]], rows[following])
        index_at, data_at, n_values, is_wide = _find_row(addresses[archives[i]], rows[i])
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


@compiled
def _find_row(address: NDArray[Any], row: int) -> tuple[int, int, int, bool]:
    """Addresses of a row's indices and counts, how many there are, and whether they are int64."""
    low, high = _row_range(address, row)
    is_wide = address[3] > 0
    return address[1] + (8 if is_wide else 4) * low, address[2] + 2 * low, high - low, is_wide


@compiled
def _row_range(
    address: NDArray[Any],
    row: int,
) -> tuple[int, int]:
    if address[3]:
        wide = numba.carray(at_address(address[0] + 8 * row), 2, np.int64)
        return int(wide[0]), int(wide[1])
    narrow = numba.carray(at_address(address[0] + 4 * row), 2, np.int32)
    return int(narrow[0]), int(narrow[1])
