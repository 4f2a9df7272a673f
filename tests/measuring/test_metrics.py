"""Sample metrics know good cells from bad ones."""

from typing import Any

import numpy as np
import pytest

from scdiff_data.measuring.metrics import (
    compare_cells,
    draw_mean_profiles,
    measure_mmd2,
    shuffle_genes,
)
from support.toy_counts import draw_cells

TRAIN = 77
IDEAL = {
    "zero_fraction_difference": 0.0,
    "wasserstein_per_gene": 0.0,
    "mmd2": 0.0,
    "nearest_neighbour_accuracy": 0.5,
    "forest_auc": 0.5,
    "duplicates": 0.0,
}


def test_real_cells_read_as_ideal() -> None:
    scores = compare_cells(*(draw_cells(1_500, seed=s) for s in (1, 2, TRAIN)))
    distance = scores.pop("wasserstein2")
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0) | IDEAL, abs=0.05)
    assert abs(scores["mmd2"]) < 0.001
    # A sample of finite size is never at distance 0: near that of half as many cells.
    half = compare_cells(*(draw_cells(750, seed=s) for s in (1, 2, TRAIN)))["wasserstein2"]
    assert 0 < distance < half


@pytest.mark.parametrize("cheat", [shuffle_genes, draw_mean_profiles])
def test_cheats_are_found_out(cheat: Any) -> None:
    real, train = draw_cells(800, seed=2), draw_cells(800, seed=TRAIN)
    honest = compare_cells(draw_cells(800, seed=1), real, train)
    scores = compare_cells(cheat(draw_cells(800, seed=1)), real, train)
    assert scores["gene_mean_ratio"] == pytest.approx(1, abs=0.1)
    assert scores["gene_correlation_agreement"] < 0.6
    assert scores["mmd2"] > 0.01 > honest["mmd2"]
    assert scores["nearest_neighbour_accuracy"] > honest["nearest_neighbour_accuracy"] + 0.05
    assert scores["forest_auc"] > 0.8 > honest["forest_auc"]
    assert scores["wasserstein2"] > 1.05 * honest["wasserstein2"]


def test_shuffled_genes_lose_the_library_and_mean_profiles_keep_it() -> None:
    real, train = draw_cells(800, seed=2), draw_cells(800, seed=TRAIN)
    shuffled = compare_cells(shuffle_genes(train), real, train)
    assert shuffled["library_cv_ratio"] < 0.8
    assert abs(shuffled["gene_correlation_agreement"]) < 0.2
    assert shuffled["gene_variance_ratio"] == pytest.approx(1, abs=0.1)
    flat = compare_cells(draw_mean_profiles(train), real, train)
    assert flat["library_cv_ratio"] == pytest.approx(1, abs=0.1)
    assert flat["gene_variance_ratio"] < 0.95


def test_training_cells_given_out_as_new_ones_are_counted() -> None:
    train = draw_cells(200, seed=TRAIN)
    sample = np.concatenate([train[:50], draw_cells(150, seed=3)])
    assert compare_cells(sample, draw_cells(200, seed=2), train)["duplicates"] == 0.25


def test_mmd_is_unbiased() -> None:
    draws = [np.log1p(draw_cells(20, seed=seed)) for seed in range(400)]
    values = [measure_mmd2(*pair) for pair in zip(draws[::2], draws[1::2], strict=True)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


def test_too_few_cells_are_refused() -> None:
    cells = draw_cells(12, seed=0)
    with pytest.raises(ValueError, match="at least 10 cells, got 12, 9 and 12"):
        compare_cells(cells, cells[:9], cells)
