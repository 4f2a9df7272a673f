"""A checkpoint is scored from the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import pytest

from scdiff_data import LogBinTokens, Pbmc, ScRNADataModule
from scdiff_data.diffusion import MaskedDiffusion
from support import forks
from support.cases import PBMC_SETTINGS, ROOT

EVALUATE = ROOT / "evaluate.py"


@pytest.fixture(scope="module")
def checkpoint(pbmc_dir: Path, tmp_path_factory: Any, make_trainer: Any) -> Path:
    """Of a model of 64 genes, beside its data."""
    folder: Path = tmp_path_factory.mktemp("evaluate")
    shutil.copytree(pbmc_dir, folder / "data")
    datamodule = ScRNADataModule(
        Pbmc(), folder / "data", batch_size=32, tokenizer=LogBinTokens(), **PBMC_SETTINGS
    )
    model = MaskedDiffusion(d_model=16, n_layers=1, n_heads=2, patch_size=8, learning_rate=1e-2)
    trainer = make_trainer(max_epochs=20, limit_val_batches=0)
    trainer.fit(model, datamodule=datamodule)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_checkpoint_is_scored_on_the_test_cells(checkpoint: Path) -> None:
    data = [f"data.data_dir={checkpoint.parent / 'data'}", "data.n_hvgs=64", "data.shard_size=300"]
    data += ["data.min_cells_pct=0.1"]
    command = [sys.executable, str(EVALUATE), f"ckpt_path={checkpoint}", *data]
    done = subprocess.run(
        [*command, "n_cells=80", "steps=16"],
        cwd=checkpoint.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run_dir = checkpoint.parent / done.stdout.splitlines()[-1]
    assert {"generated.h5ad", "metrics.json", "report.png"} <= {p.name for p in run_dir.iterdir()}
    assert anndata.read_h5ad(run_dir / "generated.h5ad").shape == (80, 64)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert set(metrics["baselines"]) == {"marginal", "given_depth", "given_cell_type"}
    assert metrics["test/count_nll"] < metrics["baselines"]["marginal"]
    samples = [metrics[name] for name in ("generated", "real", "genes_shuffled", "mean_profile")]
    assert len({tuple(sample) for sample in samples}) == 1
    generated, _, shuffled, flat = samples
    assert generated["gene_correlation_agreement"] > shuffled["gene_correlation_agreement"] + 0.2
    assert generated["mmd2"] < flat["mmd2"]
    assert metrics["scale"]["gene_correlation_agreement"] > 0.3
    assert metrics["effects"]["label"] == "cell_type"
    assert not metrics["effects"]["is_given"]  # the model knows no types: all are guessed alike
    assert metrics["effects"]["slope"] > 0.2
    assert 0 < metrics["calibration"]["zeros"]["ece"] < 0.1
    for line in (
        "effects between cell_type",
        "calibration error",
        "scale: 0",
        "given_cell_type",
        "genes_shuffled",
        "nearest_neighbour_accuracy",
    ):
        assert line in done.stdout


def test_other_data_than_the_models_are_refused(checkpoint: Path) -> None:
    done = forks.run(
        EVALUATE,
        f"ckpt_path={checkpoint}",
        f"data.data_dir={checkpoint.parent / 'other'}",
        "data.n_hvgs=32",
        cwd=checkpoint.parent,
    )
    assert done.returncode != 0
    assert "the model and the data differ in gene_ids" in done.stderr


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    done = forks.run(EVALUATE, "ckpt_path=nothing.ckpt", cwd=tmp_path)
    assert done.returncode != 0
    assert "nothing.ckpt" in done.stderr.splitlines()[-1] + done.stderr
