"""Cells that express few of the chosen genes: their empty places take other genes of theirs.

Off by default, because a column then no longer means one gene. Which gene a place holds instead is
kept sparsely in the shard: of cell i, `slots` and `genes` from `indptr[i]` to `indptr[i + 1]`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import map_dataset


def write_replacements(
    file: h5py.File,
    n_each: NDArray[np.int64],
    slots: NDArray[np.int32],
    genes: NDArray[np.int32],
) -> None:
    """Write a shard's replacements: how many each cell has, and these by cell."""
    file["fallback/indptr"] = np.concatenate([[0], np.cumsum(n_each)]).astype(np.int64)
    file["fallback/slots"], file["fallback/genes"] = slots, genes


class ReplacedGenes:
    """Which gene each place holds, from the shards.

    Parameters
    ----------
    paths
        The shards in their order.
    shard_size
        Cells in each but the last.
    """

    def __init__(self, paths: Sequence[Path], shard_size: int) -> None:
        self._paths = paths
        self._shard_size = shard_size
        self._maps: dict[int, tuple[NDArray[Any], ...]] = {}

    def gather(self, rows: NDArray[np.int64], gene_indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places on the reference axis, int64 [n, width]; `gene_indices` are the columns' own."""
        gene_ids = np.tile(gene_indices, (len(rows), 1))
        shards, rows_there = np.divmod(rows, self._shard_size)
        for shard in np.unique(shards):
            if shard not in self._maps:
                with h5py.File(self._paths[shard]) as file:
                    parts = (file[f"fallback/{name}"] for name in ("indptr", "slots", "genes"))
                    self._maps[shard] = tuple(map(map_dataset, parts))
            mine = shards == shard
            part = gene_ids[mine]
            _replace_genes(self._maps[shard], rows_there[mine], part)
            gene_ids[mine] = part
        return gene_ids


def _replace_genes(
    stored: tuple[NDArray[Any], ...], rows: NDArray[np.int64], gene_ids: NDArray[np.int64]
) -> None:
    """Set the gene of every place that holds another one; `gene_ids` int64 [n, width], in place.

    Replacements beyond the width are left out.
    """
    indptr, slots, genes = stored
    starts, n_each = indptr[rows], indptr[rows + 1] - indptr[rows]
    cells = np.repeat(np.arange(len(rows)), n_each)
    firsts = np.repeat(np.cumsum(n_each) - n_each, n_each)
    places = np.repeat(starts, n_each) + np.arange(len(cells)) - firsts
    kept = slots[places] < gene_ids.shape[1]
    gene_ids[cells[kept], slots[places][kept]] = genes[places][kept]
