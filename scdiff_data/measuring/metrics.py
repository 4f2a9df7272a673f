"""How alike two samples of cells are: figures for generated cells, of any model.

None means much alone. Beside it belong *real against real*, the same figure for another draw of
real cells, which a perfect model would reach, and two cheats that know nothing of a cell:
`shuffle_genes` has every gene's distribution and no dependence between genes, and
`draw_mean_profiles` has one profile for all cells, at real depths. `scale` puts figures between
these two ends.

Shapes: c cells of the sample, r real held-out cells, t training cells, g genes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

Counts = NDArray[np.integer[Any]]
"""Counts [c, g]."""

Logs = NDArray[np.floating[Any]]
"""Their log(1 + count), or places in components."""


MIN_CELLS = 10
"""Fewer cells of a sample are not compared."""

_N_COMPONENTS = 50
"""Principal components that distances are taken over."""

_MOST_CELLS = 2_000
"""Cells of each sample for what takes a distance of all pairs."""


_N_TREES = 40
"""Of the forest, in each of five folds."""

_MOST_TYPED = 5_000
"""Training cells that say of what type others are."""

_N_NEIGHBOURS = 15
"""Of them, those that vote on a cell."""


@dataclass(frozen=True)
class TrainingCells:
    """What figures take of the training cells, found once for many samples.

    Parameters
    ----------
    n_cells
        How many there are.
    components
        The fitted principal components of their log(1 + count), sklearn's.
    known
        The cells' counts, as bytes.
    """

    n_cells: int
    components: Any
    known: frozenset[bytes]

    @classmethod
    def fit(cls, train_tg: Counts) -> "TrainingCells":
        """Find components and counts."""
        from sklearn.decomposition import PCA  # a third of a second to load, wanted by few

        pca = PCA(min(_N_COMPONENTS, *train_tg.shape), random_state=0).fit(np.log1p(train_tg))
        return cls(len(train_tg), pca, frozenset(_list_rows(train_tg)))


def compare_cells(
    counts_cg: Counts, real_rg: Counts, train_tg: Counts | TrainingCells
) -> dict[str, float]:
    """Compare a sample's counts with held-out real cells' over the same genes.

    Parameters
    ----------
    counts_cg, real_rg
        The sample, and real cells that the model has not seen; at least 10 of each. Where a figure
        needs samples of one size, the larger one's first cells count.
    train_tg
        The cells that the model was trained on, or what was found of them. The principal
        components are fitted on them, since those of the held-out cells would set these apart from
        every other sample.

    Returns
    -------
    dict
        `gene_mean_ratio`, `gene_variance_ratio`: median over genes; ideal 1.
        `gene_mean_correlation`: Pearson's, of the genes' log(1 + mean); ideal 1.
        `zero_fraction_difference`: ideal 0.
        `library_cv_ratio`, `detected_genes_cv_ratio`: of the coefficients of variation of cells'
        total counts and numbers of genes above 0; ideal 1.
        `gene_correlation_agreement`: Pearson's, between both samples' gene-gene correlations.
        `wasserstein_per_gene`: mean 1-Wasserstein distance of a gene; ideal 0.
        `mmd2`: squared maximum mean discrepancy, unbiased (so noise can make it negative), Gaussian
        kernel of the real cells' median squared distance; ideal 0.
        `wasserstein2`: 2-Wasserstein distance in 50 principal components.
        `nearest_neighbour_accuracy`: how often a cell's nearest other in these components is of its
        own sample; ideal 0.5.
        `forest_auc`: how well a random forest tells the samples apart, cross-validated; ideal 0.5.
        `duplicates`: fraction of the sample's cells that are a training cell, count for count.
        All from the correlation on, but the last, are of log(1 + count).

    Raises
    ------
    ValueError
        If a sample has fewer than 10 cells.
    """
    n_train = train_tg.n_cells if isinstance(train_tg, TrainingCells) else len(train_tg)
    if min(len(counts_cg), len(real_rg), n_train) < MIN_CELLS:
        raise ValueError(
            f"all samples need at least {MIN_CELLS} cells, got {len(counts_cg)}, {len(real_rg)} "
            f"and {n_train}: hold out or generate more"
        )
    trained = train_tg if isinstance(train_tg, TrainingCells) else TrainingCells.fit(train_tg)
    varies_g = real_rg.var(0) > 0
    (mean_g, variance_g), (real_mean_g, real_variance_g) = (
        (counts[:, varies_g].mean(0), counts[:, varies_g].var(0)) for counts in (counts_cg, real_rg)
    )
    log_cg, log_rg = np.log1p(counts_cg), np.log1p(real_rg)
    n = min(len(log_cg), len(log_rg), _MOST_CELLS)
    places_cd, places_rd = (trained.components.transform(log[:n]) for log in (log_cg, log_rg))
    scores = {
        "gene_mean_ratio": np.median(mean_g / real_mean_g),
        "gene_variance_ratio": np.median(variance_g / real_variance_g),
        "gene_mean_correlation": np.corrcoef(np.log1p(mean_g), np.log1p(real_mean_g))[0, 1],
        "zero_fraction_difference": (counts_cg == 0).mean() - (real_rg == 0).mean(),
        "library_cv_ratio": _variation(counts_cg.sum(1)) / _variation(real_rg.sum(1)),
        "detected_genes_cv_ratio": (
            _variation((counts_cg > 0).sum(1)) / _variation((real_rg > 0).sum(1))
        ),
        "gene_correlation_agreement": _correlation_agreement(log_cg, log_rg),
        "wasserstein_per_gene": np.mean(
            [wasserstein_distance(a, b) for a, b in zip(log_cg.T, log_rg.T, strict=True)]
        ),
        "mmd2": measure_mmd2(log_cg[:_MOST_CELLS], log_rg[:_MOST_CELLS]),
        "wasserstein2": _wasserstein2(places_cd, places_rd),
        "nearest_neighbour_accuracy": _nearest_neighbour_accuracy(places_cd, places_rd),
        "forest_auc": _forest_auc(log_cg[:n], log_rg[:n]),
        "duplicates": np.mean([row in trained.known for row in _list_rows(counts_cg)]),
    }
    return {name: float(score) for name, score in scores.items()}


def shuffle_genes(counts_cg: Counts, *, seed: int = 0) -> Counts:
    """Shuffle every gene among the cells, for itself: a cheat that knows no dependence."""
    shuffled: Counts = np.random.default_rng(seed).permuted(counts_cg, axis=0)
    return shuffled


def draw_mean_profiles(counts_cg: Counts, *, seed: int = 0) -> Counts:
    """Poisson counts of the mean profile at each cell's total: a cheat that knows no cell."""
    profile_g = counts_cg.sum(0) / counts_cg.sum()
    mean_cg = counts_cg.sum(1, keepdims=True) * profile_g
    drawn: Counts = np.random.default_rng(seed).poisson(mean_cg)
    return drawn


