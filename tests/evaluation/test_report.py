"""A run ends with its report."""

import json
from pathlib import Path
from typing import Any

import anndata
import pytest

from scdiff_data.callbacks import WeightEMA
from scdiff_data.evaluation import RunReport


def test_a_run_ends_with_picture_cells_and_metrics(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any, caplog: Any
) -> None:
    caplog.set_level("INFO", logger="scdiff_data")
    data = make_data(mixture.sample(178, seed=1), n_val=50)
    # The report stands first: it must see the averaged weights all the same.
    callbacks = [RunReport(tmp_path / "run", n_cells=30, steps=4), WeightEMA(0.9)]
    model = small_model()
    trainer = make_trainer(max_epochs=2, callbacks=callbacks)
    trainer.fit(model, datamodule=data)

    names = ["generated.h5ad", "metrics.json", "report.png"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    cells = anndata.read_h5ad(tmp_path / "run" / "generated.h5ad")
    assert cells.shape == (30, 24)
    assert (cells.X != model.generate(30, steps=4).X).nnz == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics)[:4] == ["epoch", "step", "train/loss", "val/loss"]
    assert metrics["step"] == 8
    assert metrics["val/marginal"] == pytest.approx(metrics["val/loss"], abs=0.2)
    assert metrics["generated"].keys() == metrics["real"].keys()
    assert metrics["scale"].keys() < metrics["real"].keys()
    assert 0 <= metrics["calibration"]["zeros"]["ece"] < 0.3
    assert f"validation loss {metrics['val/loss']:.4f}" in caplog.text
    assert f"per-gene marginals {metrics['val/marginal']:.4f}" in caplog.text

    untested = (tmp_path / "run" / "report.png").read_bytes()
    trainer.test(model, datamodule=data, verbose=False)
    tested = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert tested.items() >= metrics.items()
    assert tested["test/count_nll"] == pytest.approx(tested["val/count_nll"])  # of the same cells
    assert tested["test_baselines"] == metrics["baselines"]
    assert (tmp_path / "run" / "report.png").read_bytes() != untested


def test_loss_curves_go_on_after_a_resume(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(178, seed=1), n_val=50)
    report = RunReport(tmp_path, n_cells=5)  # too few to be compared
    trainer = make_trainer(max_epochs=2, callbacks=[report])
    trainer.fit(small_model(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = RunReport(tmp_path, n_cells=5)
    make_trainer(max_epochs=3, callbacks=[resumed]).fit(
        small_model(), datamodule=data, ckpt_path=tmp_path / "last.ckpt"
    )
    curves = resumed.state_dict()["curves"]
    assert curves["step"] == [4, 8, 12]
    assert {len(curve) for curve in curves.values()} == {3}
    assert curves["val/loss"][:2] == report.state_dict()["curves"]["val/loss"]


def test_few_validation_cells_cost_the_comparison_not_the_run(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any, caplog: Any
) -> None:
    data = make_data(mixture.sample(147, seed=1), n_val=19)
    trainer = make_trainer(max_epochs=1, callbacks=[RunReport(tmp_path, n_cells=30, steps=2)])
    trainer.fit(small_model(), datamodule=data)
    assert "19 validation cells of n_cells=30 are too few" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 4
