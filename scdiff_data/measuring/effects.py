"""Log-fold changes between labels: whether a sample has the effects that real cells have.

The profile of a label is the mean over its cells of counts at one depth: each cell's counts times
D / (their sum over these genes), D the real cells' median sum. Between labels a and b

    effect of gene g = log2((profile_a + c) / (profile_b + c)),  c = 0.1 counts a cell,

over the genes that a tenth of the real cells of a or of b express: what takes part is decided by
real cells alone.

**The slope.** Effects of real cells (x) are measured with noise, and least squares of a sample's
effects (y) on them is pulled towards 0 by it: its slope is cov(x, y) / (var(x) + noise), below 1
for a second draw of real cells, too. Total least squares would need the ratio of both noises, which
differs from gene to gene and with each label's cells. So real cells are measured twice, by two
thirds that share no cell, x₁ and x₂: their noises are independent, cov(x₁, x₂) is the variance
of the true effects, and

    slope = (cov(x₁, y) + cov(x₂, y)) / (2 cov(x₁, x₂))

is free of the pull, as each third is an instrument for the other. The last third takes the
sample's place for the *ceiling*: what a replicate of as many cells reaches. The sample is cut to as
many cells of each label. All is repeated over random divisions; the ceiling's interval is where
95 % of them lie. Divisions share cells, so it is somewhat narrow.

Shapes: c cells of the sample, r real cells, k labels, g genes, p pairs of labels, s divisions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.measuring.metrics import Counts
from scdiff_data.measuring.scale import rescale

Floats = NDArray[np.float64]
"""Profiles, effects and figures of them."""

_PSEUDOCOUNT = 0.1
"""c: below it, what a gene of some dozen cells shows is luck."""

_N_DIVISIONS = 40
"""Random divisions of the real cells into thirds."""

_LEAST_CELLS = 12
"""Fewer real or generated cells of a label are not compared."""

_LEAST_SHARE = 0.1
"""Of the real cells of one of two labels that express a gene which takes part."""

_LEAST_GENES = 10
"""Fewer genes of a pair of labels are not compared."""


@dataclass(frozen=True)
class Effects:
    """A sample's effects beside those of real cells.

    Parameters
    ----------
    label
        What the effects are between the values of.
    is_given
        Whether cells were generated for their label; else all were given that of the nearest
        training cells, real ones too.
    slope, correlation
        The sample's, the median over pairs of labels and divisions.
    slope_ceiling, correlation_ceiling
        Low end, median and high end of what a replicate reaches.
    scale
        Both on the scale where 0 is a mean profile, which has no effects, and 1 a replicate.
    pairs
        Of each pair of labels its names, genes, and the same figures.
    """

    label: str
    is_given: bool
    slope: float
    slope_ceiling: tuple[float, float, float]
    correlation: float
    correlation_ceiling: tuple[float, float, float]
    scale: dict[str, float | None]
    pairs: list[dict[str, Any]]

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def compare_effects(
    counts_cg: Counts,
    codes_c: NDArray[np.integer[Any]],
    real_rg: Counts,
    codes_r: NDArray[np.integer[Any]],
    *,
    label: str,
    names: Sequence[str],
    is_given: bool,
    seed: int = 0,
) -> Effects | None:
    """Compare a sample's effects with real cells'.

    Parameters
    ----------
    counts_cg, codes_c
        The sample, and the code of each cell's label; of -1 it has none.
    real_rg, codes_r
        Held-out real cells, and theirs.
    label, names
        What the codes are of, and what they stand for.
    is_given
        See `Effects`.

    Returns
    -------
    Effects
        Or None, if there are no two labels of 12 cells in both.
    """
    shared = [
        code
        for code in range(len(names))
        if min((codes_c == code).sum(), (codes_r == code).sum()) >= _LEAST_CELLS
    ]
    depth = float(np.median(real_rg.sum(1)))
    flat_cg, flat_rg = set_depth(counts_cg, depth), set_depth(real_rg, depth)
    expressing_kg = np.array([(real_rg[codes_r == code] > 0).mean(0) for code in shared])
    places = [
        (i, j, genes)
        for i, j in combinations(range(len(shared)), 2)
        if len(genes := np.flatnonzero(expressing_kg[[i, j]].max(0) >= _LEAST_SHARE))
        >= _LEAST_GENES
    ]
    if not places:
        return None
    rng, found = np.random.default_rng(seed), []
    for _ in range(_N_DIVISIONS):
        real_tkg, own_kg = _draw_profiles(rng, shared, (flat_cg, codes_c), (flat_rg, codes_r))
        found.append(
            [
                [_fit(real_tkg, profiles_kg, i, j, genes) for profiles_kg in (own_kg, real_tkg[2])]
                for i, j, genes in places
            ]
        )
    figures = np.array(found)  # [s, p, (sample, replicate), (slope, correlation)]
    pairs = [
        {"labels": [names[shared[i]], names[shared[j]]], "n_genes": len(genes)}
        | _summarize(figures[:, [place]])
        for place, (i, j, genes) in enumerate(places)
    ]
    middle = np.nanmedian(figures, axis=1)[:, 1]  # of replicates
    summary = _summarize(figures)
    scale = {
        "slope": rescale(abs(summary["slope"] - 1), np.abs(middle[:, 0] - 1).tolist(), 1.0),
        "correlation": rescale(summary["correlation"], middle[:, 1].tolist(), 0.0),
    }
    return Effects(label=label, is_given=is_given, scale=scale, pairs=pairs, **summary)


def measure_effects(
    profiles_kg: Floats, first: int, second: int, genes: NDArray[np.integer[Any]] | slice
) -> Floats:
    """log2 ratio of two labels' profiles, [g]."""
    ratio_g = (profiles_kg[first, genes] + _PSEUDOCOUNT) / (
        profiles_kg[second, genes] + _PSEUDOCOUNT
    )
    effects_g: Floats = np.log2(ratio_g)
    return effects_g


