"""The commands that users type, as they type them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from scdiff_data import HVGDataset
from scdiff_data.evaluation import describe_card, read_card
from support import forks
from support.cases import ROOT

SMALL = [  # what keeps a run short; the rest is as in `make train`
    "data.n_hvgs=32",
    "data.shard_size=300",
    "model.d_model=16",
    "callbacks.report.n_cells=16",
    "callbacks.report.steps=4",
]


BASELINES = ("marginal", "given_depth", "given_cell_type")


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run train.py in a folder of its own, so that data and runs go there."""
    return forks.run(ROOT / "train.py", *overrides, cwd=folder)


def run_dir_of(finished: subprocess.CompletedProcess[str]) -> Path:
    assert finished.returncode == 0, finished.stderr
    return Path(finished.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def first(workdir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "trainer.max_epochs=6"]
    return subprocess.run(
        command, cwd=workdir, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def first_run(first: subprocess.CompletedProcess[str]) -> Path:
    return run_dir_of(first)


def test_a_run_says_what_it_does_and_ends_with_its_scores(
    first: subprocess.CompletedProcess[str], first_run: Path
) -> None:
    head, *rows, path = first.stdout.splitlines()  # results alone
    assert head.split() == ["test", "cells,", "nats", "a", "gene", "tokens", "counts"]
    assert [row.split()[0] for row in rows] == ["model", *BASELINES]
    assert path == str(first_run)
    said = [line for line in first.stderr.splitlines() if ": " not in line[:12]]  # no progress
    assert said[0] == "loading Torch and Lightning"
    assert "split              569 train + 65 val + 66 test" in said
    assert len(said) < 45
    for noise in ("GPU available", "Tip", "Sanity", "Warning", "deprecated", "`Trainer", "INFO"):
        assert noise not in first.stderr
    assert "the plan:" in (first_run / "train.log").read_text()


def test_a_run_ends_with_its_folder_complete(first_run: Path) -> None:
    files = {"report.png", "generated.h5ad", "metrics.json", "config.yaml", "checkpoints/last.ckpt"}
    assert {name for name in files if (first_run / name).exists()} == files
    assert OmegaConf.load(first_run / "config.yaml").data.n_hvgs == 32
    cells = ad.read_h5ad(first_run / "generated.h5ad")
    assert cells.shape == (16, 32)
    data = json.loads(cells.uns["model_card"])["data"]
    assert data["source"] == {"source": "pbmc"}
    assert data["n_cells"] == {"train": 569, "val": 65, "test": 66}
    assert data["genes"]["n"] == 32
    card = read_card(first_run / "checkpoints" / "last.ckpt")
    assert card["data"] == data
    assert "learning_rate" in describe_card(card)


def test_the_model_learns_more_than_the_marginals(first_run: Path) -> None:
    metrics = json.loads((first_run / "metrics.json").read_text())
    assert metrics["val/loss"] < metrics["val/marginal"] - 0.05
    assert metrics["test/loss"] < metrics["test/marginal"] - 0.05


def test_a_run_goes_on_from_a_checkpoint(workdir: Path, first_run: Path) -> None:
    checkpoint = first_run / "checkpoints" / "last.ckpt"
    longer = run_dir_of(run(workdir, *SMALL, "trainer.max_epochs=8", f"ckpt_path={checkpoint}"))
    metrics = json.loads((longer / "metrics.json").read_text())
    assert metrics["epoch"] == 7
    curve = (longer / "logs" / "metrics.csv").read_text()
    assert "val/loss" in curve


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return self.path.touch, ()


def test_a_run_that_goes_on_runs_nothing_of_its_checkpoint(workdir: Path, first_run: Path) -> None:
    content = torch.load(first_run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(content | {"more": Bomb(workdir / "ran")}, workdir / "evil.ckpt")
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "ckpt_path=evil.ckpt"]
    finished = subprocess.run(
        command,
        cwd=workdir,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},  # of who does not say
    )
    assert finished.returncode != 0
    assert "Weights only load failed" in finished.stderr
    assert not (workdir / "ran").exists()


def test_an_experiment_and_another_tokenizer_run(workdir: Path) -> None:
    finished = run(
        workdir,
        *SMALL,
        "experiment=simulated_small",
        "data.cell_count=300",
        "data.source.n_experiments=4",
        "data.source.n_cells=250",
        "data.source.n_genes=600",
        "data/tokenizer=logbin",
        "trainer.max_epochs=1",
    )
    config = OmegaConf.load(run_dir_of(finished) / "config.yaml")
    assert config.data.source._target_ == "scdiff_data.SimulatedAtlas"


def test_a_model_trained_here_is_fine_tuned_on_any_h5ad_on_the_same_genes(
    workdir: Path, first_run: Path
) -> None:
    """Files of another lab: other cells, genes in another order and under symbols, some missing."""
    info = json.loads((workdir / "data/pbmc/hvg_info.json").read_text())
    archive = ad.read_h5ad(workdir / "data/pbmc/cells/PBMC02.h5ad")
    absent = info["hvg_names"][5:8]
    genes = [gene for gene in archive.var_names[::-1] if gene not in absent]
    (workdir / "others").mkdir()
    others = ad.AnnData(archive[:, genes].X.astype(np.float32))
    others.var_names = [f"ID{i:05d}" for i in range(len(genes))]
    others.var["gene_symbols"] = genes
    others.write_h5ad(workdir / "others" / "lab.h5ad")
    checkpoint = first_run / "checkpoints" / "last.ckpt"
    tuned = run_dir_of(
        run(
            workdir,
            "data=h5ad",
            "data.source.path=others",
            "data.data_dir=data/others",
            "data.genes=data/pbmc/hvg_info.json",
            "data.min_genes=null",
            "data.min_counts=null",
            "data.batch_size=16",
            "model=pretrained",
            f"model.checkpoint_path={checkpoint}",
            "callbacks.report.n_cells=16",
            "callbacks.report.steps=4",
            "trainer.max_epochs=2",
        )
    )
    cells = HVGDataset(workdir / "data/others")
    assert cells.gene_ids == info["hvg_names"]
    assert not cells[:].expression[:, 5:8].any()
    assert cells[:].expression[:, :5].any()
    metrics = json.loads((tuned / "metrics.json").read_text())
    assert metrics["test/loss"] < metrics["test/marginal"]
    generated = ad.read_h5ad(tuned / "generated.h5ad")
    assert list(generated.var_names) == info["hvg_names"]
    before, after = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (first_run, tuned)
    )
    head = "denoiser.head_bias.weight"
    assert 0 < (before[head] - after[head]).abs().max() < 1


