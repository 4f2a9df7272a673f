"""How genes are ranked: variance/mean of counts, or one of scanpy's flavors, from sums alone.

`seurat`, `cell_ranger` and `seurat_v3` rank genes as `scanpy.pp.highly_variable_genes` does on the
same cells, with and without batches; tested against scanpy 1.10 to 1.12. (They round the means of
batches differently: of `seurat_v3` with batches, genes are those of 1.11, one in a hundred another
in 1.10 and 1.12.) Genes of equal score, which scanpy orders as the sort happens to, keep the order
of the axis. Only the second pass of `seurat_v3` looks at cells again.

Satija et al., Nature Biotechnology 33:495, 2015 (seurat); Zheng et al., Nature Communications
8:14049, 2017 (cell_ranger); Stuart et al., Cell 177:1888, 2019 (seurat_v3).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from scdiff_data.genes.sums import GeneStatistics

logger = logging.getLogger(__name__)

_N_BINS = 20
"""Bins of `seurat`'s means, as in scanpy."""

_FEWEST_FITTED = 10
"""Genes that `seurat_v3`'s curve needs; of less than five points the library ends the process."""


CountAbove = Callable[[str, NDArray[np.int16]], NDArray[np.int64]]
"""Of a batch's training counts above each gene's threshold: number, Σx and Σx²; [3, n_genes]."""


class Score(Protocol):
    """Scores genes from the sums over a group of cells."""

    def __call__(
        self, statistics: GeneStatistics, places: NDArray[np.int64], *, normalize: bool
    ) -> NDArray[np.float64]:
        """Score the genes at `places`; the best are highest, NaN has none. float64 [n_places]."""
        ...


@dataclass(frozen=True)
class Flavor:
    """A way to rank genes.

    Parameters
    ----------
    ranks_by
        What genes are ranked by, in words.
    score
        Scores genes from sums alone; None for `seurat_v3`, which reads cells again.
    """

    ranks_by: str
    score: Score | None


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
    span: float = 0.3,
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
    span
        Of `seurat_v3`'s curve: the fraction of the genes fitted at a point.

    Raises
    ------
    ValueError
        If the data do not allow the flavor.
    """
    places = np.flatnonzero(is_candidate)
    score_genes = FLAVORS[flavor].score
    if score_genes is None:
        rows = _standardize(batches, is_candidate, count_above, span)
        score, order = _merge_variances(np.array(rows), n_hvgs)
    else:
        scored = [
            _score_batch(s, places, score_genes, normalize=normalize, is_batch="" not in batches)
            for s in batches.values()
        ]
        scores_bg, takes_part_bg = (np.array(rows) for rows in zip(*scored, strict=True))
        score, order = _merge_dispersions(scores_bg, takes_part_bg, n_hvgs)
    scores = np.full(len(is_candidate), np.nan)
    scores[places] = score
    return Ranking(places[order], scores)


def _score_batch(
    statistics: GeneStatistics,
    places: NDArray[np.int64],
    score: Score,
    *,
    normalize: bool,
    is_batch: bool,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score of each candidate, and whether it takes part.

    In a batch, a gene that none of the batch's cells expresses takes no part and scores 0, as in
    scanpy.
    """
    takes_part = (statistics.n_expressing[places] > 0) | (not is_batch)
    scores = np.zeros(len(places))
    scores[takes_part] = score(statistics, places[takes_part], normalize=normalize)
    return scores, takes_part


def _score_dispersion(
    statistics: GeneStatistics, places: NDArray[np.int64], *, normalize: bool
) -> NDArray[np.float64]:
    """Variance/mean of counts, or of scaled ones."""
    moments = statistics.scaled_mean_variance if normalize else statistics.mean_variance
    return _disperse(*moments, places)[1]


def _score_seurat(
    statistics: GeneStatistics, places: NDArray[np.int64], *, normalize: bool
) -> NDArray[np.float64]:
    """Log dispersion of scaled counts, in units of the spread among genes of similar mean."""
    del normalize
    mean, dispersion = _disperse(*statistics.scaled_mean_variance, places)
    log_dispersion = np.log(np.where(dispersion == 0, np.nan, dispersion))
    bins = pd.Series(pd.cut(np.log1p(mean), bins=_N_BINS))
    values = pd.Series(log_dispersion)
    by_bin = values.groupby(bins, observed=True)
    center = by_bin.transform("mean")
    spread = by_bin.transform("std")
    # A gene alone in its bin has no spread: its score is 1.
    alone = spread.isna()
    spread = spread.where(~alone, center)
    center = center.where(~alone, 0.0)
    scores: NDArray[np.float64] = ((values - center) / spread).to_numpy()
    return scores


def _score_cell_ranger(
    statistics: GeneStatistics, places: NDArray[np.int64], *, normalize: bool
) -> NDArray[np.float64]:
    """Dispersion of log counts, in units of the median deviation among genes of similar mean."""
    del normalize
    mean, dispersion = _disperse(*statistics.log_mean_variance, places)
    edges = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
    if len(np.unique(edges)) < len(edges):
        raise ValueError(
            "flavor=cell_ranger bins genes by percentiles of their means, but many genes have "
            "the same mean, 0 perhaps: raise min_cells_pct, or choose another flavor"
        )
    bins = pd.Series(pd.cut(mean, bins=edges))
    values = pd.Series(dispersion)
    center = values.groupby(bins, observed=True).transform("median")
    deviation = (values - center).abs()
    spread = deviation.groupby(bins, observed=True).transform("median") / ndtri(0.75)
    scores: NDArray[np.float64] = ((values - center) / spread).to_numpy()
    return scores


def _disperse(
    mean: NDArray[np.float64], variance: NDArray[np.float64], places: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and dispersion of some genes."""
    mean = np.maximum(mean[places], 1e-12)
    return mean, variance[places] / mean


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


def _standardize(batches: Mapping[str, GeneStatistics], *arguments: Any) -> list[Any]:
    """Standardised variances of the batches that allow a fit; a ValueError if none does."""
    rows, failure = [], None
    for name, statistics in batches.items():
        try:
            rows.append(_standardized_variance(name, statistics, *arguments))
        except ValueError as error:
            logger.warning("a batch is left out of the ranking: %s", error)
            failure = error
    if failure is not None and not rows:
        raise failure
    return rows


def _standardized_variance(
    name: str,
    statistics: GeneStatistics,
    is_candidate: NDArray[np.bool_],
    count_above: CountAbove,
    span: float,
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
        curve = loess(np.log10(mean[fitted]), np.log10(variance[fitted]), span=span, degree=2)
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


FLAVORS = {
    "dispersion": Flavor("dispersion", _score_dispersion),
    "seurat": Flavor("normalised dispersion", _score_seurat),
    "cell_ranger": Flavor("normalised dispersion", _score_cell_ranger),
    "seurat_v3": Flavor("variance of standardised counts", None),
}
"""How genes can be ranked."""
