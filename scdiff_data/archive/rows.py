"""Rows of many archives at once, copied from their memory maps by a compiled loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive.file import CsrRows, damaged, map_matrix
from scdiff_data.base import (
    ArrayPool,
    DiskWatch,
    ask_for,
    ask_for_bytes,
    at_address,
    compiled,
    copy_bytes,
    identify_file,
    prefetch,
)
from scdiff_data.errors import ManifestError

_MOST_MAPS = 40_000
"""Archives mapped at a time, a map each: Linux lets a process have 65,530; shards take some."""

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

    Raises
    ------
    FileNotFoundError
        If one of them is not there.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._identities = [identify_file(path) for path in self._paths]
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_identities": self._identities}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, CsrRows] = {}
        self.watch = DiskWatch()
        self._addresses = np.zeros((len(self._paths), 6), np.int64)
        self._pools = {name: ArrayPool() for name in ("indices", "data", "dense")}

    def gather(
        self, archives: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int16]]:
        """Rows as CSR: indptr [n + 1] and indices, int32 if the archives' are, and data int16.

        Raises
        ------
        ManifestError
            If an archive is damaged or was replaced, or there is no such row.
        """
        places, starts = self._find(archives, rows)
        index_type = np.int64 if places[:, 3].any() or starts[-1] >= 2**31 else np.int32
        n_values = (int(starts[-1]),)
        indices = self._pools["indices"].take(n_values, index_type)
        data = self._pools["data"].take(n_values, np.int16)
        if not _copy_rows(places, starts, indices, data):
            self._explain(archives)
        self.watch.look()
        return starts.astype(index_type), indices, data

    def gather_dense(
        self,
        archives: NDArray[np.integer[Any]],
        rows: NDArray[np.integer[Any]],
        n_genes: int,
    ) -> NDArray[np.int16]:
        """Rows as dense counts, int16 [n, n_genes]; raises as `gather` does."""
        places, _ = self._find(archives, rows)
        dense = self._pools["dense"].take((len(rows), n_genes), np.int16)
        if not _scatter_rows(places, dense):
            self._explain(archives)
        self.watch.look()
        return dense

    def ask_for(self, archives: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]) -> None:
        """Start to fetch rows that a later `gather` takes, but for a probe at times."""
        self._map_missing(archives)
        chosen = self.watch.choose(np.arange(len(rows)))
        asked = archives[chosen], rows[chosen]
        self.watch.tell(_ask_for_rows, self._addresses, *asked, kept=self._maps)

    def _find(
        self, archives: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where rows lie, see the picture below, and where each starts among all of them."""
        self._map_missing(archives)
        if self.watch.is_cold and self.watch.asks_itself:
            self.ask_for(archives, rows)
        places = np.empty((len(rows), 5), np.int64)
        starts = np.zeros(len(rows) + 1, np.int64)
        if not _find_rows(self._addresses, archives, rows, places, starts):
            self._explain(archives)
        return places, starts

    def _explain(self, archives: NDArray[np.integer[Any]]) -> NoReturn:
        """Say which of the archives is damaged: all of its genes and rows are looked at."""
        for archive in np.unique(archives):
            indices, n_genes = self._maps[archive].indices, self._maps[archive].n_genes
            if len(indices) and not 0 <= indices.min() <= indices.max() < n_genes:
                raise damaged(
                    self._paths[archive],
                    f"X/indices has genes {indices.min()} … {indices.max()}, of {n_genes}",
                )
        names = ", ".join(str(self._paths[archive]) for archive in np.unique(archives)[:3])
        raise ManifestError(
            f"the table of cells names a row that {names} has not: one of them is damaged or of "
            "another run; delete config.json and metadata/cells.parquet, and prepare again"
        )

    def _map_missing(self, archives: NDArray[np.integer[Any]]) -> None:
        if len(self._maps) == len(self._paths):
            return
        missing = [archive for archive in np.unique(archives) if archive not in self._maps]
        if len(self._maps) + len(missing) > _MOST_MAPS:
            # Those mapped first go. Not in place: a hint on its way still reads by the old ones.
            gone = list(self._maps)[: max(len(missing), _MOST_MAPS // 4)]
            self._maps = {a: rows for a, rows in self._maps.items() if a not in set(gone)}
            self._addresses = self._addresses.copy()
            missing = [archive for archive in np.unique(archives) if archive not in self._maps]
        for archive in missing:
            self._map(int(archive))

    def _map(self, archive: int) -> None:
        path = self._paths[archive]
        try:
            rows = map_matrix(path, at_random=True)
            is_same = identify_file(path) == self._identities[archive]
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise ManifestError(
                f"{path} was replaced by another run of prepare since this data set was opened: "
                "open it again, and give settings that differ a data_dir each"
            )
        self._maps[archive] = rows
        ask_for(rows.indptr)
        arrays = rows.indptr, rows.indices, rows.data
        self._addresses[archive, :3] = [array.ctypes.data for array in arrays]
        self._addresses[archive, 3] = rows.indptr.dtype == np.int64
        self._addresses[archive, 4:] = rows.n_genes, len(rows.indptr) - 1


# What the loops below see, with the rows (archive 1, row 0) and (archive 0, row 2) asked for:
#
#     addresses [archive, 6]    indptr   indices   data   are the former two int64?   genes   rows
#         0                       p0       i0       d0      0                          10      3
#         1                       p1       i1       d1      0                          10      7
#
#     archive 0 of 3 cells:   indptr  0   2   5   6         where each cell's values start
#                             indices 4 9 | 0 4 7 | 2       genes, ascending in a cell
#                             data    1 3 | 1 1 2 | 8       counts
#
#     places [row, 5]   of row 2 of archive 0:   i0 + 4 * 5   d0 + 2 * 5   1 value   0   10 genes
#
# `_find_rows` fills `places`, and `starts`, so that `_copy_rows` has room for just these values;
# `_scatter_rows` writes dense rows instead. All of it lies at random places of memory, so each loop
# prefetches the next row's values while it copies this one's.
@compiled
def _find_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    places: NDArray[Any],
    starts: NDArray[Any],
) -> bool:
    """Fill `places` and `starts`; False if there is no such row."""
    for i in range(len(rows)):
        if rows[i] < 0 or rows[i] >= addresses[archives[i], 5]:
            return False
        prefetch(addresses[archives[i], 0] + (8 if addresses[archives[i], 3] else 4) * rows[i])
    for i in range(len(rows)):
        address = addresses[archives[i]]
        index_at, data_at, n, is_wide = _find_row(address, rows[i])
        places[i, 0], places[i, 1], places[i, 2] = index_at, data_at, n
        places[i, 3], places[i, 4] = is_wide, address[4]
        starts[i + 1] = starts[i] + n
    return True


@compiled
def _ask_for_rows(addresses: NDArray[Any], archives: NDArray[Any], rows: NDArray[Any]) -> None:
    for i in range(len(rows)):
        if 0 <= rows[i] < addresses[archives[i], 5]:
            index_at, data_at, n, is_wide = _find_row(addresses[archives[i]], rows[i])
            if n:
                ask_for_bytes(index_at, (8 if is_wide else 4) * n)
                ask_for_bytes(data_at, 2 * n)


@compiled
def _copy_rows(
    places: NDArray[Any], starts: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]
) -> bool:
    """Copy rows one after another; False if one has a gene that is not there."""
    for i in range(len(places)):
        following = min(i + 1, len(places) - 1)  # asked for while this one is copied
        index_at, data_at, n, is_wide, _ = places[following]
        for at in range(0, (8 if is_wide else 4) * n, _AHEAD):
            prefetch(index_at + at)
        for at in range(0, 2 * n, _AHEAD):
            prefetch(data_at + at)
        index_at, data_at, n, is_wide, n_genes = places[i]
        copy_bytes(data.ctypes.data + 2 * starts[i], data_at, 2 * n)
        if is_wide or indices.itemsize == 4:
            size = indices.itemsize
            copy_bytes(indices.ctypes.data + size * starts[i], index_at, size * n)
        else:
            indices[starts[i] : starts[i + 1]] = numba.carray(at_address(index_at), n, np.int32)
        at = indices.ctypes.data + indices.itemsize * starts[i]
        if indices.itemsize == 4:
            largest = np.int64(_find_largest(numba.carray(at_address(at), n, np.uint32)))
        else:
            largest = np.int64(_find_largest(numba.carray(at_address(at), n, np.uint64)))
        if n and not 0 <= largest < n_genes:
            return False
    return True


