"""Second pass over a source: every count to its cell's row, in bounded memory.

Source matrices are mostly compressed sparse *columns*: a gene's cells lie together, a cell's genes
do not. Here they are turned round, a tile of cells at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive.cell_totals import CellSums
from scdiff_data.archive.file import RowStore
from scdiff_data.base import Workers, compiled, prefetch
from scdiff_data.constants import MAX_COUNT
from scdiff_data.reading import Block, SourceMatrix

_TILE_VALUES = 1 << 19
"""Values of the rows filled at a time: 3 MB, which stay in the L2 and L3 caches."""

_AHEAD = 16
"""Columns whose next value is prefetched: their places follow no pattern the hardware knows."""


def transpose(
    matrix: SourceMatrix,
    target: NDArray[np.int32],
    rows: NDArray[np.int64],
    sums: CellSums,
    store: RowStore,
    workers: Workers,
) -> None:
    """Second pass: put every kept cell's counts into the store, a cell after another.

    Parameters
    ----------
    matrix, target, sums
        As in the first pass, and what it found.
    rows
        The cells kept, in the order in which they are written.
    store
        Takes as many values as the kept cells' `sums.n_values` together.
    workers
        What the cells are divided among.
    """
    is_kept, is_known = np.zeros(matrix.n_cells, bool), target >= 0
    is_kept[rows] = True
    takes_minor, takes_major = (is_kept, is_known) if matrix.by_gene else (is_known, is_kept)
    takes_all = bool(is_kept.all() and is_known.all() and sums.n_genes.sum() == matrix.n_values)
    starts = np.concatenate([[0], np.cumsum(np.where(is_kept, sums.n_values, 0))])
    cursor = np.zeros(matrix.n_cells, np.int64)  # of each cell, where its next value goes
    cursor[rows] = np.cumsum(sums.n_values[rows]) - sums.n_values[rows]
    # Where cells change places, or a cell's values lie in many blocks of columns, values are put
    # through a map of the file.
    is_in_order = bool((np.diff(rows) > 0).all())
    is_mapped = not is_in_order or (matrix.by_gene and not matrix.is_one_block)
    map_of_file = store.map() if is_mapped else None

    for block in matrix.blocks():
        ends = block.pointers[1:].copy()
        if not (takes_all and sums.is_sorted):
            takes = takes_major[block.first : block.first + len(ends)]
            arrays = (block.pointers, ends, block.packed, takes, takes_minor, not sums.is_sorted)
            ranges = _equal_runs(block.pointers, workers.n)
            workers.map(lambda job: _prune(*job), [(*bounds, *arrays) for bounds in ranges])
        fill = _Filling(matrix.by_gene, block, ends, target, starts, cursor, store, map_of_file)
        cells = (0, matrix.n_cells) if matrix.by_gene else (block.first, block.first + len(ends))
        workers.map(fill, workers.divide(_tiles(starts, *cells)))


def is_ascending(target: NDArray[np.int32]) -> bool:
    """Whether a file's known genes stand in the order of the reference axis."""
    known = target[target >= 0]
    return bool((np.diff(known) > 0).all())


@dataclass(frozen=True)
class _Filling:
    """Puts one block's counts at their cells, for a run of tiles."""

    by_gene: bool
    block: Block
    ends: NDArray[np.int64]
    target: NDArray[np.int32]
    starts: NDArray[np.int64]
    cursor: NDArray[np.int64]
    store: RowStore
    map_of_file: tuple[NDArray[Any], NDArray[np.int16]] | None

    def __call__(self, tiles: Sequence[tuple[int, int]]) -> None:
        if not tiles:
            return
        first, pointers, packed = self.block
        longest = max(int(self.starts[high] - self.starts[low]) for low, high in tiles)
        indices, data = self.map_of_file or (
            np.empty(longest, self.store.index_type),
            np.empty(longest, np.int16),
        )
        if self.by_gene:
            place = _find_cell(pointers, self.ends, packed, tiles[0][0]).view(np.uint64)
            ends, cursor = self.ends.view(np.uint64), self.cursor.view(np.uint64)
        for low, high in tiles:
            base = 0 if self.map_of_file else int(self.starts[low])
            if self.by_gene:
                columns = (np.uint64(high << 16), place, ends, packed, self.target[first:])
                _fill_columns(*columns, cursor, np.uint64(base), indices, data)
            else:
                rows = (low, high, first, pointers, self.ends, packed, self.target)
                _fill_rows(*rows, self.cursor, base, indices, data)
            if not self.map_of_file:
                n = int(self.starts[high]) - base
                self.store.write(base, indices[:n], data[:n])


def _equal_runs(pointers: NDArray[np.int64], n: int) -> list[tuple[int, int]]:
    """Ranges of columns or rows that hold about the same number of values."""
    bounds = np.searchsorted(pointers, np.linspace(0, pointers[-1], n + 1)[1:-1]).tolist()
    return list(pairwise([0, *bounds, len(pointers) - 1]))


