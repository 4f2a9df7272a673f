"""How genes are ranked: variance/mean of counts, or one of scanpy's flavors, from sums alone.

`seurat`, `cell_ranger` and `seurat_v3` rank genes as `scanpy.pp.highly_variable_genes` does on the
same cells, with and without batches; scanpy 1.11 is what they are tested against. Genes of equal
score, which scanpy orders as the processor's sort happens to, keep the order of the axis. Only the
second pass of `seurat_v3` looks at cells again.

Satija et al., Nature Biotechnology 33:495, 2015 (seurat); Zheng et al., Nature Communications
8:14049, 2017 (cell_ranger); Stuart et al., Cell 177:1888, 2019 (seurat_v3).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from scdiff_data.genes.sums import GeneStatistics

FLAVORS = ("dispersion", "seurat", "cell_ranger", "seurat_v3")
"""How genes can be ranked."""

SCORES = {
    "dispersion": "dispersion",
    "seurat": "normalised dispersion",
    "cell_ranger": "normalised dispersion",
    "seurat_v3": "variance of standardised counts",
}
"""What each flavor ranks genes by."""

_SPAN = 0.3
"""Fraction of the genes that each point of `seurat_v3`'s curve is fitted to, as in scanpy."""

_N_BINS = 20
"""Bins of `seurat`'s means, as in scanpy."""

_FEWEST_FITTED = 10
"""Genes that `seurat_v3`'s curve needs; of less than five points the library ends the process."""


CountAbove = Callable[[str, NDArray[np.int16]], NDArray[np.int64]]
"""Of a batch's training counts above each gene's threshold: number, Σx and Σx²; [3, n_genes]."""


@dataclass(frozen=True)
class Ranking:
    """Genes by how variable they are.

    Parameters
    ----------
    order
        Places of the genes that have a score, the best first; equal ones in the order of the genes.
    score
        Of every gene, the mean over batches; NaN where there is none. float64 [n_genes].
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]


def rank_genes(
    batches: Mapping[str, GeneStatistics],
    is_candidate: NDArray[np.bool_],
    *,
    flavor: str,
    normalize: bool,
    n_hvgs: int,
    count_above: CountAbove,
) -> Ranking:
    """Rank the candidates among the genes.

    Parameters
    ----------
    batches
        Statistics of the training cells of each batch; of all under the name "", if batches play no
        part. Genes are ranked in each, and first come those that most have among their best.
    is_candidate
        Genes that enough cells express; the others are as if they were not there.
    flavor
        `dispersion`, `seurat`, `cell_ranger` or `seurat_v3`.
    normalize
        For `dispersion`: whether counts are scaled to 10,000 a cell.
    n_hvgs
        How many genes of each batch count as its best.
    count_above
        What reads cells for `seurat_v3`.

    Raises
    ------
    ValueError
        If the data do not allow the flavor.
    """
    places = np.flatnonzero(is_candidate)
    if flavor == "seurat_v3":
        rows = [
            _standardized_variance(name, statistics, is_candidate, count_above)
            for name, statistics in batches.items()
        ]
        score, order = _merge_variances(np.array(rows), n_hvgs)
    else:
        scored = [
            _dispersions(s, places, flavor, normalize=normalize, is_batch="" not in batches)
            for s in batches.values()
        ]
        scores_bg, takes_part_bg = (np.array(rows) for rows in zip(*scored, strict=True))
        score, order = _merge_dispersions(scores_bg, takes_part_bg, n_hvgs)
    scores = np.full(len(is_candidate), np.nan)
    scores[places] = score
    return Ranking(places[order], scores)


def _dispersions(
    statistics: GeneStatistics,
    places: NDArray[np.int64],
    flavor: str,
    *,
    normalize: bool,
    is_batch: bool,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score of each candidate, and whether it takes part.

    In a batch, a gene that none of the batch's cells expresses takes no part and scores 0, as in
    scanpy. A gene that takes part scores NaN where its dispersion has no normalisation.
    """
    if flavor == "cell_ranger":
        mean, variance = statistics.log_mean_variance
    elif flavor == "seurat" or normalize:
        mean, variance = statistics.scaled_mean_variance
    else:
        mean, variance = statistics.mean_variance
    takes_part = (statistics.n_expressing[places] > 0) | (not is_batch)
    kept = places[takes_part]
    mean, variance = np.maximum(mean[kept], 1e-12), variance[kept]
    values = variance / mean
    if flavor != "dispersion":
        values = _normalize_dispersions(mean, values, flavor)
    scores = np.zeros(len(places))
    scores[takes_part] = values
    return scores, takes_part


