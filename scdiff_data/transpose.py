"""Compressed columns to compressed rows in bounded memory.

Source matrices are mostly compressed sparse *columns*: a gene's cells lie together, a cell's genes
do not. Two passes over blocks of bounded size turn them round: `count_cells` checks every value and
sums each cell, `transpose` puts every count at its cell, in arrays that may be maps of a file.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.errors import CountError
from scdiff_data.inflate import Workers
from scdiff_data.matrix import SourceMatrix

MAX_COUNT = 32_767
_TILE = 1024
"""Cells filled at a time: their rows' ends stay in the caches and the address buffers."""


@dataclass(frozen=True)
class CellSums:
    """What the first pass finds out.

    Parameters
    ----------
    totals
        Every cell's sum, exact, float64 [n_cells].
    n_genes
        Genes of the file that it expresses, int64 [n_cells].
    n_values
        Those of them that the reference axis has, int64 [n_cells].
    is_sorted
        Whether indices increase along every column (CSC) or row, as canonical matrices' do.
    """

    totals: NDArray[np.float64]
    n_genes: NDArray[np.int64]
    n_values: NDArray[np.int64]
    is_sorted: bool


def count_cells(
    matrix: SourceMatrix,
    target: NDArray[np.int32],
    *,
    source: Path,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    workers: Workers,
) -> CellSums:
    """First pass: check every value, and sum every cell.

    Parameters
    ----------
    matrix
        The source.
    target
        Each gene's place on the reference axis, or -1.
    source, obs, var
        The file and its names, for the error.
    workers
        What each block is divided among.

    Raises
    ------
    CountError
        If a value is not finite, whole and non-negative.
    """
    parts = [
        (np.zeros(matrix.n_cells), *(np.zeros(matrix.n_cells, np.int64) for _ in range(2)))
        for _ in range(workers.n)
    ]
    is_sorted = True
    for first, pointers, minors, values in matrix.blocks():
        bounds = np.searchsorted(pointers, np.linspace(0, len(values), workers.n + 1)[1:-1])
        block = (pointers, minors, values, matrix.by_gene, target)
        jobs = [
            (first, low, high, *block, *sums)
            for (low, high), sums in zip(
                pairwise([0, *bounds.tolist(), len(pointers) - 1]), parts, strict=True
            )
        ]
        for bad, part_is_sorted in workers.map(_count, jobs):
            is_sorted &= part_is_sorted
            if bad >= 0:
                major = first + int(np.searchsorted(pointers, bad, side="right")) - 1
                cell, gene = (minors[bad], major) if matrix.by_gene else (major, minors[bad])
                raise CountError(
                    f"{source.name} does not hold counts: X of cell {obs.index[cell]}, gene "
                    f"{var.index[gene]} is {values[bad]}; counts are finite, whole and not negative"
                )
    totals, n_genes, n_values = (np.sum(column, axis=0) for column in zip(*parts, strict=True))
    return CellSums(totals, n_genes, n_values, is_sorted)


def transpose(
    matrix: SourceMatrix,
    target: NDArray[np.int32],
    rows: NDArray[np.int64],
    sums: CellSums,
    indices: NDArray[Any],
    data: NDArray[np.int16],
    *,
    workers: Workers,
) -> int:
    """Second pass: put every kept cell's counts into `indices` and `data`, a cell after another.

    Parameters
    ----------
    matrix, target, sums
        As in the first pass, and what it found.
    rows
        The cells kept, in the order in which they are written.
    indices, data
        Written here; as long as the kept cells' `sums.n_values` together.
    workers
        What the cells are divided among.

    Returns
    -------
    n_saturated
        Counts above 32,767, stored as 32,767.
    """
    row_of_cell = np.full(matrix.n_cells, -1, np.int64)
    row_of_cell[rows] = np.arange(len(rows))
    cursor = np.concatenate([[0], np.cumsum(sums.n_values[rows])])[:-1]
    # Unsorted columns cannot be entered in their middle: then one part takes all cells.
    n_parts = workers.n if sums.is_sorted or not matrix.by_gene else 1
    bounds = np.linspace(0, matrix.n_cells, n_parts + 1).astype(int).tolist()
    tile = _TILE if sums.is_sorted else matrix.n_cells
    n_saturated = 0
    for first, pointers, minors, values in matrix.blocks():
        arrays = (pointers, minors, values, target, row_of_cell, cursor, indices, data)
        if matrix.by_gene:
            tiled_jobs = [(first, *cells, tile, *arrays) for cells in pairwise(bounds)]
            n_saturated += sum(workers.map(_fill_columns, tiled_jobs))
        else:
            jobs = [(first, *cells, *arrays) for cells in pairwise(bounds)]
            n_saturated += sum(workers.map(_fill_rows, jobs))
    return n_saturated