def test_a_dry_run_says_what_would_be_done_and_does_none_of_it(tmp_path: Path) -> None:
    finished = run(tmp_path, *SMALL, "data.cell_count=250", "dry_run=true")
    assert finished.returncode == 0, finished.stderr
    assert "draw               250 cells of 3 experiments" in finished.stdout
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not (tmp_path / "data/pbmc/cells").exists()


def test_a_dry_run_of_too_many_cells_says_what_binds(tmp_path: Path) -> None:
    finished = run(tmp_path, *SMALL, "data.cell_count=701", "dry_run=true")
    assert "cell_count=701, but the 7 experiments" in finished.stdout


def test_prepare_only_stops_after_the_data(tmp_path: Path) -> None:
    finished = run(tmp_path, *SMALL, "prepare_only=true")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().splitlines()[-1] == "data/pbmc"
    assert (tmp_path / "data/pbmc/config.json").exists()
    assert not list(tmp_path.rglob("*.ckpt"))


def test_multirun_runs_every_choice(workdir: Path, first_run: Path) -> None:
    finished = run(
        workdir,
        *("--multirun", *SMALL, "trainer.max_epochs=1", "data/tokenizer=count,quantile"),
        "hydra.sweep.dir=sweep",
    )
    assert finished.returncode == 0, finished.stderr
    for job, target in enumerate(["CountTokens", "QuantileTokens"]):
        config = OmegaConf.load(workdir / "sweep" / str(job) / "config.yaml")
        assert config.data.tokenizer._target_ == f"scdiff_data.{target}"
        assert (workdir / "sweep" / str(job) / "report.png").exists()


def test_two_processes_train_one_model_in_one_folder(workdir: Path, first_run: Path) -> None:
    before = set((workdir / "runs").iterdir())
    prepared = ["data=prepared", "data.data_dir=data/pbmc", "data.batch_size=32"]
    settings = [*prepared, *SMALL[2:], "trainer=ddp_cpu", "trainer.max_epochs=1"]
    finished = run(workdir, *settings)
    folder = run_dir_of(finished)
    assert (folder / "report.png").exists()
    assert "parameters, on 2 x cpu" in finished.stderr
    assert finished.stderr.count("loading Torch and Lightning") == 1  # the first rank speaks
    assert set((workdir / "runs").iterdir()) - before == {folder}


@pytest.mark.soak
def test_multirun_in_two_processes_keeps_one_folder_a_job(workdir: Path, first_run: Path) -> None:
    before = set((workdir / "runs").iterdir())
    finished = run(
        workdir,
        *("--multirun", *SMALL, "trainer=ddp_cpu", "trainer.max_epochs=1"),
        "data/tokenizer=count,logbin",
    )
    last = run_dir_of(finished)
    assert set((workdir / "runs").iterdir()) - before == {last.parent}
    for job in ("0", "1"):
        assert "test/loss" in json.loads((last.parent / job / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.n_hvg=128", "n_hvg"),
        ("data.cell_count=0", "cell_count must be a whole number of at least 1, got 0"),
        ("trainer.devices=none", "none"),
        ("model.d_model=-1", "d_model"),
        ("data/tokenizer=rank", "RankTokens"),
        ("data.batch_size=600", "batch_size=600 exceeds a rank's share"),
    ],
)
def test_a_wrong_setting_fails_with_a_message_that_names_it(
    workdir: Path, first_run: Path, override: str, message: str
) -> None:
    finished = run(workdir, *SMALL, override)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
