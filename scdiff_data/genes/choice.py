"""The genes that training sees: highly variable ones (HVGs), chosen among the training cells alone.

`hvg_info.json` names them, best first, and says how they were chosen.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.genes.named import NamedGenes
from scdiff_data.genes.ranking import FLAVORS, CountAbove, rank_genes
from scdiff_data.genes.sums import GeneStatistics
from scdiff_data.reading import GeneAxis

logger = logging.getLogger(__name__)

_N_TOP = 10
"""Genes that `hvg_info.json` describes."""


@dataclass(frozen=True, kw_only=True)
class GeneSettings:
    """How genes are chosen; the arguments are described in `Recipe`.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    n_hvgs: int | None
    min_cells_pct: float
    flavor: str
    normalize: bool
    span: float
    batch_key: str | None
    genes: NamedGenes | None

    def __post_init__(self) -> None:
        if not 0 <= self.min_cells_pct <= 100:
            raise ValueError(f"min_cells_pct is a percentage, 0 to 100, got {self.min_cells_pct}")
        if self.flavor not in FLAVORS:
            raise ValueError(f"flavor must be one of {', '.join(FLAVORS)}, got {self.flavor!r}")
        if not 0 < self.span <= 1:
            raise ValueError(f"span is a fraction above 0, at most 1, got {self.span}")
        if self.normalize and self.flavor != "dispersion":
            raise ValueError(
                f"normalize=true goes with flavor=dispersion, got {self.flavor}: seurat and "
                "cell_ranger always scale counts, seurat_v3 never"
            )
        if self.flavor == "seurat_v3" and find_spec("skmisc") is None:
            raise ValueError(
                "flavor=seurat_v3 fits a curve with scikit-misc: pip install "
                "'scdiff_data[seurat_v3]', or choose another flavor"
            )


@dataclass(frozen=True)
class GeneChoice:
    """The genes kept, best first, and what the choice was made from.

    Parameters
    ----------
    how
        A flavor; `given`, if the user named the genes; `all`, if none were chosen.
    indices
        Places on the reference axis, int64 [n_kept]; -1 for a given gene that the data lack.
    ids, symbols
        Names of the genes kept.
    mean, dispersion
        Mean and variance/mean of every reference gene over the training cells, of raw counts or, if
        the choice normalises them, of scaled ones; float64 [n_genes]. Without a count, 0.
    score
        What genes were ranked by, of every reference gene, NaN where there is none; float64.
    cell_fraction
        Fraction of training cells that express each gene, float64 [n_genes].
    is_candidate
        Whether enough training cells express each gene, bool [n_genes].
    n_cells
        Training cells.
    is_scaled
        Whether mean and dispersion are of scaled counts.
    """

    how: str
    indices: NDArray[np.int64]
    ids: Sequence[str]
    symbols: Sequence[str]
    mean: NDArray[np.float64]
    dispersion: NDArray[np.float64]
    score: NDArray[np.float64]
    cell_fraction: NDArray[np.float64]
    is_candidate: NDArray[np.bool_]
    n_cells: int
    is_scaled: bool

    @property
    def n_absent(self) -> int:
        """Given genes that the data lack."""
        return int((self.indices < 0).sum())

    @property
    def score_name(self) -> str:
        """What the score is."""
        return FLAVORS[self.how].ranks_by if self.how in FLAVORS else "dispersion"

    def to_dict(self, axis: GeneAxis, settings: GeneSettings) -> dict[str, Any]:
        """The content of `hvg_info.json`."""
        known = self.indices[self.indices >= 0]
        kept = self.dispersion[known]
        return {
            "hvg_indices": self.indices.tolist(),
            "hvg_names": list(self.ids),
            "hvg_symbols": list(self.symbols),
            "gene_to_hvg_idx": {gene: place for place, gene in enumerate(self.ids)},
            "flavor": self.how,
            "settings": {
                "n_hvgs": settings.n_hvgs,
                "min_cells_pct": settings.min_cells_pct,
                "normalize": settings.normalize,
                "batch_key": settings.batch_key,
            },
            "statistics": {
                "n_cells": self.n_cells,
                "n_genes": len(axis),
                "n_genes_passing": int(self.is_candidate.sum()),
                "n_genes_absent": self.n_absent,
                "dispersion": {
                    "min": float(kept.min()),
                    "median": float(np.median(kept)),
                    "mean": float(kept.mean()),
                    "max": float(kept.max()),
                },
                "score": self.score_name,
                "top": [self._describe(int(gene), axis) for gene in self.best(_N_TOP)],
            },
        }

    @property
    def shown_score(self) -> NDArray[np.float64]:
        """What genes were ranked by, or their dispersion if they were not, float64 [n_genes]."""
        return self.score if self.how in FLAVORS else self.dispersion

    def best(self, n: int) -> NDArray[np.int64]:
        """Places of the best genes kept: as ranked, or by dispersion if they were not."""
        known = self.indices[self.indices >= 0]
        if self.how in FLAVORS:
            return known[:n]
        return known[np.argsort(-self.dispersion[known], kind="stable")[:n]]

    def _describe(self, gene: int, axis: GeneAxis) -> dict[str, Any]:
        score = float(self.score[gene])
        return {
            "gene": axis.ids[gene],
            "symbol": axis.symbols[gene],
            "dispersion": float(self.dispersion[gene]),
            "score": score if np.isfinite(score) else None,
            "percent_of_cells": float(100 * self.cell_fraction[gene]),
        }