@compiled
def _scatter_rows(places: NDArray[Any], dense: NDArray[Any]) -> bool:
    """Write dense rows; False if one has a gene that is not there."""
    # 32 values are one cache line of counts and two of indices: so many are copied, then the next
    # row's lines of the same places are prefetched.
    run, line = np.uint64(32), np.int64(64)
    n_genes = np.uint64(dense.shape[1])
    for i in range(len(places)):
        following = min(i + 1, len(places) - 1)
        index_ahead, data_ahead = places[following, 0], places[following, 1]
        index_at, data_at, n_values, is_wide, _ = places[i]
        n, cell = np.uint64(n_values), dense[i]
        counts = numba.carray(at_address(data_at), n_values, np.int16)
        genes = numba.carray(at_address(index_at), n_values, np.uint32)
        long_genes = numba.carray(at_address(index_at), n_values, np.uint64)
        largest = np.uint64(_find_largest(long_genes) if is_wide else _find_largest(genes))
        if largest >= n_genes:
            return False
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
def _find_largest(genes: NDArray[Any]) -> Any:
    """The largest of some unsigned genes, above all that there are where one is negative."""
    largest = genes.dtype.type(0)
    for k in range(np.uint64(len(genes))):  # as vectors: nothing in it branches
        largest = max(largest, genes[k])
    return largest


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
