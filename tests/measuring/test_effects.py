"""Effects are measured free of the noise that real cells have."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scdiff_data.measuring import Effects, compare_effects, measure_effects
from scdiff_data.measuring.effects import set_depth

NAMES = ["a", "b", "c", "rare"]


def draw_types(n_cells: int, *, share: float = 1.0, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Counts of 300 genes and types: Poisson, with a part of each type's effects."""
    fixed = np.random.default_rng(0)
    log_mean, log_fold = fixed.normal(0, 1.5, 300), fixed.normal(0, 1, (3, 300))
    profiles = np.exp(log_mean + share * log_fold)
    profiles /= profiles.sum(1, keepdims=True)
    rng = np.random.default_rng(seed)
    codes = rng.integers(3, size=n_cells)
    depth = rng.lognormal(np.log(600), 0.4, n_cells)
    return rng.poisson(profiles[codes] * depth[:, None]), codes


def compare(sample: Any, real: Any) -> Effects:
    effects = compare_effects(*sample, *real, label="type", names=NAMES, is_given=True)
    assert effects is not None
    return effects


@pytest.mark.parametrize("n_cells", [150, 900])
def test_another_draw_of_real_cells_has_slope_1_however_few_they_are(n_cells: int) -> None:
    real = draw_types(n_cells, seed=2)
    effects = compare(draw_types(n_cells, seed=1), real)
    assert effects.slope == pytest.approx(1, abs=0.05)
    low, middle, high = effects.slope_ceiling
    assert low < middle < high
    assert low - 0.03 < effects.slope < high + 0.03
    assert effects.correlation == pytest.approx(effects.correlation_ceiling[1], abs=0.02)
    assert effects.scale["correlation"] == pytest.approx(1, abs=0.03)
    assert [pair["labels"] for pair in effects.pairs] == [["a", "b"], ["a", "c"], ["b", "c"]]
    # Least squares of the same cells is pulled down, which few cells show.
    first, second = (
        np.stack([set_depth(counts, 600)[codes == k].mean(0) for k in (0, 1)])
        for counts, codes in (real, draw_types(n_cells, seed=1))
    )
    x, y = (measure_effects(profiles, 0, 1, slice(None)) for profiles in (first, second))
    naive = np.cov(x, y)[0, 1] / x.var(ddof=1)
    assert naive < effects.slope
    assert n_cells > 150 or naive < 0.95


def test_effects_that_are_too_small_are_measured_as_such() -> None:
    effects = compare(draw_types(900, share=0.6, seed=1), draw_types(900, seed=2))
    assert effects.slope == pytest.approx(0.6, abs=0.05)
    assert effects.slope < effects.slope_ceiling[0]
    assert effects.scale["slope"] == pytest.approx(0.6, abs=0.06)


def test_what_takes_part_is_decided_by_real_cells() -> None:
    (counts, codes), real = draw_types(300, seed=1), draw_types(300, seed=2)
    n_genes = [pair["n_genes"] for pair in compare((counts, codes), real).pairs]
    flat = compare((counts * 0 + 1, codes), real)
    assert n_genes == [pair["n_genes"] for pair in flat.pairs]
    assert max(n_genes) < 300
    assert (flat.slope, flat.correlation) == (0, 0)


def test_without_two_labels_of_cells_enough_there_are_no_effects() -> None:
    counts, codes = draw_types(300, seed=1)
    one = np.where(codes == 0, 0, -1)
    assert (
        compare_effects(counts, one, counts, codes, label="t", names=NAMES, is_given=True) is None
    )


def test_an_effect_is_a_log_ratio_with_a_tenth_of_a_count_added() -> None:
    profiles = np.array([[0.7, 0.0], [0.1, 0.3]])
    assert measure_effects(profiles, 0, 1, slice(None)) == pytest.approx([2, -2])
    assert set_depth(np.array([[1, 3], [0, 0]]), 8).tolist() == [[2, 6], [0, 0]]
