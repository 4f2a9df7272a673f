"""First pass over a source: what each cell adds up to, and with it which cells pass QC."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import iadd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import Workers, compiled
from scdiff_data.constants import MAX_COUNT
from scdiff_data.reading import Part, SourceMatrix


@dataclass(frozen=True)
class QualityFilter:
    """Which cells are kept, in the names and meanings of `scanpy.pp.filter_cells`.

    Parameters
    ----------
    min_genes, max_genes
        Fewest and most genes with a count above zero; None does not filter.
    min_counts
        Lowest total count; None does not filter.
    max_mito_pct
        Highest percentage of counts in mitochondrial genes; None does not filter.
    mito_genes
        Which genes these are: what their symbols begin with, or ids or symbols.
    min_pass_fraction, min_cells
        A file of whose cells a smaller fraction, or of which fewer, pass is left out.
    """

    min_genes: int | None = None
    min_counts: int | None = None
    max_genes: int | None = None
    max_mito_pct: float | None = None
    mito_genes: str | Sequence[str] = "MT-"
    min_pass_fraction: float = 0.0
    min_cells: int = 0

    @property
    def later_settings(self) -> list[Any]:
        """What older archives' fingerprints do not know; empty where it is as it was then."""
        mito = None if self.max_mito_pct is None else [self.max_mito_pct, self.mito_genes]
        found = [mito, self.min_pass_fraction, self.min_cells]
        return found if any(found) or mito is not None else []

    def __str__(self) -> str:
        texts = {
            f"at least {self.min_genes} genes": self.min_genes,
            f"at most {self.max_genes} genes": self.max_genes is not None,
            f"at least {self.min_counts} counts": self.min_counts,
            f"at most {self.max_mito_pct} % mitochondrial": self.max_mito_pct is not None,
            f"of files of which {self.min_pass_fraction:.0%} pass": self.min_pass_fraction,
            f"of files of which {self.min_cells} cells pass": self.min_cells,
        }
        return ", ".join(text for text, holds in texts.items() if holds) or "every cell"

    def explain_loss(self, n_passing: int, n_cells: int) -> str | None:
        """Why a file is left out, of which so many cells pass; None if it is not."""
        few = f"only {n_passing:,} of {n_cells:,} cells pass QC, fewer than"
        if n_passing < self.min_cells:
            return f"{few} min_cells={self.min_cells}"
        if n_passing < self.min_pass_fraction * n_cells:
            return f"{few} min_pass_fraction={self.min_pass_fraction}"
        return None

    def passes(
        self,
        n_genes: NDArray[np.int64],
        total_counts: NDArray[np.int64],
        mito_counts: NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        """Whether each cell is kept; `mito_counts` are needed for `max_mito_pct` alone."""
        keep = np.ones(len(n_genes), dtype=bool)
        if self.min_genes is not None:
            keep &= n_genes >= self.min_genes
        if self.min_counts is not None:
            keep &= total_counts >= self.min_counts
        if self.max_genes is not None:
            keep &= n_genes <= self.max_genes
        if self.max_mito_pct is not None and mito_counts is not None:
            keep &= 100 * mito_counts <= self.max_mito_pct * total_counts
        return keep


@dataclass(frozen=True)
class CellSums:
    """What the first pass finds out.

    Parameters
    ----------
    totals
        Every cell's sum, exact, int64 [n_cells].
    n_genes
        Genes of the file that each cell expresses, int64 [n_cells].
    n_values
        Genes of the reference axis among them, int64 [n_cells].
    n_saturated
        Counts of such genes above 32,767, int64 [n_cells].
    is_sorted
        Whether indices increase along every column (CSC) or row, as canonical matrices' do.
    lost
        Every cell's counts of genes that the reference axis lacks, and those above 32,767; int64
        [n_cells].
    n_rounded
        Values that were not quite whole, int64 [n_cells].
    mito_counts
        Every cell's counts in the genes that were marked, int64 [n_cells]; None if none were.
    """

    totals: NDArray[np.int64]
    n_genes: NDArray[np.int64]
    n_values: NDArray[np.int64]
    n_saturated: NDArray[np.int64]
    is_sorted: bool
    lost: NDArray[np.int64]
    n_rounded: NDArray[np.int64]
    mito_counts: NDArray[np.int64] | None = None


def count_cells(
    matrix: SourceMatrix,
    target: NDArray[np.int32],
    workers: Workers,
    is_marked: NDArray[np.bool_] | None = None,
) -> CellSums:
    """Sum every cell, while reading checks every value.

    Parameters
    ----------
    matrix
        The source.
    target
        Each gene's place on the reference axis, or -1.
    workers
        What each block is divided among.
    is_marked
        Genes whose counts are summed by themselves, bool [n_genes]; None sums none.

    Raises
    ------
    CountError
        If a value is not finite, whole and non-negative.
    """
    sums = [np.zeros((5, matrix.n_cells), np.int64) for _ in range(workers.n)]
    marked = np.zeros((workers.n, 0 if is_marked is None else matrix.n_cells), np.int64)
    rounded: dict[int, NDArray[np.int64]] = {}  # of each thread, which seldom meets any
    edges: list[tuple[int, bool, int, int]] = []  # of each part: its first and last index
    n_descents = [0] * workers.n
    add = _add_columns if matrix.by_gene else _add_rows

    def visit(part: Part) -> None:
        edges.append((part.start, part.is_rest, int(part.minors[0]), int(part.minors[-1])))
        own_sums = sums[part.worker]
        n_descents[part.worker] += _count_descents(part.pointers, part.minors)
        if is_marked is not None:
            arrays = (part.pointers, part.minors, part.values, is_marked)
            _add_marked(part.first, *arrays, matrix.by_gene, marked[part.worker])
        if add(part.first, part.pointers, part.minors, part.values, target, own_sums):
            large = np.flatnonzero(part.values > MAX_COUNT)
            cells, genes = part.locate(large)
            known = target[genes] >= 0
            beyond = part.values[large[known]].astype(np.int64) - MAX_COUNT
            np.add.at(own_sums[3], cells[known], beyond)
            np.add.at(own_sums[4], cells[known], 1)
        if part.rounded is not None:
            own = rounded.setdefault(part.worker, np.zeros(matrix.n_cells, np.int64))
            np.add.at(own, part.locate(part.rounded)[0], 1)

    for _ in matrix.blocks(visit):
        pass
    edges.sort()
    is_sorted = not any(n_descents) and not any(
        is_rest and index <= before for (_, _, _, before), (_, is_rest, index, _) in pairwise(edges)
    )
    totals, n_genes, n_unknown, lost, n_saturated = reduce(iadd, sums)
    del sums[1:]
    n_rounded = sum(rounded.values(), np.zeros(matrix.n_cells, np.int64))
    n_values = n_genes - n_unknown
    if not is_sorted:  # then a gene may be there twice in a cell
        for first, pointers, packed in matrix.blocks():
            _take_repeats(first, pointers, packed, matrix.by_gene, n_genes)
    of_marked = None if is_marked is None else marked.sum(axis=0)
    return CellSums(totals, n_genes, n_values, n_saturated, is_sorted, lost, n_rounded, of_marked)


# What the loops below see of a CSC matrix of 3 cells, where a part begins with column 7:
#
#     first = 7     pointers  0       2   3    column 7 has values 0 and 1, column 8 value 2
#                   cells     0   2 | 1        (of a CSR matrix: genes; rows for columns)
#                   values    4   1 | 9
#                   target [n_genes]: the file's gene 8 is unknown, say, so target[8] = -1
#
#     totals    [cell] += value:        4   9   1
#     n_genes   [cell] += value > 0:    1   1   1
#     n_unknown [cell] += target < 0:   0   1   0
#     lost      [cell] += its value:    0   9   0
#
# Each thread adds to arrays of its own, [n_cells] each, so that no two write to one place.
@compiled
def _add_columns(
    first: int,
    pointers: NDArray[Any],
    cells: NDArray[Any],
    values: NDArray[Any],
    target: NDArray[Any],
    sums: NDArray[Any],
) -> int:
    """Add a CSC matrix's part to its cells; gives how many counts int16 cannot hold."""
    n_large, totals, n_genes, n_unknown, lost = 0, sums[0], sums[1], sums[2], sums[3]
    for k in range(len(values)):
        cell, count = np.uint64(cells[k]), np.int64(values[k])
        totals[cell] += count
        n_genes[cell] += count > 0
        n_large += int(count > MAX_COUNT)
    for j in range(len(pointers) - 1):
        if target[first + j] < 0:
            for k in range(pointers[j], pointers[j + 1]):
                n_unknown[cells[k]] += values[k] > 0
                lost[cells[k]] += np.int64(values[k])
    return n_large


@compiled
def _add_rows(
    first: int,
    pointers: NDArray[Any],
    genes: NDArray[Any],
    values: NDArray[Any],
    target: NDArray[Any],
    sums: NDArray[Any],
) -> int:
    """Add a CSR matrix's part to its cells; gives how many counts int16 cannot hold."""
    n_large, totals, n_genes, n_unknown, lost = 0, sums[0], sums[1], sums[2], sums[3]
    for j in range(len(pointers) - 1):
        for k in range(pointers[j], pointers[j + 1]):
            count = np.int64(values[k])
            totals[first + j] += count
            n_genes[first + j] += count > 0
            n_unknown[first + j] += (count > 0) & (target[genes[k]] < 0)
            lost[first + j] += count * (target[genes[k]] < 0)
            n_large += int(count > MAX_COUNT)
    return n_large


@compiled
def _add_marked(
    first: int,
    pointers: NDArray[Any],
    minors: NDArray[Any],
    values: NDArray[Any],
    is_marked: NDArray[Any],
    by_gene: bool,  # noqa: FBT001
    sums: NDArray[Any],
) -> None:
    """Add the counts of marked genes to their cells."""
    for j in range(len(pointers) - 1):
        for k in range(pointers[j], pointers[j + 1]):
            cell, gene = (minors[k], first + j) if by_gene else (first + j, minors[k])
            if is_marked[gene]:
                sums[cell] += np.int64(values[k])


@compiled
def _take_repeats(
    first: int,
    pointers: NDArray[Any],
    packed: NDArray[Any],
    by_gene: bool,  # noqa: FBT001
    n_genes: NDArray[Any],
) -> None:
    """Take from `n_genes` what repeats a gene of the cell: scipy allows it, and adds the counts."""
    for j in range(len(pointers) - 1):
        values = np.sort(packed[pointers[j] : pointers[j + 1]])
        before, is_counted = np.int64(-1), False
        for k in range(len(values)):
            minor = np.int64(values[k] >> 16)
            if minor != before:
                before, is_counted = minor, False
            if values[k] & 0xFFFF:
                if is_counted:
                    n_genes[minor if by_gene else first + j] -= 1
                is_counted = True


@compiled
def _count_descents(pointers: NDArray[Any], minors: NDArray[Any]) -> int:
    """Count the places in a part at which a column's or row's indices do not increase."""
    n_descents = 0
    for k in range(1, len(minors)):
        n_descents += minors[k] <= minors[k - 1]
    for j in range(1, len(pointers) - 1):  # from one column to the next they may fall
        k = pointers[j]
        if 0 < k < pointers[j + 1]:
            n_descents -= minors[k] <= minors[k - 1]
    return n_descents
