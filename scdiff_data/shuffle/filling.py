"""Cells that express few of the chosen genes: their empty places take other genes of theirs.

Off by default, because a column then no longer means one gene.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive import CsrRows
from scdiff_data.base import compiled


class Replacements(NamedTuple):
    """Places that hold another gene: cells, their columns, and genes' places on the axis; [n]."""

    cells: NDArray[np.int64]
    slots: NDArray[np.int32]
    genes: NDArray[np.int32]


def fill_empty(
    archive: CsrRows,
    rows: NDArray[np.int64],
    cells: NDArray[np.int64],
    slot_of_gene: NDArray[np.signedinteger[Any]],
    expression: NDArray[np.int16],
    *,
    min_genes: int,
) -> Replacements:
    """Fill the empty places of cells that express fewer than `min_genes` of the chosen genes.

    The first empty place takes the most expressed of the cell's other genes, and so on; of equally
    expressed ones the first on the axis.

    Parameters
    ----------
    archive
        An archive's cells.
    rows, cells
        Rows of the archive, and the rows of `expression` that hold them.
    slot_of_gene
        Each gene's column, or -1; int16 or int32 [n_reference].
    expression
        Counts of the chosen genes, int16 [n_cells, n_genes]; changed in place.
    min_genes
        Cells that express at least so many stay as they are.
    """
    room = np.zeros(len(rows) + 1, np.int64)
    arrays = archive.indptr, archive.indices, archive.data
    _count_room(*arrays, rows, cells, slot_of_gene, expression, min_genes, room)
    starts = np.cumsum(room)
    slots, genes = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    _fill_slots(*arrays, rows, cells, slot_of_gene, expression, starts, slots, genes)
    return Replacements(np.repeat(cells, np.diff(starts)), slots, genes)


# What the loops below see, with 3 chosen genes, and a cell that expresses one of them:
#
#     slot_of_gene    0  -1   1  -1  -1   2      [n_reference]
#     expression[0]   0   5   0                  the chosen genes' counts: slots 0 and 2 are empty
#     the cell's row  genes 1, 2, 3, 4           counts 7, 5, 8, 7
#
#     room            0   2                      two slots can be filled, with genes 3 and 1
#     starts          0   2                      the cumulative sum of `room`
#     slots, genes    0 ← 3,  2 ← 1              most expressed first, then in the axis' order
#     expression[0]   8   5   7
@compiled
def _count_room(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    cells: NDArray[Any],
    slot_of_gene: NDArray[Any],
    expression: NDArray[Any],
    min_genes: int,
    room: NDArray[Any],
) -> None:
    """How many places of each cell are filled: room[0] stays 0."""
    n_slots = expression.shape[1]
    for i in range(len(rows)):
        n_expressed, n_other = 0, 0
        for k in range(indptr[rows[i]], indptr[rows[i] + 1]):
            if data[k] > 0:
                if slot_of_gene[indices[k]] < 0:
                    n_other += 1
                else:
                    n_expressed += 1
        if n_expressed < min_genes:
            room[i + 1] = min(n_slots - n_expressed, n_other)


@compiled
def _fill_slots(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[Any],
    cells: NDArray[Any],
    slot_of_gene: NDArray[Any],
    expression: NDArray[Any],
    starts: NDArray[Any],
    slots: NDArray[Any],
    genes: NDArray[Any],
) -> None:
    for i in range(len(rows)):
        at, end = starts[i], starts[i + 1]
        if at == end:
            continue
        low, high = indptr[rows[i]], indptr[rows[i] + 1]
        # Negative counts first, then the genes' order: a stable sort puts the most expressed first.
        order = np.argsort(-data[low:high].astype(np.int64), kind="mergesort")
        slot = 0
        for k in order:
            if slot_of_gene[indices[low + k]] >= 0:
                continue
            while expression[cells[i], slot] != 0:
                slot += 1
            expression[cells[i], slot] = data[low + k]
            slots[at], genes[at] = slot, indices[low + k]
            at += 1
            if at == end:
                break
