"""Cells that express few of the chosen genes: their empty places take other genes of theirs.

Off by default, because a column then no longer means one gene. Which gene a place holds instead is
kept sparsely in the shard: of cell i, `slots` and `genes` from `indptr[i]` to `indptr[i + 1]`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import map_dataset
from scdiff_data.errors import ManifestError
from scdiff_data.shards.formats import open_shard, stamp
from scdiff_data.store import Manifest


def write_replacements(
    file: h5py.File,
    n_each: NDArray[np.int64],
    slots: NDArray[np.int32],
    genes: NDArray[np.int32],
) -> None:
    """Write a shard's replacements: how many each cell has, and these by cell."""
    file["fallback/indptr"] = np.concatenate([[0], np.cumsum(n_each)]).astype(np.int64)
    file["fallback/slots"], file["fallback/genes"] = slots, genes


def count_replacements(manifest: Manifest) -> int:
    """Places of all shards that hold another gene than their column's.

    Raises
    ------
    ManifestError
        If a shard is damaged, or was replaced by another run.
    """
    key, n_places = stamp(manifest.shards_key, manifest.shard_format), 0
    for path in manifest.shards:
        with open_shard(path, key) as file:
            n_places += len(file["fallback/slots"])
    return n_places


class ReplacedGenes:
    """Which gene each place holds, from the shards.

    Parameters
    ----------
    paths
        The shards in their order.
    shard_size
        Cells in each but the last.
    key
        That all of them have.
    """

    def __init__(self, paths: Sequence[Path], shard_size: int, key: str) -> None:
        self._paths = paths
        self._shard_size = shard_size
        self._key = key
        self._maps: dict[int, tuple[NDArray[Any], ...]] = {}

    def gather(
        self,
        rows: NDArray[np.int64],
        gene_indices: NDArray[np.int64],
        read_shard: Callable[[int, Callable[[], Any]], Any],
    ) -> NDArray[np.int64]:
        """Places on the reference axis, int64 [n, width].

        Parameters
        ----------
        rows
            Global rows.
        gene_indices
            The columns' own.
        read_shard
            Gives what a function reads of a shard, which may have to be brought first.
        """
        gene_ids = np.tile(gene_indices, (len(rows), 1))
        shards, rows_there = np.divmod(rows, self._shard_size)
        for shard in np.unique(shards):
            maps = self._maps.get(int(shard))
            if maps is None:
                maps = read_shard(int(shard), partial(self._map, int(shard)))
                self._maps[int(shard)] = maps
            mine = shards == shard
            part = gene_ids[mine]
            _replace_genes(maps, rows_there[mine], part)
            gene_ids[mine] = part
        return gene_ids

    def _map(self, shard: int) -> tuple[NDArray[Any], ...]:
        with open_shard(self._paths[shard], self._key) as file:
            parts = (file[f"fallback/{name}"] for name in ("indptr", "slots", "genes"))
            n_cells, n_genes = len(file["total_counts"]), len(file["gene_ids"])
            maps = tuple(map(map_dataset, parts))
        if not _are_places(maps, n_cells, n_genes):
            what = "its fallback names places that are not there"
            raise ManifestError.damaged(self._paths[shard], what)
        return maps

    def drop(self, shards: Sequence[int]) -> None:
        """Drop the maps of some shards."""
        for shard in shards:
            self._maps.pop(shard, None)


def _are_places(maps: tuple[NDArray[Any], ...], n_cells: int, n_genes: int) -> bool:
    """Whether a shard's replacements are of its cells and its places, and name genes."""
    indptr, slots, genes = maps
    if not (indptr.shape == (n_cells + 1,) and indptr[0] == 0 and (np.diff(indptr) >= 0).all()):
        return False
    if not len(slots) == len(genes) == indptr[-1]:
        return False
    return not len(slots) or bool(slots.min() >= 0 and slots.max() < n_genes and genes.min() >= 0)


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
