"""Rows of many archives at once, copied from their memory maps by a compiled loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive import map_matrix
from scdiff_data.buffers import Buffers
from scdiff_data.mapping import at_address, copy_bytes, prefetch


class ArchiveMap:
    """Rows of many archives, gathered from their maps.

    Archives are mapped when a row of theirs is first asked for, in each process for itself; what is
    pickled or inherited by a fork holds no open file.

    Parameters
    ----------
    paths
        The archives; a row is named by its archive's place in this list and its place in there.
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
        self._maps: dict[int, tuple[NDArray[Any], ...]] = {}
        # Addresses of indptr, indices and data, and whether the former two are int64.
        self._addresses = np.zeros((len(self._paths), 4), np.int64)
        self._buffers = {name: Buffers() for name in ("indices", "data", "dense")}

    def gather(
        self, archives: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int16]]:
        """Rows as CSR: indptr [n + 1] and indices, int32 if the archives' are, and data int16."""
        self._map_missing(archives)
        starts = np.zeros(len(rows) + 1, np.int64)
        is_long = _measure_rows(self._addresses, archives, rows, starts)
        index_type = np.int64 if is_long or starts[-1] >= 2**31 else np.int32
        n_values = (int(starts[-1]),)
        indices = self._buffers["indices"].take(n_values, index_type)
        data = self._buffers["data"].take(n_values, np.int16)
        _copy_rows(self._addresses, archives, rows, starts, indices, data)
        return starts.astype(index_type), indices, data

    def gather_dense(
        self,
        archives: NDArray[np.integer[Any]],
        rows: NDArray[np.integer[Any]],
        n_genes: int,
    ) -> NDArray[np.int16]:
        """Rows as dense counts, int16 [n, n_genes]."""
        self._map_missing(archives)
        dense = self._buffers["dense"].take((len(rows), n_genes), np.int16)
        _scatter_rows(self._addresses, archives, rows, dense)
        return dense

    def _map_missing(self, archives: NDArray[np.integer[Any]]) -> None:
        if len(self._maps) < len(self._paths):
            for archive in np.unique(archives):
                if archive not in self._maps:
                    self._map(int(archive))

    def _map(self, archive: int) -> None:
        *arrays, _ = map_matrix(self._paths[archive])
        self._maps[archive] = tuple(arrays)
        self._addresses[archive, :3] = [array.ctypes.data for array in arrays]
        self._addresses[archive, 3] = arrays[0].dtype == np.int64


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def _copy_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    starts: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> None:
    for i in range(len(rows)):
        _, index_at, data_at, is_wide = addresses[archives[i]]
        low, high = _row_range(addresses[archives[i]], rows[i])
        n = high - low
        copy_bytes(data.ctypes.data + 2 * starts[i], data_at + 2 * low, 2 * n)
        if is_wide or indices.itemsize == 4:
            size = indices.itemsize
            copy_bytes(indices.ctypes.data + size * starts[i], index_at + size * low, size * n)
        else:
            indices[starts[i] : starts[i + 1]] = numba.carray(
                at_address(index_at + 4 * low), n, np.int32
            )


@numba.njit(cache=True, nogil=True)
def _scatter_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    dense: NDArray[Any],
) -> None:
    # Unsigned: an index that could be negative is looked at twice.
    for i in range(len(rows)):
        _, index_at, data_at, is_wide = addresses[archives[i]]
        low, high = _row_range(addresses[archives[i]], rows[i])
        n, cell = high - low, dense[i]
        counts = numba.carray(at_address(data_at + 2 * low), n, np.int16)
        cell[:] = 0
        if is_wide:
            long = numba.carray(at_address(index_at + 8 * low), n, np.uint64)
            for k in range(np.uint64(n)):
                cell[long[k]] = counts[k]
        else:
            genes = numba.carray(at_address(index_at + 4 * low), n, np.uint32)
            for k in range(np.uint64(n)):
                cell[genes[k]] = counts[k]


@numba.njit(cache=True, nogil=True)
def _row_range(
    address: NDArray[Any],
    row: int,
) -> tuple[int, int]:
    if address[3]:
        wide = numba.carray(at_address(address[0] + 8 * row), 2, np.int64)
        return int(wide[0]), int(wide[1])
    narrow = numba.carray(at_address(address[0] + 4 * row), 2, np.int32)
    return int(narrow[0]), int(narrow[1])