def choose_genes(
    settings: GeneSettings,
    axis: GeneAxis,
    batches: Mapping[str, GeneStatistics],
    count_above: CountAbove,
) -> GeneChoice:
    """Choose the genes that training sees, or take those that the settings name.

    Parameters
    ----------
    settings
        `genes`, or `n_hvgs`, `min_cells_pct`, `flavor`, `normalize` and `batch_key`. A gene is a
        candidate if at least `min_cells_pct` percent of the training cells (0.1 = 0.1 %) express
        it.
    axis
        The reference genes.
    batches
        Statistics of the training cells of each batch, or of all under the name "".
    count_above
        What reads training cells again for `seurat_v3`.

    Raises
    ------
    ValueError
        If fewer genes than `n_hvgs` are candidates, or the data do not allow the flavor.
    """
    whole = reduce(add, batches.values())
    mean, variance = whole.scaled_mean_variance if settings.normalize else whole.mean_variance
    dispersion = np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0)
    is_candidate = whole.n_expressing >= whole.n_cells * settings.min_cells_pct / 100
    n_candidates = int((is_candidate & (whole.n_expressing > 0)).sum())
    score = np.where(whole.n_expressing > 0, dispersion, np.nan)
    if settings.genes is not None:
        how, indices = "given", settings.genes.find(axis)
    elif settings.n_hvgs is None:
        how, indices = "all", np.arange(len(axis))
    else:
        if settings.n_hvgs > n_candidates:
            raise ValueError(
                f"n_hvgs={settings.n_hvgs}, but only {n_candidates} of {len(axis)} genes are "
                f"expressed in at least {settings.min_cells_pct} % of the {whole.n_cells} training "
                "cells: lower n_hvgs or min_cells_pct, or set n_hvgs=null to keep all genes"
            )
        how = settings.flavor
        ranking = rank_genes(
            _leave_out_single_cells(batches, settings),
            is_candidate,
            flavor=how,
            normalize=settings.normalize,
            span=settings.span,
            n_hvgs=settings.n_hvgs,
            count_above=count_above,
        )
        score = ranking.score
        indices = ranking.order[whole.n_expressing[ranking.order] > 0][: settings.n_hvgs]
        if len(indices) < settings.n_hvgs:
            raise ValueError(
                f"n_hvgs={settings.n_hvgs}, but flavor={how} gives only {len(indices)} genes a "
                "score: lower n_hvgs, or choose another flavor"
            )
    ids, symbols = _name(indices, axis, settings)
    return GeneChoice(
        how=how,
        indices=indices.astype(np.int64),
        ids=ids,
        symbols=symbols,
        mean=mean,
        dispersion=dispersion,
        score=score,
        cell_fraction=whole.n_expressing / max(whole.n_cells, 1),
        is_candidate=is_candidate & (whole.n_expressing > 0),
        n_cells=whole.n_cells,
        is_scaled=settings.normalize,
    )


def _leave_out_single_cells(
    batches: Mapping[str, GeneStatistics], settings: GeneSettings
) -> Mapping[str, GeneStatistics]:
    """The batches that have a variance: one cell has none."""
    small = [name for name, statistics in batches.items() if name and statistics.n_cells < 2]
    if len(small) == len(batches):
        raise ValueError(
            f"batch_key={settings.batch_key}: each of {len(small)} batches, such as {small[0]!r}, "
            "has a single training cell, and so no variance: choose another column, or draw more"
        )
    if small:
        logger.warning(
            "batch_key=%s: %d batches of a single training cell have no variance and are left out "
            "of the ranking: %s",
            *(settings.batch_key, len(small), ", ".join(small[:10])),
        )
    return {name: s for name, s in batches.items() if name not in small}


def _name(
    indices: NDArray[np.int64], axis: GeneAxis, settings: GeneSettings
) -> tuple[list[str], list[str]]:
    """Names of the genes kept: another data set's stay as they are, so that its models fit."""
    given = settings.genes
    if given is not None and given.symbols is not None:
        return list(given.names), list(given.symbols)
    names = axis.ids if given is None else given.names
    ids = [axis.ids[i] if i >= 0 else names[place] for place, i in enumerate(indices)]
    symbols = [axis.symbols[i] if i >= 0 else names[place] for place, i in enumerate(indices)]
    return ids, symbols
