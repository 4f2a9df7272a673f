"""Rows of many archives at once, copied from their memory maps by a compiled loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive import map_matrix
from scdiff_data.mapping import at_address


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

    def gather(
        self, archives: NDArray[np.integer[Any]], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int16]]:
        """Rows as CSR: indptr int64 [n + 1], indices int64, data int16."""
        for archive in np.unique(archives):
            if not self._addresses[archive, 0]:
                self._map(int(archive))
        indptr = np.zeros(len(rows) + 1, np.int64)
        _measure_rows(self._addresses, archives, rows, indptr)
        indices, data = np.empty(indptr[-1], np.int64), np.empty(indptr[-1], np.int16)
        _copy_rows(self._addresses, archives, rows, indptr, indices, data)
        return indptr, indices, data

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
    indptr: NDArray[Any],
) -> None:
    for i in range(len(rows)):
        low, high = _row_range(addresses[archives[i]], rows[i])
        indptr[i + 1] = indptr[i] + high - low


@numba.njit(cache=True, nogil=True)
def _copy_rows(
    addresses: NDArray[Any],
    archives: NDArray[Any],
    rows: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> None:
    for i in range(len(rows)):
        address = addresses[archives[i]]
        low, high = _row_range(address, rows[i])
        n = high - low
        data[indptr[i] : indptr[i + 1]] = numba.carray(
            at_address(address[2] + 2 * low), n, np.int16
        )
        if address[3]:
            indices[indptr[i] : indptr[i + 1]] = numba.carray(
                at_address(address[1] + 8 * low), n, np.int64
            )
        else:
            indices[indptr[i] : indptr[i + 1]] = numba.carray(
                at_address(address[1] + 4 * low), n, np.int32
            )


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