def guess_types(
    counts_cg: Counts, train_tg: Counts, codes_t: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """The type of each cell, as most of its nearest training cells have it, int64 [c].

    So real cells and generated ones, which may know of no types, are typed by the same rule.

    Parameters
    ----------
    counts_cg
        The cells.
    train_tg, codes_t
        Training cells, and the code of each one's type; of -1 there is none.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KNeighborsClassifier

    known = np.flatnonzero(np.asarray(codes_t) >= 0)[:_MOST_TYPED]
    log_tg = np.log1p(train_tg[known])
    pca = PCA(min(_N_COMPONENTS, *log_tg.shape), random_state=0).fit(log_tg)
    nearest = KNeighborsClassifier(min(_N_NEIGHBOURS, len(known)))
    nearest.fit(pca.transform(log_tg), np.asarray(codes_t)[known])
    guessed: NDArray[np.int64] = nearest.predict(pca.transform(np.log1p(counts_cg)))
    return guessed


def _variation(values_c: NDArray[Any]) -> float:
    return float(values_c.std() / values_c.mean())


def _correlation_agreement(log_cg: Logs, log_rg: Logs) -> float:
    shared_g = (log_cg.std(0) > 0) & (log_rg.std(0) > 0)
    pairs = np.triu_indices(shared_g.sum(), k=1)
    both = [np.asarray(np.corrcoef(log[:, shared_g].T))[pairs] for log in (log_cg, log_rg)]
    return float(np.corrcoef(both)[0, 1])


def measure_mmd2(log_cg: Logs, log_rg: Logs) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), leaving out each cell's kernel with itself.

    That makes it unbiased (Gretton et al., JMLR 13:723, 2012, equation 3). The Gaussian kernel has
    the median squared distance of the real cells as its scale.
    """
    from sklearn.metrics.pairwise import euclidean_distances

    n, m = len(log_cg), len(log_rg)
    squares_rr = euclidean_distances(log_rg, squared=True)
    scale = np.median(squares_rr[~np.eye(m, dtype=bool)])
    k_rr = np.exp(-squares_rr / scale)
    k_cc = np.exp(-euclidean_distances(log_cg, squared=True) / scale)
    k_cr = np.exp(-euclidean_distances(log_cg, log_rg, squared=True) / scale)
    within = (k_cc.sum() - n) / (n * (n - 1)) + (k_rr.sum() - m) / (m * (m - 1))
    return float(within - 2 * k_cr.mean())


def _wasserstein2(places_cd: Logs, places_rd: Logs) -> float:
    """Between samples of one size: the best pairing's root mean squared distance."""
    from sklearn.metrics.pairwise import euclidean_distances

    squares_cr = euclidean_distances(places_cd, places_rd, squared=True)
    return float(np.sqrt(squares_cr[linear_sum_assignment(squares_cr)].mean()))


def _nearest_neighbour_accuracy(places_cd: Logs, places_rd: Logs) -> float:
    from sklearn.metrics.pairwise import euclidean_distances

    distances = euclidean_distances(np.concatenate([places_cd, places_rd]))
    np.fill_diagonal(distances, np.inf)
    is_real = np.arange(len(distances)) >= len(places_cd)
    return float((is_real[distances.argmin(1)] == is_real).mean())


def _forest_auc(log_cg: Logs, log_rg: Logs) -> float:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    is_real = np.repeat([0, 1], [len(log_cg), len(log_rg)])
    forest = RandomForestClassifier(_N_TREES, random_state=0)
    both = np.concatenate([log_cg, log_rg])
    p_real = cross_val_predict(forest, both, is_real, cv=5, method="predict_proba")[:, 1]
    return float(roc_auc_score(is_real, p_real))


def _list_rows(counts_cg: Counts) -> list[bytes]:
    return [row.tobytes() for row in counts_cg.astype(np.int32)]
