"""On the scale, baselines are 0, replicates 1, and what lies between them lies between."""

import numpy as np
import pytest

from scdiff_data.measuring import TrainingCells, compare_cells, compare_replicates, rescale_scores
from scdiff_data.measuring.metrics import draw_mean_profiles, shuffle_genes
from scdiff_data.measuring.scale import draw_halves, measure_error, rescale
from support.toy_counts import draw_cells


def test_halves_have_one_size_and_no_cell_in_common() -> None:
    cells = np.arange(21)[:, None]
    halves = list(draw_halves(cells))
    assert len(halves) == 5
    for first, second in halves:
        assert len(first) == len(second) == 10
        assert not set(first.ravel()) & set(second.ravel())
    assert not np.array_equal(halves[0][0], halves[1][0])


def test_a_cheat_is_0_a_replicate_is_1_and_a_mixture_of_both_lies_between() -> None:
    real, train = draw_cells(600, seed=2), draw_cells(600, seed=77)
    trained = TrainingCells.fit(train)
    replicates = list(compare_replicates(real, trained))
    cheats = {
        "genes_shuffled": shuffle_genes(train)[:300],
        "mean_profile": draw_mean_profiles(train)[:300],
    }
    baselines = {name: compare_cells(c, real[:300], trained) for name, c in cheats.items()}

    def place(sample: np.ndarray) -> dict[str, float | None]:
        return rescale_scores(compare_cells(sample, real[:300], trained), replicates, baselines)

    assert place(cheats["genes_shuffled"])["mmd2"] == pytest.approx(0)
    good, mixed = (
        place(np.concatenate([draw_cells(n, seed=3), cheats["genes_shuffled"][: 300 - n]]))
        for n in (300, 150)
    )
    for name in ("mmd2", "gene_correlation_agreement", "wasserstein2"):
        assert good[name] == pytest.approx(1, abs=0.15)
        assert 0.1 < (mixed[name] or 0) < (good[name] or 0)
    assert good["gene_mean_ratio"] is None  # a mean profile has the means
    assert "duplicates" not in good


def test_what_misses_on_both_sides_is_measured_from_its_ideal() -> None:
    assert measure_error("library_cv_ratio", 2.0) == pytest.approx(
        measure_error("library_cv_ratio", 0.5)
    )
    assert measure_error("forest_auc", 0.4) == pytest.approx(measure_error("forest_auc", 0.6))
    assert measure_error("mmd2", -0.001) == -0.001


def test_where_a_baseline_is_as_good_as_a_replicate_there_is_no_scale() -> None:
    assert rescale(0.3, [0.1, 0.2, 0.3, 0.2, 0.2], 0.35) is None
    assert rescale(0.3, [0.2] * 5, 0.2) is None
    assert rescale(0.3, [0.2] * 5, float("nan")) is None
    assert rescale(0.6, [0.2] * 5, 1.0) == pytest.approx(0.5)  # lower is better, or higher
    assert rescale(0.6, [1.0] * 5, 0.2) == pytest.approx(0.5)
