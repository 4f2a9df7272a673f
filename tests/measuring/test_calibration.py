"""A reliability curve is that of the predictions, cells and experiments it was made of."""

import numpy as np
import pytest

from scdiff_data.measuring import measure_reliability, sum_by_probability


def test_sums_and_errors_are_those_worked_out_by_hand() -> None:
    p = np.array([[0.05, 0.05, 0.95], [0.05, 0.55, 1.0]])
    is_true = np.array([[True, False, True], [False, False, True]])
    counted = np.array([[True, True, True], [True, True, False]])
    sums = sum_by_probability(p, is_true, counted)
    assert sums.shape == (2, 10, 3)
    assert sums[0, 0] == pytest.approx([2, 0.1, 1])
    assert sums[1, 5] == pytest.approx([1, 0.55, 0])
    assert sums[1, 9] == pytest.approx([0, 0, 0])
    curve = measure_reliability(sums, ["x", "y"])
    assert curve.predicted == pytest.approx([0.05, 0.55, 0.95])
    assert curve.observed == pytest.approx([1 / 3, 0, 1])
    assert curve.share == pytest.approx([0.6, 0.2, 0.2])
    # 0.6 |0.05 - 1/3| + 0.2 x 0.55 + 0.2 x 0.05
    assert curve.ece == pytest.approx(0.17 + 0.11 + 0.01)
    assert curve.ece_of["x"] == pytest.approx((abs(0.1 - 1) + 0.05) / 3)
    assert curve.observed_of["y"] == [pytest.approx([0.05, 0.55]), pytest.approx([0, 0])]


def test_true_probabilities_hold_and_false_ones_are_found_out_where_they_are() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.5, (400, 50))
    is_true = rng.random(p.shape) < p
    experiments = np.repeat(["good", "bad"], 200).tolist()
    everything = np.ones_like(is_true)
    honest = measure_reliability(sum_by_probability(p, is_true, everything), experiments)
    assert honest.ece < 0.01
    low, observed, high = (np.array(v) for v in (honest.low, honest.observed, honest.high))
    assert (low < observed).all()
    assert (observed < high).all()
    assert ((low < honest.predicted) & (honest.predicted < high)).sum() >= 8  # of ten at 95 %
    false = np.where(np.arange(400)[:, None] < 200, p, p**2)
    curve = measure_reliability(sum_by_probability(false, is_true, everything), experiments)
    assert curve.ece_of["good"] < 0.02 < 0.1 < curve.ece_of["bad"]
