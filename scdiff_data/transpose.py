"""Compressed columns to compressed rows in bounded memory.

Source matrices are mostly compressed sparse *columns*: a gene's cells lie together, a cell's genes
do not. Two passes over blocks of bounded size turn them round: `count_cells` checks every value and
sums each cell, `transpose` puts every count at its cell.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.errors import CountError

MAX_COUNT = 32_767
BYTES_PER_VALUE = 32
"""Memory that a block takes for each of its values: as stored, inflated and converted."""


class SourceMatrix:
    """A source's `X` as blocks of bounded size, in the order in which it is stored."""

    def __init__(
        self, x: h5py.Group | h5py.Dataset, n_cells: int, n_genes: int, max_values: int
    ) -> None:
        self.n_cells = n_cells
        encoding = x.attrs.get("encoding-type", x.attrs.get("h5sparse_format", "array"))
        self.by_gene = str(encoding).startswith("csc")
        self._x, self._max_values = x, max(max_values, 1)
        self._cached: list[tuple[int, Any, Any, Any]] | None = None
        if isinstance(x, h5py.Group):
            self._indptr = x["indptr"][:].astype(np.int64)
            self._n_minors = n_cells if self.by_gene else n_genes
            expected = (n_genes if self.by_gene else n_cells) + 1
            if (
                len(self._indptr) != expected
                or self._indptr[-1] != len(x["data"])
                or (np.diff(self._indptr, prepend=0) < 0).any()
            ):
                raise CountError(
                    f"{Path(x.file.filename).name} is damaged: X has {len(self._indptr) - 1} "
                    f"pointers over {len(x['data'])} values, obs and var say {n_cells} x {n_genes}"
                )
        else:
            self._indptr = np.arange(n_cells + 1, dtype=np.int64) * n_genes

    def blocks(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
        """First column (CSC) or row, pointers, indices of the other axis, values.

        A matrix of one block is read once and kept.
        """
        if self._cached is not None:
            yield from self._cached
            return
        starts = self._block_starts()
        for start, end in pairwise(starts):
            block = (start, *self._read(start, end))
            if len(starts) == 2:
                self._cached = [block]
            yield block

    def _block_starts(self) -> list[int]:
        starts, n_majors = [0], len(self._indptr) - 1
        while starts[-1] < n_majors:
            limit = self._indptr[starts[-1]] + self._max_values
            end = int(np.searchsorted(self._indptr, limit, side="right")) - 1
            starts.append(min(max(end, starts[-1] + 1), n_majors))
        return starts

    def _read(self, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        if isinstance(self._x, h5py.Dataset):
            dense = sp.csr_matrix(self._x[start:end])
            return dense.indptr.astype(np.int64), dense.indices, dense.data
        low, high = self._indptr[start], self._indptr[end]
        minors = self._x["indices"][low:high]
        if len(minors) and not 0 <= minors.min() <= minors.max() < self._n_minors:
            raise CountError(
                f"{Path(self._x.file.filename).name} is damaged: an index of X is outside 0 … "
                f"{self._n_minors - 1}"
            )
        return self._indptr[start : end + 1] - low, minors, self._x["data"][low:high]


class Scratch:
    """The transposed indices and counts: in memory if they fit, else in files beside the target."""

    def __init__(self, beside: Path, n_values: int, max_bytes: int) -> None:
        self._files: list[Path] = []
        self._beside, self._in_memory = beside, n_values * 6 <= max_bytes
        self.indices: NDArray[np.int32] = self._array(n_values, np.int32)
        self.data: NDArray[np.int16] = self._array(n_values, np.int16)

    def _array(self, n: int, dtype: type) -> NDArray[Any]:
        if self._in_memory or n == 0:
            return np.empty(n, dtype)
        path = self._beside.with_name(f"{self._beside.name}.{len(self._files)}")
        self._files.append(path)
        return np.memmap(path, dtype, "w+", shape=(n,))

    def close(self) -> None:
        """Delete the files."""
        for path in self._files:
            path.unlink(missing_ok=True)


def count_cells(
    matrix: SourceMatrix,
    target: NDArray[np.int32],
    source: Path,
    obs: pd.DataFrame,
    var: pd.DataFrame,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """First pass: every cell's total, expressed genes, and values on the reference axis."""
    totals = np.zeros(matrix.n_cells)
    n_genes = np.zeros(matrix.n_cells, np.int64)
    n_values = np.zeros(matrix.n_cells, np.int64)
    for first, pointers, minors, values in matrix.blocks():
        bad = _count_block(
            first, pointers, minors, values, matrix.by_gene, target, totals, n_genes, n_values
        )
        if bad >= 0:
            major = first + int(np.searchsorted(pointers, bad, side="right")) - 1
            cell, gene = (minors[bad], major) if matrix.by_gene else (major, minors[bad])
            raise CountError(
                f"{source.name} does not hold counts: X of cell {obs.index[cell]}, gene "
                f"{var.index[gene]} is {values[bad]}; counts are finite, whole and not negative"
            )
    return totals, n_genes, n_values


def transpose(
    matrix: SourceMatrix,
    target: NDArray[np.int32],
    rows: NDArray[np.int64],
    n_values: NDArray[np.int64],
    scratch: Scratch,
) -> tuple[NDArray[np.int64], int]:
    """Second pass: put the kept cells' counts, sorted by gene, into the scratch arrays."""
    row_of_cell = np.full(matrix.n_cells, -1, np.int64)
    row_of_cell[rows] = np.arange(len(rows))
    starts = np.concatenate([[0], np.cumsum(n_values[rows])])
    cursor, n_saturated = starts[:-1].copy(), 0
    for first, pointers, minors, values in matrix.blocks():
        n_saturated += _scatter_block(
            first,
            pointers,
            minors,
            values,
            matrix.by_gene,
            target,
            row_of_cell,
            cursor,
            scratch.indices,
            scratch.data,
        )
    known = target[target >= 0]
    if matrix.by_gene and (np.diff(known) > 0).all():
        return starts, n_saturated
    n_merged, n_newly_saturated = _sort_rows(starts, scratch.indices, scratch.data)
    return np.concatenate([[0], np.cumsum(n_merged)]), n_saturated + n_newly_saturated


@numba.njit(cache=True, nogil=True)
def _count_block(
    first: int,
    pointers: NDArray[Any],
    minors: NDArray[Any],
    values: NDArray[Any],
    by_gene: bool,
    target: NDArray[Any],
    totals: NDArray[Any],
    n_genes: NDArray[Any],
    n_values: NDArray[Any],
) -> int:
    """Add a block to the cells' sums; returns where the first value is that is no count, or -1."""
    for j in range(len(pointers) - 1):
        for k in range(pointers[j], pointers[j + 1]):
            value = np.float64(values[k])
            if not (value >= 0 and value < 2.0**31 and value == np.floor(value)):
                return k
            if value == 0:
                continue
            cell = minors[k] if by_gene else first + j
            gene = first + j if by_gene else minors[k]
            totals[cell] += value
            n_genes[cell] += 1
            n_values[cell] += target[gene] >= 0
    return -1


@numba.njit(cache=True, nogil=True)
def _scatter_block(
    first: int,
    pointers: NDArray[Any],
    minors: NDArray[Any],
    values: NDArray[Any],
    by_gene: bool,
    target: NDArray[Any],
    row_of_cell: NDArray[Any],
    cursor: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> int:
    """Put a block's counts at their cells' cursors; returns how many saturated."""
    n_saturated = 0
    for j in range(len(pointers) - 1):
        for k in range(pointers[j], pointers[j + 1]):
            row = row_of_cell[minors[k] if by_gene else first + j]
            gene = target[first + j if by_gene else minors[k]]
            if row < 0 or gene < 0 or values[k] == 0:
                continue
            n_saturated += values[k] > MAX_COUNT
            indices[cursor[row]] = gene
            data[cursor[row]] = np.int16(min(values[k], MAX_COUNT))
            cursor[row] += 1
    return n_saturated


@numba.njit(cache=True, nogil=True)
def _sort_rows(
    starts: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> tuple[NDArray[np.int64], int]:
    """Sort each row by gene, sum repeated genes, and close the gaps between rows."""
    n_merged = np.zeros(len(starts) - 1, np.int64)
    n_saturated, at = 0, 0
    for row in range(len(starts) - 1):
        low, high = starts[row], starts[row + 1]
        order = np.argsort(indices[low:high])
        genes, counts = indices[low:high][order], data[low:high][order]
        for k in range(len(genes)):
            if k and genes[k] == genes[k - 1]:
                total = int(data[at - 1]) + int(counts[k])
                n_saturated += int(total > MAX_COUNT > max(int(data[at - 1]), int(counts[k])))
                data[at - 1] = np.int16(min(total, MAX_COUNT))
            else:
                indices[at], data[at] = genes[k], counts[k]
                n_merged[row] += 1
                at += 1
    return n_merged, n_saturated
