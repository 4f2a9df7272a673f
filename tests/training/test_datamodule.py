"""The DataModule serves any module: batches, tokens, orders, and clear errors."""

import inspect
import logging
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from scdiff_data import (
    BinTokens,
    CountTokens,
    LogBinTokens,
    ManifestError,
    Pbmc,
    QuantileTokens,
    Recipe,
    ScRNADataModule,
    TokenBatch,
)
from scdiff_data.recipes import PrepareOptions
from scdiff_data.store.manifest import Manifest
from scdiff_data.training import Serving
from support.cases import PBMC_SETTINGS
from support.foreign import Foreign, trainer

PBMC = PBMC_SETTINGS | {"batch_size": 32}
CPU = torch.device("cpu")


def test_a_foreign_module_trains_and_tests(pbmc_dir: Path, tmp_path: Path) -> None:
    model, datamodule = Foreign(), ScRNADataModule(Pbmc(), pbmc_dir, **PBMC)
    before = model.layer.weight.detach().clone()
    run = trainer(tmp_path)
    run.fit(model, datamodule=datamodule)
    assert not torch.equal(model.layer.weight, before)
    assert run.callback_metrics["val"] > 0
    run.test(model, datamodule=datamodule, verbose=False)


def test_every_epoch_shows_the_cells_in_another_order(pbmc_dir: Path, tmp_path: Path) -> None:
    model = Foreign()
    trainer(tmp_path, max_epochs=2).fit(model, datamodule=ScRNADataModule(Pbmc(), pbmc_dir, **PBMC))
    half = len(model.seen) // 2
    first, second = (
        list(chain.from_iterable(model.seen[:half])),
        list(chain.from_iterable(model.seen[half:])),
    )
    assert len(set(first)) == len(first)
    assert first != second


@pytest.mark.parametrize("train_counts", [False, True])
@pytest.mark.parametrize("tokenizer", [LogBinTokens(), QuantileTokens(), CountTokens(300)])
def test_training_batches_are_tokens_and_carry_counts_if_asked(
    pbmc_dir: Path, tokenizer: BinTokens, *, train_counts: bool
) -> None:
    datamodule = ScRNADataModule(
        Pbmc(), pbmc_dir, **PBMC, tokenizer=tokenizer, train_counts=train_counts
    )
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    rows, batch = next(iter(loader.sampler)), next(iter(loader))
    assert batch[0].dtype is (
        torch.int16 if train_counts or len(tokenizer.edges) > 256 else torch.uint8
    )
    finished = datamodule.transfer_batch_to_device(batch, CPU, 0)
    counts = datamodule.train_dataset[rows].expression
    assert isinstance(finished, TokenBatch)
    assert finished.tokens.dtype is torch.int64
    assert torch.equal(finished.tokens, tokenizer.encode(counts))
    assert ("counts" in finished.metadata) == train_counts


def test_validation_batches_carry_tokens_and_counts(pbmc_dir: Path) -> None:
    tokenizer = LogBinTokens()
    datamodule = ScRNADataModule(Pbmc(), pbmc_dir, **PBMC, tokenizer=tokenizer)
    datamodule.setup("fit")
    counts = next(iter(datamodule.val_dataloader()))
    batch = datamodule.transfer_batch_to_device(counts, CPU, 0)
    assert isinstance(batch, TokenBatch)
    assert torch.equal(batch.tokens, tokenizer.encode(counts.expression))
    assert torch.equal(batch.metadata["counts"], counts.expression)
    assert tokenizer.log_prob(counts.expression).isfinite().all()


def test_an_encode_of_ones_own_is_never_passed_by(pbmc_dir: Path) -> None:
    class Capped(LogBinTokens):
        def encode(self, counts: torch.Tensor) -> torch.Tensor:
            return super().encode(counts).clamp(max=1)

    datamodule = ScRNADataModule(Pbmc(), pbmc_dir, **PBMC, tokenizer=Capped())
    datamodule.setup("fit")
    batch = next(iter(datamodule.train_dataloader()))
    batch = datamodule.transfer_batch_to_device(batch, CPU, 0)
    assert batch[0].max() == 1


