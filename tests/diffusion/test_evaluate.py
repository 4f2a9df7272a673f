"""Sample metrics know good cells from bad ones, and a run ends with its report."""

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from numpy.typing import NDArray

from scdiff_data.diffusion import RunReport, WeightEMA, compare_cells


def draw_cells(n_cells: int, *, seed: int) -> NDArray[np.int64]:
    """Counts with cell-to-cell differences in depth and in two programs of genes."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(0).gamma(0.5, 2.0, (2, 40))
    mixed = rng.beta(0.5, 0.5, (n_cells, 1))
    depth = rng.lognormal(0, 0.4, (n_cells, 1))
    return rng.poisson(depth * (mixed * profile[0] + (1 - mixed) * profile[1]))


def test_real_cells_read_as_ideal() -> None:
    scores = compare_cells(draw_cells(2_000, seed=1), draw_cells(2_000, seed=2))
    ideal = dict.fromkeys(scores, 1.0)
    ideal |= dict.fromkeys(["zero_fraction_difference", "wasserstein_per_gene", "mmd2"], 0.0)
    assert scores == pytest.approx(ideal, abs=0.05)
    assert abs(scores["mmd2"]) < 0.001


def test_cells_with_genes_shuffled_independently_are_found_out() -> None:
    real = draw_cells(1_000, seed=2)
    shuffled = np.random.default_rng(0).permuted(draw_cells(1_000, seed=1), axis=0)
    scores = compare_cells(shuffled, real)
    assert scores["gene_mean_ratio"] == pytest.approx(1, abs=0.1)
    assert scores["library_cv_ratio"] < 0.8
    assert abs(scores["gene_correlation_agreement"]) < 0.2
    assert scores["mmd2"] > 0.01


def test_mmd_is_unbiased() -> None:
    values = [
        compare_cells(draw_cells(20, seed=2 * i), draw_cells(20, seed=2 * i + 1))["mmd2"]
        for i in range(100)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / 10


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 cells, got 10 and 1"):
        compare_cells(draw_cells(10, seed=0), draw_cells(1, seed=0))


def test_a_run_ends_with_picture_cells_and_metrics(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any, caplog: Any
) -> None:
    caplog.set_level("INFO", logger="scdiff_data")
    data = make_data(mixture.sample(178, seed=1), n_val=50)
    # The report stands first: it must see the averaged weights all the same.
    callbacks = [RunReport(tmp_path / "run", n_cells=30, n_steps=4), WeightEMA(0.9)]
    model = small_model()
    make_trainer(max_epochs=2, callbacks=callbacks).fit(model, datamodule=data)

    names = ["generated.h5ad", "metrics.json", "report.png"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    cells = anndata.read_h5ad(tmp_path / "run" / "generated.h5ad")
    assert cells.shape == (30, 24)
    assert (cells.X != model.generate(30, n_steps=4).X).nnz == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics)[:4] == ["epoch", "step", "train/loss", "val/loss"]
    assert metrics["step"] == 8
    assert metrics["val/marginal"] == pytest.approx(metrics["val/loss"], abs=0.2)
    assert metrics["generated"].keys() == metrics["real"].keys()
    assert f"validation loss {metrics['val/loss']:.4f}" in caplog.text
    assert f"per-gene marginals {metrics['val/marginal']:.4f}" in caplog.text


def test_loss_curves_go_on_after_a_resume(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(178, seed=1), n_val=50)
    report = RunReport(tmp_path, n_cells=10, n_steps=2)
    trainer = make_trainer(max_epochs=2, callbacks=[report])
    trainer.fit(small_model(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = RunReport(tmp_path, n_cells=10, n_steps=2)
    make_trainer(max_epochs=3, callbacks=[resumed]).fit(
        small_model(), datamodule=data, ckpt_path=tmp_path / "last.ckpt"
    )
    curves = resumed.state_dict()["curves"]
    assert curves["step"] == [4, 8, 12]
    assert {len(curve) for curve in curves.values()} == {3}
    assert curves["val/loss"][:2] == report.state_dict()["curves"]["val/loss"]
