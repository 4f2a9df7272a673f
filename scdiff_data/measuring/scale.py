"""Figures on one scale: 0 is a baseline that knows nothing, 1 a replicate of the experiment.

    s = (u - b) / (r - b)

u is a sample's figure, b that of a baseline, r that of real cells beside other real ones, the
median of five random halvings of held-out cells. All three are of as many cells, since most figures
depend on how many there are. Of figures whose ideal lies between too little and too much (a ratio,
a difference, an accuracy of chance) u, b and r are how far each is from it. So s reads alike for
all: below 0 is worse than the baseline, above 1 nearer than a replicate, which is luck.

Shapes: r real held-out cells, g genes.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import log

import numpy as np

from scdiff_data.measuring.metrics import Counts, TrainingCells, compare_cells

N_HALVINGS = 5
"""Random halvings of the real cells, whose median is a replicate."""

BASELINES = {
    **dict.fromkeys(
        (
            "library_cv_ratio",
            "detected_genes_cv_ratio",
            "gene_correlation_agreement",
            "mmd2",
            "wasserstein2",
            "nearest_neighbour_accuracy",
            "forest_auc",
        ),
        "genes_shuffled",
    ),
    **dict.fromkeys(
        (
            "gene_mean_ratio",
            "gene_variance_ratio",
            "gene_mean_correlation",
            "zero_fraction_difference",
            "wasserstein_per_gene",
        ),
        "mean_profile",
    ),
}
"""What is 0: of figures of structure, genes shuffled each for itself; of those of single genes,
which a shuffle keeps, the mean profile. Copies of training cells have no scale: neither end has
any."""

_IDEALS = {
    **dict.fromkeys(
        ("gene_mean_ratio", "gene_variance_ratio", "library_cv_ratio", "detected_genes_cv_ratio"),
        1.0,
    ),
    "zero_fraction_difference": 0.0,
    **dict.fromkeys(("nearest_neighbour_accuracy", "forest_auc"), 0.5),
}
"""Of the figures that can miss on both sides."""


def draw_halves(
    real_rg: Counts, *, n_halvings: int = N_HALVINGS, seed: int = 0
) -> Iterator[tuple[Counts, Counts]]:
    """Two halves of the cells, of one size and without a cell in common, several times."""
    rng, n = np.random.default_rng(seed), len(real_rg) // 2
    for _ in range(n_halvings):
        order = rng.permutation(len(real_rg))
        yield real_rg[order[:n]], real_rg[order[n : 2 * n]]


def compare_replicates(
    real_rg: Counts, train_tg: Counts | TrainingCells
) -> Iterator[dict[str, float]]:
    """`compare_cells` of the halves, one halving at a time.

    Parameters
    ----------
    real_rg
        Held-out cells, twice as many as a sample that is put on the scale has.
    train_tg
        As `compare_cells`.
    """
    for first_rg, second_rg in draw_halves(real_rg):
        yield compare_cells(first_rg, second_rg, train_tg)


def take_medians(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: float(np.median([one[name] for one in scores])) for name in scores[0]}


def rescale_scores(
    scores: Mapping[str, float],
    replicates: Sequence[Mapping[str, float]],
    baselines: Mapping[str, Mapping[str, float]],
) -> dict[str, float | None]:
    """A sample's figures on the scale, of those that have one.

    Parameters
    ----------
    scores
        `compare_cells` of the sample.
    replicates
        The same of each halving.
    baselines
        The same of `genes_shuffled` and `mean_profile`.

    Returns
    -------
    dict
        None where baseline and replicate are too near each other to measure between them: nearer
        than the halvings lie apart.
    """
    return {
        name: rescale(
            measure_error(name, scores[name]),
            [measure_error(name, one[name]) for one in replicates],
            measure_error(name, baselines[baseline][name]),
        )
        for name, baseline in BASELINES.items()
    }


def rescale(value: float, replicates: Sequence[float], baseline: float) -> float | None:
    """(u - b) / (r - b), or None where b and r are too near each other."""
    replicate = float(np.median(replicates))
    if not abs(replicate - baseline) > np.ptp(replicates):  # nor if one is no number
        return None
    return (value - baseline) / (replicate - baseline)


def measure_error(name: str, value: float) -> float:
    """How far a figure is from its ideal, if it can miss on both sides; else the figure itself."""
    if name not in _IDEALS:
        return value
    if name.endswith("ratio"):
        return abs(log(max(value, 1e-9)))
    return abs(value - _IDEALS[name])