def set_depth(counts_cg: Counts, depth: float) -> Floats:
    """Counts as they would be if each cell had so many; empty cells stay empty."""
    sums_c1 = np.maximum(counts_cg.sum(1, keepdims=True), 1)
    return np.asarray(counts_cg * (depth / sums_c1))


def _draw_profiles(
    rng: np.random.Generator,
    codes: Sequence[int],
    sample: tuple[Floats, NDArray[Any]],
    real: tuple[Floats, NDArray[Any]],
) -> tuple[Floats, Floats]:
    """Profiles of three thirds of the real cells, [3, k, g], and of as many of the sample's."""
    thirds, own = [], []
    for code in codes:
        rows_r = rng.permutation(np.flatnonzero(real[1] == code))
        rows_c = rng.permutation(np.flatnonzero(sample[1] == code))
        n = len(rows_r) // 3
        thirds.append([real[0][rows_r[t * n : (t + 1) * n]].mean(0) for t in range(3)])
        own.append(sample[0][rows_c[:n]].mean(0))
    return np.array(thirds).transpose(1, 0, 2), np.array(own)


def _fit(
    real_tkg: Floats, profiles_kg: Floats, i: int, j: int, genes: NDArray[np.integer[Any]]
) -> tuple[float, float]:
    """Slope and correlation of a pair's effects, against the first two thirds."""
    x1, x2, y = (measure_effects(p, i, j, genes) for p in (*real_tkg[:2], profiles_kg))
    covariance = np.cov([x1, x2, y])
    if covariance[0, 1] <= 0:  # no effect that two thirds agree on
        return np.nan, np.nan
    if covariance[2, 2] == 0:
        return 0.0, 0.0
    slope = (covariance[0, 2] + covariance[1, 2]) / (2 * covariance[0, 1])
    return slope, np.corrcoef((x1 + x2) / 2, y)[0, 1]


def _summarize(figures: Floats) -> dict[str, Any]:
    """The figures of [s, p, 2, 2]: of each division the median over pairs, then over divisions."""
    with np.errstate(all="ignore"):
        medians = np.nanmedian(figures, axis=1)
    summary: dict[str, Any] = {}
    for place, name in enumerate(("slope", "correlation")):
        own, replicate = medians[:, 0, place], medians[:, 1, place]
        ends = np.nanpercentile(replicate, [2.5, 50, 97.5])
        summary[name] = float(np.nanmedian(own))
        summary[f"{name}_ceiling"] = (float(ends[0]), float(ends[1]), float(ends[2]))
    return summary