def is_ascending(target: NDArray[np.int32]) -> bool:
    """Whether a file's known genes stand in the order of the reference axis."""
    known = target[target >= 0]
    return bool((np.diff(known) > 0).all())


def _count(job: tuple[Any, ...]) -> tuple[int, bool]:
    bad, is_sorted = _count_block(*job)
    return int(bad), bool(is_sorted)


def _fill_columns(job: tuple[Any, ...]) -> int:
    return int(_fill_from_columns(*job))


def _fill_rows(job: tuple[Any, ...]) -> int:
    return int(_fill_from_rows(*job))


@numba.njit(cache=True, nogil=True)
def sort_rows(
    starts: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]
) -> tuple[NDArray[np.int64], int]:
    """Sort each row by gene, sum repeated genes, and close the gaps between rows.

    Returns each row's number of values, and how many of the sums saturated.
    """
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


@numba.njit(cache=True, nogil=True)
def _count_block(
    first: int,
    low: int,
    high: int,
    pointers: NDArray[Any],
    minors: NDArray[Any],
    values: NDArray[Any],
    by_gene: bool,
    target: NDArray[Any],
    totals: NDArray[Any],
    n_genes: NDArray[Any],
    n_values: NDArray[Any],
) -> tuple[int, bool]:
    """Sum majors low … high - 1; gives the first value that is no count, or -1, and sortedness."""
    is_sorted = True
    for j in range(low, high):
        for k in range(pointers[j], pointers[j + 1]):
            value = np.float64(values[k])
            if not (value >= 0 and value < 2.0**31 and value == np.floor(value)):
                return k, is_sorted
            is_sorted &= k == pointers[j] or minors[k] > minors[k - 1]
            if value == 0:
                continue
            cell = minors[k] if by_gene else first + j
            gene = first + j if by_gene else minors[k]
            totals[cell] += value
            n_genes[cell] += 1
            n_values[cell] += target[gene] >= 0
    return -1, is_sorted


@numba.njit(cache=True, nogil=True)
def _fill_from_columns(
    first: int,
    cell_low: int,
    cell_high: int,
    tile: int,
    pointers: NDArray[Any],
    minors: NDArray[Any],
    values: NDArray[Any],
    target: NDArray[Any],
    row_of_cell: NDArray[Any],
    cursor: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> int:
    """Put the counts of cells cell_low … cell_high - 1 at their cursors, a tile at a time."""
    n_saturated = 0
    place = pointers[:-1].copy()  # in each column, the first value of the cells to come
    if cell_low:
        for j in range(len(place)):
            place[j] += np.searchsorted(minors[pointers[j] : pointers[j + 1]], cell_low)
    for tile_low in range(cell_low, cell_high, tile):
        tile_high = min(tile_low + tile, cell_high)
        for j in range(len(place)):
            gene, k, end = target[first + j], place[j], pointers[j + 1]
            while k < end and minors[k] < tile_high:
                row = row_of_cell[minors[k]]
                if row >= 0 and gene >= 0 and values[k] != 0:
                    n_saturated += values[k] > MAX_COUNT
                    indices[cursor[row]] = gene
                    data[cursor[row]] = np.int16(min(values[k], MAX_COUNT))
                    cursor[row] += 1
                k += 1
            place[j] = k
    return n_saturated


@numba.njit(cache=True, nogil=True)
def _fill_from_rows(
    first: int,
    cell_low: int,
    cell_high: int,
    pointers: NDArray[Any],
    minors: NDArray[Any],
    values: NDArray[Any],
    target: NDArray[Any],
    row_of_cell: NDArray[Any],
    cursor: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> int:
    """Put the counts of those of a block's rows that are cells cell_low … cell_high - 1."""
    n_saturated = 0
    for j in range(max(cell_low - first, 0), min(cell_high - first, len(pointers) - 1)):
        row = row_of_cell[first + j]
        if row < 0:
            continue
        for k in range(pointers[j], pointers[j + 1]):
            gene = target[minors[k]]
            if gene >= 0 and values[k] != 0:
                n_saturated += values[k] > MAX_COUNT
                indices[cursor[row]] = gene
                data[cursor[row]] = np.int16(min(values[k], MAX_COUNT))
                cursor[row] += 1
    return n_saturated