def test_a_checkpoint_holds_plain_values_and_says_how_the_data_were_made(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    run = trainer(tmp_path)
    run.fit(Foreign(), datamodule=ScRNADataModule(Pbmc(), pbmc_dir, **PBMC))
    run.save_checkpoint(tmp_path / "run.ckpt")
    stored = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert stored["datamodule_hyper_parameters"]["n_hvgs"] == 64
    assert stored["datamodule_hyper_parameters"]["data_dir"] == str(pbmc_dir)


def test_setup_without_data_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        ScRNADataModule(Pbmc(), tmp_path, **PBMC).setup("fit")


def test_setup_on_data_of_other_settings_names_the_difference(pbmc_dir: Path) -> None:
    other = ScRNADataModule(Pbmc(), pbmc_dir, **(PBMC | {"n_hvgs": 32}))
    with pytest.raises(ManifestError, match=r"n_hvgs: 64 there, 32 here"):
        other.setup("fit")


def test_a_batch_larger_than_the_cells_is_an_error_before_any_step(pbmc_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=800 exceeds cell_count=600"):
        ScRNADataModule(Pbmc(), pbmc_dir, **(PBMC | {"cell_count": 600, "batch_size": 800}))
    large = ScRNADataModule(Pbmc(), pbmc_dir, **(PBMC | {"batch_size": 650}))
    with pytest.raises(ValueError, match=r"batch_size=650 exceeds a rank's share.*lower"):
        large.setup("fit")


def test_the_constructor_takes_everything_that_a_recipe_takes() -> None:
    parameters = inspect.signature(ScRNADataModule).parameters
    for field in inspect.signature(Recipe).parameters.values():
        assert field.name in parameters
        if isinstance(field.default, int | float | tuple | None):
            assert parameters[field.name].default == field.default, field.name
    how = {*inspect.signature(PrepareOptions).parameters} - {"replace"} | {"replace_data"}
    rest = parameters.keys() - inspect.signature(Recipe).parameters.keys() - how
    both = {"processed_url", "local_limit"}  # of data that are made, and of those that are opened
    assert rest == {"data_dir", *Serving.__annotations__} - both


def test_windows_and_balance_are_for_training_alone(pbmc_dir: Path) -> None:
    windows = {"window_size": 32, "run_size": 4}
    datamodule = ScRNADataModule(Pbmc(), pbmc_dir, **PBMC, **windows, balance="experiment_id")
    datamodule.setup("fit")
    drawn = [cell for _, m in datamodule.train_dataloader() for cell in m["cell_id"]]
    assert len(set(drawn)) < len(drawn)  # with replacement
    held_out = [cell for _, m in datamodule.val_dataloader() for cell in m["cell_id"]]
    assert held_out == datamodule.val_dataset[:].metadata["cell_id"].tolist()


def test_the_sizes_of_the_splits_are_said(pbmc_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="scdiff_data"):
        ScRNADataModule(Pbmc(), pbmc_dir, **PBMC).setup("fit")
    sizes = Manifest.read(pbmc_dir).n_cells
    wanted = ", ".join(f"{n} {name} of 7" for name, n in sizes.items())
    assert f"cells: {wanted} experiments" in caplog.text


def test_setup_compares_as_much_as_verify_says(data_dir: Path) -> None:
    def set_up(verify: Any) -> None:
        settings = PBMC_SETTINGS | {"batch_size": 32, "verify": verify}
        ScRNADataModule(Pbmc(), data_dir, **settings).setup("fit")

    with h5py.File(data_dir / "processed" / "batch_0001.h5", "r+") as file:
        file["expression"][5, 5] += 1
    set_up("headers")
    with pytest.raises(ManifestError, match=r"batch_0001.h5 has another checksum"):
        set_up("full")
    with pytest.raises(ValueError, match="verify must be headers or full, got 'all'"):
        set_up("all")