def _tiles(starts: NDArray[np.int64], first: int, end: int) -> list[tuple[int, int]]:
    """Ranges of cells, first … end - 1, of bounded size."""
    values = np.arange(starts[first] + _TILE_VALUES, starts[end], _TILE_VALUES)
    bounds = [first, *np.searchsorted(starts, values).tolist(), end]
    return list(pairwise(dict.fromkeys(bounds)))


@compiled
def sort_rows(
    starts: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Sort each row by gene, sum repeated genes, and close the gaps between rows.

    Returns each row's number of values, what its sums lost, and how many of them saturated.
    """
    n_merged, lost = np.zeros(len(starts) - 1, np.int64), np.zeros(len(starts) - 1, np.int64)
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
                lost[row] += max(total - MAX_COUNT, 0)
            else:
                indices[at], data[at] = genes[k], counts[k]
                n_merged[row] += 1
                at += 1
    return n_merged, lost, n_saturated


# How a block of columns becomes rows, with 2 genes, 4 cells and tiles of 2 cells:
#
#     pointers   0           3       5      gene 0 has the values 0 … 2, gene 1 the values 3 and 4
#     packed     0|5 1|2 3|1 | 1|7 2|4      `cell | count`, cells ascending in each gene
#     ends       3       5                  where each gene's values end once `_prune` dropped some
#     genes      6       9                  the genes' places on the reference axis (`target`)
#
#     starts     0   1   3   4   5          where each cell's row starts among all values
#     cursor     0   1   3   4              where each cell's next value goes, block after block
#
#     tile of cells 0 and 1, limit = 2 << 16       tile of cells 2 and 3, limit = 4 << 16
#         place    gene 0: 0 → 2, gene 1: 3 → 4        place    gene 0: 2 → 3, gene 1: 4 → 5
#         indices  6 | 6 9                             indices  9 | 6
#         data     5 | 2 7                             data     4 | 1
#
# A plain transpose jumps to another row with every value, and that row has left the caches by then.
# A tile's rows fit into them: each gene is read on from `place` as long as its cells are below the
# limit, a little of every gene at a time. The hardware cannot guess where a gene's next values are,
# hence the prefetch. Genes come in their order, so a row's genes ascend if the file's do; else
# `sort_rows` sorts them. Each thread fills tiles of its own, so no two write to the same row.


@compiled
def _prune(
    low: int,
    high: int,
    pointers: NDArray[Any],
    ends: NDArray[Any],
    packed: NDArray[Any],
    takes_major: NDArray[Any],
    takes_minor: NDArray[Any],
    must_sort: bool,
) -> None:
    """Drop in place what is not taken, and zeros: each column or row keeps its start."""
    for j in range(low, high):
        at = pointers[j]
        if takes_major[j]:
            for k in range(pointers[j], pointers[j + 1]):
                packed[at] = packed[k]
                at += takes_minor[packed[k] >> 16] & (packed[k] & 0xFFFF != 0)
        ends[j] = at
        if must_sort:
            packed[pointers[j] : at].sort()


@compiled
def _find_cell(
    pointers: NDArray[Any], ends: NDArray[Any], packed: NDArray[Any], cell: int
) -> NDArray[np.int64]:
    """In each column, the place of the first value of `cell` or a later one."""
    place = pointers[:-1].copy()
    if cell:
        for j in range(len(place)):
            low, high = place[j], ends[j]
            while low < high:
                middle = (low + high) // 2
                if packed[middle] >> 16 < cell:
                    low = middle + 1
                else:
                    high = middle
            place[j] = low
    return place


@compiled
def _fill_columns(
    limit: np.uint64,
    place: NDArray[Any],
    ends: NDArray[Any],
    packed: NDArray[Any],
    genes: NDArray[Any],
    cursor: NDArray[Any],
    base: np.uint64,
    indices: NDArray[Any],
    data: NDArray[Any],
) -> None:
    """Put the counts packed below the limit at their cells' cursors; `place` moves on."""
    address, one = packed.ctypes.data, np.uint64(1)
    for j in range(len(place)):
        if j + _AHEAD < len(place):
            prefetch(address + place[j + _AHEAD] * packed.itemsize)
        k = place[j]
        end = ends[j]
        gene = genes[j]
        while k < end and packed[k] < limit:
            cell = packed[k] >> np.uint64(16)
            at = cursor[cell]
            indices[at - base] = gene
            data[at - base] = packed[k] & np.uint64(0xFFFF)
            cursor[cell] = at + one
            k += one
        place[j] = k


@compiled
def _fill_rows(
    low: int,
    high: int,
    first: int,
    pointers: NDArray[Any],
    ends: NDArray[Any],
    packed: NDArray[Any],
    genes: NDArray[Any],
    cursor: NDArray[Any],
    base: int,
    indices: NDArray[Any],
    data: NDArray[Any],
) -> None:
    """Put the counts of the rows low … high - 1 at their cursors."""
    for cell in range(low, high):
        at = cursor[cell] - base
        for k in range(pointers[cell - first], ends[cell - first]):
            indices[at] = genes[packed[k] >> 16]
            data[at] = packed[k] & 0xFFFF
            at += 1
