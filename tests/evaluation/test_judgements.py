"""A report's judgements: an oracle's probabilities hold, and given labels are taken as given."""

from collections.abc import Iterator
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scdiff_data.evaluation.judgements import find_label, measure_calibration, score_effects
from support.toys import CellBatch


class Oracle:
    """Predicts by the exact likelihood, made bolder by a power."""

    def __init__(self, mixture: Any, power: float = 1.0) -> None:
        self.mixture, self.power, self.device = mixture, power, torch.device("cpu")

    def predict_masked(self, batch: Any) -> Iterator[Any]:
        hidden = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.5
        for mask in (hidden, ~hidden):
            masked = batch.tokens.masked_fill(mask, self.mixture.mask_id)
            yield (self.power * self.mixture.denoise(masked)).softmax(-1), mask


def test_an_oracles_probabilities_hold_and_bold_ones_do_not(mixture: Any, make_data: Any) -> None:
    data = make_data(mixture.sample(1_100, seed=5), n_val=1_000)
    honest, bold = (
        measure_calibration(Oracle(mixture, power), data, "val", n_cells=1_000)["calibration"]
        for power in (1.0, 2.0)
    )
    for kind in ("zeros", "counts"):
        assert honest[kind]["ece"] < 0.015 < 0.04 < bold[kind]["ece"]
        assert list(honest[kind]["ece_of"]) == ["all"]
    # Every gene of every cell is asked once: by one mask or by its complement.
    few = measure_calibration(Oracle(mixture), data, "val", n_cells=32)["calibration"]["zeros"]
    assert sum(few["share"]) == pytest.approx(1)
    assert measure_calibration(object(), data, "val", n_cells=32) == {}


def make_cells(n: int, *, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(2, size=n)
    rate = np.random.default_rng(0).gamma(2, 2, (2, 30))
    return rng.poisson(rate[codes]), codes


def test_labels_that_were_asked_for_are_taken_and_others_guessed() -> None:
    train, real, own = (make_cells(120, seed=seed) for seed in (1, 2, 3))
    train_batch, real_batch = (
        CellBatch(torch.from_numpy(c), {"kind": torch.from_numpy(k)}) for c, k in (train, real)
    )
    names = ["b", "a"]  # the data's codes; a model may number them otherwise
    obs = pd.DataFrame({"kind": pd.Categorical([names[k] for k in own[1]])})
    obs.index = obs.index.astype(str)
    categories = {"one": ["x"], "kind": names}
    for given in (obs, obs[[]]):
        cells = anndata.AnnData(sparse.csr_matrix(own[0]), obs=given)
        effects = score_effects(cells, [real_batch], train_batch, categories)["effects"]
        assert effects["is_given"] == ("kind" in given)
        assert effects["pairs"][0]["labels"] == names
        assert effects["slope"] == pytest.approx(1, abs=0.15)
    assert find_label({"one": ["x"]}) is None
    assert find_label(categories) == "kind"
