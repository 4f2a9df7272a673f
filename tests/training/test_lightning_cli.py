"""LightningCLI: every setting from YAML, and a model that learns its sizes from the data."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

from scdiff_data import (
    H5adFolder,
    LogBinTokens,
    Pbmc,
    ScRNADataModule,
    Source,
    Tokenizer,
)
from support.cases import PBMC_SETTINGS
from support.foreign import Seeing

QUIET = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "limit_train_batches": 2,
    "limit_val_batches": 0,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Sized(Seeing):
    """A module that must be told how large the data are."""

    def __init__(self, n_genes: int, n_types: int, n_hidden: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(n_genes, n_types)


class Linked(LightningCLI):
    """A command in which the data tell it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.n_genes", "model.n_genes", apply_on="instantiate")
        parser.link_arguments(
            "data.categories",
            "model.n_types",
            lambda categories: len(categories["cell_type"]),
            apply_on="instantiate",
        )


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command with settings as YAML has them."""
    # Lightning 2.6 calls functions that jsonargparse has given other names.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

    def run(
        *arguments: str, data: dict[str, Any], model: type = Sized, run: bool = False
    ) -> LightningCLI:
        settings = {
            "seed_everything": 1,
            "trainer": QUIET | {"default_root_dir": str(tmp_path)},
            "data": data,
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
        subcommand = ["fit"] if run else []
        file = ["-c", str(tmp_path / "run.yaml")]
        monkeypatch.setattr(sys, "argv", ["run.py", *subcommand, *file, *arguments])
        command = Linked if model is Sized else LightningCLI
        return command(model, ScRNADataModule, run=run)

    return run


def pbmc(folder: Path) -> dict[str, Any]:
    plain = PBMC_SETTINGS | {"labels": [*PBMC_SETTINGS["labels"]], "batch_size": 32}
    return plain | {"source": {"class_path": "scdiff_data.Pbmc"}, "data_dir": str(folder)}


def test_a_model_is_made_for_the_data_and_its_checkpoint_opens_without_yaml(
    pbmc_dir: Path, tmp_path: Path, start: Any
) -> None:
    cli = start(data=pbmc(pbmc_dir), run=True)
    assert len(cli.model.seen["train"]) == 64
    cli.trainer.save_checkpoint(tmp_path / "run.ckpt")
    model = Sized.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert (model.hparams.n_genes, model.hparams.n_types) == (64, 10)
    cells = ScRNADataModule.load_from_checkpoint(
        tmp_path / "run.ckpt", source=Pbmc(), weights_only=True
    )
    assert cells.hparams == ScRNADataModule(**pbmc(pbmc_dir) | {"source": Pbmc()}).hparams


def test_what_print_config_says_is_every_setting_and_gives_the_same_data(
    pbmc_dir: Path, tmp_path: Path, start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        start("--print_config", data=pbmc(pbmc_dir))
    printed = yaml.safe_load(capsys.readouterr().out)["data"]
    first, again = (start(data=data) for data in (pbmc(pbmc_dir), printed))
    assert printed.keys() - {"source", "tokenizer", "executor"} == first.datamodule.hparams.keys()
    assert again.datamodule.hparams == first.datamodule.hparams
    with pytest.raises(SystemExit, match="0"):
        start("--help", data=pbmc(pbmc_dir), run=True)
    assert "--data.fallback_min_genes" in capsys.readouterr().out


def test_settings_of_every_kind_arrive_as_they_would_in_python(tmp_path: Path, start: Any) -> None:
    given = {
        "filters": {"tissue": ["lung", "blood"], "n_cells": {"min": 1000}, "feature": "Gene"},
        "exclude": {"tech_10x": None},
        "split": {"by": "tissue", "val": ["lung"]},
        "labels": {"cell_type": ["B", "T"], "tissue": None},
        "mito_genes": ["MT-ND1", "MT-CO1"],
        "genes": ["CD3E", "LYZ"],
        "max_failed_fraction": 0.5,
        "shuffle": "global",
    }
    source = {"class_path": "scdiff_data.H5adFolder", "init_args": {"path": "a*.h5ad"}}
    tokenizer = {"class_path": "scdiff_data.LogBinTokens", "init_args": {"n_tokens": 9}}
    data = given | {"source": source, "tokenizer": tokenizer, "data_dir": str(tmp_path)}
    cells = start(data=data, model=BoringModel).datamodule
    expected = ScRNADataModule(H5adFolder("a*.h5ad"), tmp_path, **given)
    assert cells.recipe == expected.recipe
    assert isinstance(cells.tokenizer, LogBinTokens)
    assert cells.tokenizer.n_tokens == 9
    with pytest.raises(SystemExit, match="2"):
        start(data=data | {"shuffle": "windows"}, model=BoringModel)


def test_every_source_and_tokenizer_can_be_named() -> None:
    parser = LightningArgumentParser()
    parser.add_argument("--source", type=Source)
    parser.add_argument("--tokenizer", type=Tokenizer)
    needed = {"H5adCollection": {"name": "a", "url": "gs://a"}, "H5adFolder": {"path": "a"}}
    for name in ("Census", "H5adCollection", "H5adFolder", "Pbmc", "ScBaseCount", "Tahoe100M"):
        spec = {"class_path": f"scdiff_data.{name}", "init_args": needed.get(name, {})}
        assert parser.parse_object({"source": spec}).source.class_path == f"scdiff_data.{name}"
    for name in ("CountTokens", "LogBinTokens", "QuantileTokens", "RankTokens"):
        assert parser.parse_object({"tokenizer": f"scdiff_data.{name}"}).tokenizer


def test_where_nothing_is_prepared_the_error_says_what_to_call(tmp_path: Path, start: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"call .*datamodule\.prepare_data\(\)"):
        start(data=pbmc(tmp_path / "data"), run=True)
