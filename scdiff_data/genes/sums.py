"""What each gene adds up to over a group of cells: sums that merge."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add, iadd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive import CsrRows, map_matrix, read_in_order
from scdiff_data.base import Workers, add_eight, compiled
from scdiff_data.constants import SPLITS

TARGET_SUM = 10_000.0
"""Counts a cell that scaled sums are taken at, as in `scanpy.pp.normalize_total`."""

_LANE_ROWS = 4096
"""Fewest rows of a lane, a group of rows that is summed by itself."""

_MOST_LANES = 8
"""Lanes of an archive. Their number follows from its length alone, so that float sums do not depend
on `n_threads`."""

_TABLE = 32
"""Counts below it, nearly all, add what is worked out once a cell and kept in a table."""

_BLOCK_CELLS = 64
"""Cells summed together: their values stay in the L2 cache from tile to tile."""

_TILE_GENES = 2048
"""Genes summed together: their sums, 128 kB, stay in the L2 cache from cell to cell."""


@dataclass(frozen=True)
class GeneStatistics:
    """Sums over a group of cells, one of each kind a gene.

    Parameters
    ----------
    n_cells
        Cells.
    n_expressing
        Cells with a count above zero, int64 [n_genes].
    total, total_squared
        Sums of counts x and of x², exact, int64 [n_genes].
    scaled, scaled_squared
        The same of counts scaled to 10,000 a cell, float64 [n_genes]. Whatever the grouping, the
        relative error stays below 1.2e-16 times the number of cells added.
    log, log_squared
        The same of log(1 + scaled count), float64 [n_genes].
    """

    n_cells: int
    n_expressing: NDArray[np.int64]
    total: NDArray[np.int64]
    total_squared: NDArray[np.int64]
    scaled: NDArray[np.float64]
    scaled_squared: NDArray[np.float64]
    log: NDArray[np.float64]
    log_squared: NDArray[np.float64]

    def __add__(self, other: "GeneStatistics") -> "GeneStatistics":
        """Sums over the cells of both."""
        return GeneStatistics(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        )

    @property
    def mean_variance(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and unbiased variance of the raw counts; exact but for the last rounding."""
        n = self.n_cells
        total = self.total
        squared = self.total_squared
        # Σx² n ≥ (Σx)², so where the first fits into int64 the second does, too.
        wide = squared.astype(np.float64) * n > 2.0**62
        above = (n * squared - total * total).astype(np.float64)
        totals, squares = total[wide].astype(object), squared[wide].astype(object)
        above[wide] = n * squares - totals * totals  # Python's whole numbers of any length
        return total / max(n, 1), above / max(n * (n - 1), 1)

    @property
    def scaled_mean_variance(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same of counts scaled to 10,000 a cell."""
        return _mean_variance(self.n_cells, self.scaled, self.scaled_squared)

    @property
    def log_mean_variance(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same of log(1 + scaled count)."""
        return _mean_variance(self.n_cells, self.log, self.log_squared)


BySplit = Mapping[str, GeneStatistics]
"""The statistics of `train`, `val` and `test`, as far as there are cells."""


def sum_genes(path: Path, split_of_row: NDArray[np.int8], workers: Workers) -> BySplit:
    """Sum over an archive's cells; `split_of_row` is 0 train, 1 val, 2 test, -1 not drawn.

    The result is the same to the last bit for any number of workers.
    """
    cells = map_matrix(path)
    n_lanes = min(max(len(split_of_row) // _LANE_ROWS, 1), _MOST_LANES)
    n_each = np.bincount(split_of_row[split_of_row >= 0], minlength=len(SPLITS)).tolist()
    splits = [(split, n) for split, n in zip(SPLITS, n_each, strict=True) if n]
    lanes_of_split = [
        np.array_split(np.flatnonzero(split_of_row == SPLITS.index(split)), n_lanes)
        for split, _ in splits
    ]

    def sum_lane(lane: int) -> list[NDArray[np.float64]]:
        """Sums over the lane's rows of each split, read once and from front to back."""
        lanes = [lanes[lane] for lanes in lanes_of_split]
        sums = [_aligned_zeros(cells.n_genes, 8) for _ in lanes]
        adds = _aligned_zeros(_BLOCK_CELLS, _TABLE + 1, 8)
        for rows_of_split in _read_rows(cells, lanes):
            for rows, own in zip(rows_of_split, sums, strict=True):
                _sum_rows(cells.indptr, cells.indices, cells.data, rows, own, adds)
        return sums

    by_split = {}
    sums_of_lane = workers.map(sum_lane, range(n_lanes))
    for (split, n_cells), lanes in zip(splits, zip(*sums_of_lane, strict=True), strict=True):
        sums = reduce(iadd, lanes)
        whole = (column.astype(np.int64) for column in sums.T[:3])
        by_split[split] = GeneStatistics(n_cells, *whole, *(c.copy() for c in sums.T[3:7]))
    return by_split


def _read_rows(
    cells: CsrRows, groups: Sequence[NDArray[np.int64]]
) -> Iterator[list[NDArray[np.int64]]]:
    """The rows of some groups, ascending in each, as far as each part of the archive has them."""
    some = [rows for rows in groups if len(rows)]
    if some:
        first, last = min(int(rows[0]) for rows in some), max(int(rows[-1]) for rows in some)
        for start, stop in read_in_order(cells, first, last + 1):
            bounds = [np.searchsorted(rows, [start, stop]) for rows in groups]
            yield [rows[a:b] for rows, (a, b) in zip(groups, bounds, strict=True)]


def count_above(
    path: Path, rows: NDArray[np.int64], thresholds: NDArray[np.int16], workers: Workers
) -> NDArray[np.int64]:
    """Of some rows' counts that exceed their gene's threshold: number, Σx and Σx²; [3, n_genes].

    The second pass of `seurat_v3`; exact.
    """
    cells = map_matrix(path)

    def count(lane: NDArray[np.int64]) -> NDArray[np.int64]:
        sums = np.zeros((3, cells.n_genes), np.int64)
        for (part,) in _read_rows(cells, [lane]):
            _add_above(cells.indptr, cells.indices, cells.data, part, thresholds, sums)
        return sums

    return reduce(add, workers.map(count, np.array_split(rows, workers.n)))


def _aligned_zeros(*shape: int) -> NDArray[np.float64]:
    """Zeros that start at a cache line: eight of them then share one."""
    block = np.zeros(math.prod(shape) + 7)
    start = -block.ctypes.data // 8 % 8
    return block[start : start + math.prod(shape)].reshape(shape)


def _mean_variance(
    n: int, total: NDArray[np.float64], squared: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = total / max(n, 1)
    return mean, np.maximum(squared - total * mean, 0) / max(n - 1, 1)


# What `_sum_rows` adds up, with x a count and y = 10,000 x / (its cell's counts):
#
#     sums [gene, 8]     1   x   x²   y   y²   log(1 + y)   log²(1 + y)   nothing
#
#     adds [cell of the block, count, 8]   the same eight numbers for every count below _TABLE that
#                                          the cell has, and in its last row for one larger count
#
#     at, end [cell of the block]          the cell's next value, and where its values end
#
# A gene's eight sums share one cache line, and one vector addition serves them all. A cell has few
# different counts, so each logarithm is taken once a cell, not once a value. Blocks of cells meet
# tiles of genes: genes ascend in a row, so each cell goes on at `at` where the last tile left it.
# Whole numbers are exact in float64: eight million saturated counts of a gene come to 2^53.
@compiled
def _sum_rows(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    sums: NDArray[Any],
    adds: NDArray[Any],
) -> None:
    """Add cells to the sums [n_genes, 8]; `adds` [_BLOCK_CELLS, _TABLE + 1, 8] is scratch."""
    at, end = np.empty(_BLOCK_CELLS, np.uint64), np.empty(_BLOCK_CELLS, np.uint64)
    scale = np.empty(_BLOCK_CELLS)
    line = np.uint64(64)
    one = np.uint64(1)
    table = np.uint64(_TABLE)
    to, from_ = np.uint64(sums.ctypes.data), np.uint64(adds.ctypes.data)
    for first in range(0, len(rows), _BLOCK_CELLS):
        n_cells = min(_BLOCK_CELLS, len(rows) - first)
        for i in range(n_cells):
            at[i], end[i] = indptr[rows[first + i]], indptr[rows[first + i] + 1]
            depth, n_known = 0, 1
            for k in range(at[i], end[i]):
                depth += data[k]
            for k in range(at[i], end[i]):
                n_known = max(n_known, data[k] + 1)
            scale[i] = TARGET_SUM / max(depth, 1)
            for known in range(1, min(n_known, _TABLE)):
                _work_out(known, scale[i], adds[i, known])
        for tile in range(0, len(sums), _TILE_GENES):
            tile_end = np.uint64(tile + _TILE_GENES)
            for i in range(n_cells):
                k, mine = at[i], from_ + np.uint64(i) * np.uint64(64 * (_TABLE + 1))
                while k < end[i]:
                    gene, count = np.uint64(indices[k]), np.uint64(data[k])
                    if gene >= tile_end:
                        break
                    if count >= table:
                        _work_out(count, scale[i], adds[i, _TABLE])
                        count = table
                    add_eight(to + line * gene, mine + line * count)
                    k += one
                at[i] = k


@compiled
def _work_out(count: int, scale: float, adds: NDArray[Any]) -> None:
    y = count * scale
    above = 1.0 + y
    # Kahan's log(1 + y), good to the last bits, at a third of log1p's time.
    logarithm = y if above == 1.0 else np.log(above) * (y / (above - 1.0))
    adds[0] = 1.0
    adds[1] = count
    adds[2] = count * count
    adds[3] = y
    adds[4] = y * y
    adds[5] = logarithm
    adds[6] = logarithm * logarithm


@compiled
def _add_above(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    thresholds: NDArray[Any],
    sums: NDArray[Any],
) -> None:
    for row in rows:
        for k in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            gene = np.uint64(indices[k])
            if data[k] > thresholds[gene]:
                count = np.int64(data[k])
                sums[0, gene] += 1
                sums[1, gene] += count
                sums[2, gene] += count * count