def _normalize_dispersions(
    mean: NDArray[np.float64], dispersion: NDArray[np.float64], flavor: str
) -> NDArray[np.float64]:
    """Dispersions in units of those of genes of similar mean, as scanpy bins them."""
    bins: Any = _N_BINS
    if flavor == "seurat":
        dispersion = np.log(np.where(dispersion == 0, np.nan, dispersion))
        mean = np.log1p(mean)
    else:
        bins = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
        if len(np.unique(bins)) < len(bins):
            raise ValueError(
                "flavor=cell_ranger bins genes by percentiles of their means, but many genes have "
                "the same mean, 0 perhaps: raise min_cells_pct, or choose another flavor"
            )
    frame = pd.DataFrame({"dispersion": dispersion, "bin": pd.cut(mean, bins=bins)})
    by_bin = frame.groupby("bin", observed=True)["dispersion"]
    if flavor == "seurat":
        centre, spread = by_bin.transform("mean"), by_bin.transform("std")
        # A gene alone in its bin has no spread: its score is 1.
        alone = spread.isna()
        spread, centre = spread.where(~alone, centre), centre.where(~alone, 0.0)
    else:
        centre = by_bin.transform("median")
        deviation = (frame["dispersion"] - centre).abs()
        spread = deviation.groupby(frame["bin"], observed=True).transform("median") / ndtri(0.75)
    scores: NDArray[np.float64] = ((frame["dispersion"] - centre) / spread).to_numpy()
    return scores


def _merge_dispersions(
    scores: NDArray[np.float64], takes_part: NDArray[np.bool_], n_hvgs: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean score of each gene over batches, and the genes that have one, best first."""
    is_known = ~np.isnan(scores)
    n_best = np.zeros(scores.shape[1], np.int64)
    if len(scores) > 1:
        for batch, ranked in zip(scores, takes_part & is_known, strict=True):
            if ranked.any():
                best = np.sort(batch[ranked])[::-1][:n_hvgs]
                n_best += ranked & (batch >= best[-1])
    n_known = is_known.sum(axis=0)
    total = np.where(is_known, scores, 0).sum(axis=0)
    score = np.divide(total, n_known, out=np.full(len(total), np.nan), where=n_known > 0)
    order = np.lexsort([np.nan_to_num(-score, nan=np.inf), -n_best])
    return score, order[~np.isnan(score[order])]


def _standardized_variance(
    name: str, statistics: GeneStatistics, is_candidate: NDArray[np.bool_], count_above: CountAbove
) -> NDArray[np.float64]:
    """Variance of the candidates' counts, standardised by the spread that their mean lets expect.

    Counts are clipped at sqrt(n_cells) spreads above the mean.
    """
    from skmisc.loess import loess

    n = statistics.n_cells
    mean, variance = statistics.mean_variance
    fitted, log_variance = is_candidate & (variance > 0), np.zeros(len(mean))
    try:
        if fitted.sum() < _FEWEST_FITTED:
            raise ValueError(f"at least {_FEWEST_FITTED} are needed")
        curve = loess(np.log10(mean[fitted]), np.log10(variance[fitted]), span=_SPAN, degree=2)
        curve.fit()
    except ValueError as error:
        raise ValueError(
            f"flavor=seurat_v3 cannot fit variance against mean of {fitted.sum()} genes in {n} "
            f"training cells{f' of batch {name!r}' if name else ''} ({error}): draw more cells, "
            "lower min_cells_pct, or choose another flavor"
        ) from error
    log_variance[fitted] = curve.outputs.fitted_values
    spread = np.sqrt(10**log_variance)
    clip = spread * np.sqrt(n) + mean
    n_above, above, squared_above = count_above(name, np.minimum(clip, 32_767).astype(np.int16))
    total = statistics.total - above + n_above * clip
    squared = statistics.total_squared - squared_above + n_above * clip**2
    scores = (n * mean**2 + squared - 2 * total * mean) / ((n - 1) * spread**2)
    chosen: NDArray[np.float64] = scores[is_candidate]
    return chosen


def _merge_variances(
    variances: NDArray[np.float64], n_hvgs: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Genes by their median rank in the batches that have them among their best."""
    ranks = np.argsort(np.argsort(-variances, axis=1, kind="stable"), axis=1, kind="stable")
    if len(variances) == 1:
        return variances[0], np.argsort(ranks[0])
    n_best = (ranks < n_hvgs).sum(axis=0)
    best = np.where((ranks < n_hvgs) | (n_best == 0), ranks, np.nan)
    median = np.where(n_best > 0, np.nanmedian(best, axis=0), np.inf)
    order = np.lexsort([-n_best, median])
    return variances.mean(axis=0), order[: int((n_best > 0).sum())]
