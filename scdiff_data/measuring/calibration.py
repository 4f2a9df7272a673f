"""Whether probabilities hold: of what was given 30 %, three tenths should come true.

Predictions are put into ten bins of probability. A bin's gap is how far the mean prediction in it
lies from the frequency at which it came true; the expected calibration error (ECE) is the mean gap,
each bin weighted by its predictions. Predictions of one cell are not independent of each other, so
intervals are of cells drawn again with replacement, not of predictions.

Shapes: c cells, b bins.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_BINS = 10
"""Bins of probability, of one width."""

_N_DRAWS = 200
"""Draws of cells that intervals are taken over."""

Sums = NDArray[np.float64]
"""Of each cell and bin: predictions, their sum, and how many came true; [c, b, 3]."""


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities beside observed frequencies.

    Parameters
    ----------
    predicted, observed, low, high
        Of each bin that has predictions: the mean probability, the frequency, and the ends of its
        95 % interval.
    share
        Of all predictions that are in the bin.
    ece
        Expected calibration error.
    ece_of
        The same of each experiment by itself.
    observed_of
        Of each experiment the predicted and observed values of its bins.
    """

    predicted: list[float]
    observed: list[float]
    low: list[float]
    high: list[float]
    share: list[float]
    ece: float
    ece_of: dict[str, float]
    observed_of: dict[str, list[list[float]]]

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def sum_by_probability(
    p: NDArray[np.floating[Any]], is_true: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> Sums:
    """Sums of cells' predictions by bin.

    Parameters
    ----------
    p, is_true
        Predicted probabilities and what came true, [c, …].
    counted
        Which of them count.
    """
    n_cells = len(p)
    flat_p, flat_true, flat_counted = (part.reshape(n_cells, -1) for part in (p, is_true, counted))
    cells, places = np.nonzero(flat_counted)
    values = flat_p[cells, places].astype(np.float64)
    bins = np.minimum((values * N_BINS).astype(int), N_BINS - 1)
    where = cells * N_BINS + bins
    parts = [
        np.bincount(where, weights, n_cells * N_BINS)
        for weights in (None, values, flat_true[cells, places])
    ]
    return np.stack(parts, -1).reshape(n_cells, N_BINS, 3).astype(np.float64)


def measure_reliability(
    sums_cb3: Sums, experiments_c: Sequence[str], *, seed: int = 0
) -> Reliability:
    """The curve over all cells, and over those of each experiment."""
    total_b3 = sums_cb3.sum(0)
    known = total_b3[:, 0] > 0
    rng, n_cells = np.random.default_rng(seed), len(sums_cb3)
    weights = rng.multinomial(n_cells, np.full(n_cells, 1 / n_cells), size=_N_DRAWS)
    drawn = np.tensordot(weights, sums_cb3[:, known], axes=1)  # [draws, b, 3]
    with np.errstate(invalid="ignore"):
        ends = np.nanpercentile(drawn[..., 2] / drawn[..., 0], [2.5, 97.5], axis=0)
    names = np.asarray(experiments_c)
    of = {str(name): sums_cb3[names == name].sum(0) for name in np.unique(names)}
    predicted, observed = _divide(total_b3)
    return Reliability(
        predicted=predicted,
        observed=observed,
        low=ends[0].tolist(),
        high=ends[1].tolist(),
        share=(total_b3[known, 0] / total_b3[:, 0].sum()).tolist(),
        ece=_measure_ece(total_b3),
        ece_of={name: _measure_ece(sums) for name, sums in of.items()},
        observed_of={name: list(_divide(sums)) for name, sums in of.items()},
    )


def _divide(sums_b3: Sums) -> tuple[list[float], list[float]]:
    """Mean probability and frequency of the bins that have predictions."""
    n, p, hits = sums_b3[sums_b3[:, 0] > 0].T
    return (p / n).tolist(), (hits / n).tolist()


def _measure_ece(sums_b3: Sums) -> float:
    return float(np.abs(sums_b3[:, 1] - sums_b3[:, 2]).sum() / sums_b3[:, 0].sum())
