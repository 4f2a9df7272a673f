"""Some cells of a prepared directory, and where they lie in their principal components.

However many cells there are, few are looked at: rows of the shards are shuffled within each split,
so the first rows of a split are a random draw, and are read in one go.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.constants import SPLITS
from scdiff_data.shards import ShardRows
from scdiff_data.store import Manifest

MOST_CELLS = 3_000
"""Cells that are looked at."""

MOST_GENES = 2_000
"""Genes, the best ones, that components are made from."""

_N_COMPONENTS = 10
"""Components that cells are compared in."""

_FEWEST = 10
"""Cells and genes that components need."""

_TARGET_SUM = 10_000.0
"""Counts a cell that counts are scaled to, before their logarithm is taken."""

Texts = NDArray[np.str_]
"""A value of each cell; the empty one is missing."""


@dataclass(frozen=True)
class Grouping:
    """How far a column of texts, or the experiments, divide the cells.

    Parameters
    ----------
    n_values
        Distinct values among the cells.
    explained
        Share of the components' variance that lies between the values, adjusted for their number.
    alike, alike_by_chance
        How often a cell's nearest other has the same value, and how often two cells have.
    """

    n_values: int
    explained: float
    alike: float
    alike_by_chance: float


@dataclass(frozen=True)
class SampledCells:
    """Some cells.

    Parameters
    ----------
    total_counts
        Of each cell, int64 [c].
    texts
        `experiment_id`, `split` and the labels of texts; [c] each.
    places_ck
        Places in the principal components, float32 [c, k]; None of too few cells or genes.
    explained_k
        Share of the variance that each component has.
    n_genes
        Genes that the components are made from.
    """

    total_counts: NDArray[np.int64]
    texts: Mapping[str, Texts]
    places_ck: NDArray[np.float32] | None
    explained_k: NDArray[np.float64]
    n_genes: int

    def group_by(self, name: str) -> Grouping | None:
        """How far a column divides the cells; None if fewer than two values are there twice."""
        if self.places_ck is None:
            return None
        texts = self.texts[name]
        places_ck, texts = self.places_ck[texts != ""], texts[texts != ""]
        names, codes, n_of = np.unique(texts, return_inverse=True, return_counts=True)
        if (n_of > 1).sum() < 2 or len(texts) <= len(names):
            return None
        centred_ck = places_ck.astype(np.float64) - places_ck.mean(0)
        sums_vk = np.zeros((len(names), centred_ck.shape[1]))
        np.add.at(sums_vk, codes, centred_ck)
        between = float((sums_vk**2 / n_of[:, None]).sum())
        total = float((centred_ck**2).sum())
        n, n_values = len(texts), len(names)
        left = (1 - between / total) * (n - 1) / (n - n_values) if total else 1.0
        nearest = _find_nearest(places_ck)
        return Grouping(
            n_values=n_values,
            explained=max(1 - left, 0.0),
            alike=float((codes[nearest] == codes).mean()),
            alike_by_chance=float((n_of * (n_of - 1)).sum() / (n * (n - 1))),
        )


def sample_cells(manifest: Manifest) -> SampledCells:
    """Look at some cells of every split, in proportion to its cells.

    Raises
    ------
    ManifestError
        If a shard is damaged.
    """
    shards = ShardRows(manifest)
    rows, split = _choose_rows(manifest)
    width = min(len(shards.gene_ids), MOST_GENES)
    names = ("total_counts", "experiment_id", *shards.categories)
    counts_cg, totals, experiments, *codes = shards.gather(
        ("expression", *names), rows, width=width
    )
    if shards.has_fallback:  # a place that another gene took says nothing of its own
        own = shards.gather_gene_ids(rows, width) == shards.gene_indices[:width]
        counts_cg = np.where(own, counts_cg, 0)
    texts = {"experiment_id": np.char.decode(experiments, "utf-8"), "split": split}
    for name, code in zip(shards.categories, codes, strict=True):
        texts[name] = np.array([*shards.categories[name], ""])[code]  # -1, the last, is missing
    totals = totals.astype(np.int64)
    places_ck, explained_k = _find_components(counts_cg, totals)
    return SampledCells(totals, texts, places_ck, explained_k, width)


def _choose_rows(manifest: Manifest) -> tuple[NDArray[np.int64], Texts]:
    """Rows of the shards, and the split of each."""
    n_cells = sum(manifest.n_cells.values())
    share = min(1.0, MOST_CELLS / max(n_cells, 1))
    rows, split, first = [], [], 0
    for name in SPLITS:
        n = manifest.n_cells[name]
        n_taken = math.ceil(n * share)
        rows.append(np.arange(first, first + n_taken))
        split += [name] * n_taken
        first += n
    return np.concatenate(rows), np.array(split, dtype=np.str_)


def _find_components(
    counts_cg: NDArray[np.int16], totals: NDArray[np.int64]
) -> tuple[NDArray[np.float32] | None, NDArray[np.float64]]:
    """Places in the principal components of log(1 + scaled count), and their variances' shares."""
    from sklearn.decomposition import PCA

    if min(counts_cg.shape) < _FEWEST:
        return None, np.zeros(0)
    scaled_cg = counts_cg.astype(np.float32)
    scaled_cg *= (_TARGET_SUM / np.maximum(totals, 1))[:, None].astype(np.float32)
    np.log1p(scaled_cg, out=scaled_cg)
    if not scaled_cg.var(0).any():
        return None, np.zeros(0)
    n = min(_N_COMPONENTS, *(size - 1 for size in scaled_cg.shape))
    pca = PCA(n, svd_solver="randomized", random_state=0)
    places_ck: Any = pca.fit_transform(scaled_cg)
    return places_ck.astype(np.float32), pca.explained_variance_ratio_.astype(np.float64)


def _find_nearest(places_ck: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each cell the nearest other."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=1).fit(places_ck).kneighbors(return_distance=False)
    nearest: NDArray[np.int64] = found[:, 0]
    return nearest
