"""A DataModule in the hands of others: a Trainer's features, callbacks, settings of any type."""

import pickle
from operator import attrgetter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import CombinedLoader
from omegaconf import OmegaConf

from scdiff_data import (
    HVGDataset,
    Pbmc,
    ResumableLoader,
    ScRNADataModule,
    create_dataloader,
    create_hvg_dataloader,
)
from support.cases import PBMC_SETTINGS
from support.foreign import Seeing
from support.trainers import quiet_trainer

PBMC = PBMC_SETTINGS | {"batch_size": 32}


def make(folder: Path, **changes: Any) -> ScRNADataModule:
    return ScRNADataModule(Pbmc(), folder, **(PBMC | changes))


class Save(L.Callback):
    """Saves a checkpoint after some steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step in (3, 5, 20):
            trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_bare_loader_predicts_every_cell_once(
    pbmc_dir: Path, split: str, num_workers: int
) -> None:
    model = Seeing()
    loader = create_hvg_dataloader(pbmc_dir, 32, split=split, num_workers=num_workers)
    quiet_trainer().predict(model, dataloaders=loader)
    cells = HVGDataset(pbmc_dir, split=split).read_ids().tolist()
    assert sorted(model.seen["predict"]) == sorted(cells)
    if split != "train":
        assert model.seen["predict"] == cells


def test_loaders_of_a_hook_predict_whatever_way_they_are_made(pbmc_dir: Path) -> None:
    class Hooked(Seeing):
        def predict_dataloader(self) -> Any:
            cells = HVGDataset(pbmc_dir, split="val")
            own = create_hvg_dataloader(pbmc_dir, 32, split="val").own_sampler
            return [
                ResumableLoader(cells, own),
                ResumableLoader(dataset=cells, sampler=own),
                make(pbmc_dir).val_dataloader(),
            ]

        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            return super().predict_step(batch, batch_idx)

    model = Hooked()
    quiet_trainer().predict(model)
    assert model.seen["predict"] == 3 * HVGDataset(pbmc_dir, split="val").read_ids().tolist()


def test_predicting_all_genes_works_too(pbmc_dir: Path) -> None:
    class AllGenes(Seeing):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return batch[0].sum(1)

    loader = create_dataloader(pbmc_dir, 32, split="test")
    predicted = torch.cat(quiet_trainer().predict(AllGenes(), dataloaders=loader))
    assert len(predicted) == len(HVGDataset(pbmc_dir, split="test"))


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize(("overfit_batches", "n_batches"), [(2, 2), (0.34, 5)])
@pytest.mark.parametrize("balance", [None, "cell_type"])
def test_overfitting_shows_the_first_cells_of_the_rows_again_and_again(
    pbmc_dir: Path, overfit_batches: float, n_batches: int, balance: str | None
) -> None:
    first = HVGDataset(pbmc_dir, split="train").read_ids()[: 32 * n_batches].tolist()
    for data in (
        {"datamodule": make(pbmc_dir, balance=balance)},
        {"train_dataloaders": create_hvg_dataloader(pbmc_dir, 32, balance=balance)},
    ):
        model = Seeing()
        quiet_trainer(max_epochs=3, overfit_batches=overfit_batches).fit(model, **data)
        assert model.seen["train"] == 3 * first


class Early(Seeing):
    """A module whose optimizer needs the number of steps, and so makes the loaders early."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches
        return super().configure_optimizers()


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize("kind", [Seeing, Early])
def test_overfitting_goes_on_from_the_middle_of_an_epoch(
    pbmc_dir: Path, tmp_path: Path, kind: type[Seeing]
) -> None:
    def fit(folder: Path, **settings: Any) -> list[str]:
        model = kind()
        quiet = {"max_epochs": 2, "overfit_batches": 4}
        trainer = quiet_trainer(**quiet, callbacks=[Save(folder)])
        trainer.fit(model, datamodule=make(pbmc_dir), **settings)
        return model.seen["train"]

    whole = fit(tmp_path / "whole")
    assert fit(tmp_path / "on", ckpt_path=tmp_path / "whole" / "step=3.ckpt") == whole[3 * 32 :]


class Peek(L.Callback):
    """Looks at training cells whenever it may."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._look(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: Any) -> None:
        assert len(trainer.datamodule.train_dataloader())
        next(iter(trainer.datamodule.train_dataloader()))


@pytest.mark.parametrize("reload", [0, 1])
def test_loaders_that_a_callback_takes_do_not_move_the_bookmark(
    pbmc_dir: Path, tmp_path: Path, reload: int
) -> None:
    def fit(folder: Path, **settings: Any) -> list[str]:
        model = Seeing()
        trainer = quiet_trainer(
            max_epochs=2,
            callbacks=[Peek(), Save(folder)],
            reload_dataloaders_every_n_epochs=reload,
        )
        trainer.fit(model, datamodule=make(pbmc_dir), **settings)
        return model.seen["train"]

    whole = fit(tmp_path / "whole")
    for step in (5, 20):
        resumed = fit(tmp_path / f"{step}", ckpt_path=tmp_path / "whole" / f"step={step}.ckpt")
        assert resumed == whole[step * 32 :]


@pytest.mark.parametrize("kind", [Seeing, Early])
def test_a_second_loader_that_is_trained_on_keeps_its_own_place(
    pbmc_dir: Path, tmp_path: Path, kind: Any
) -> None:
    class Two(ScRNADataModule):
        def train_dataloader(self) -> Any:
            other = create_hvg_dataloader(pbmc_dir, 2, split="test")
            return CombinedLoader([other, super().train_dataloader()], "min_size")

    class Both(kind):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self._see("val", batch[0])
            return super().training_step(batch[1], batch_idx)

    def fit(folder: Path, **settings: Any) -> dict[str, list[str]]:
        model = Both()
        quiet = {"max_epochs": 1, "limit_val_batches": 0}
        trainer = quiet_trainer(**quiet, callbacks=[Save(folder)])
        trainer.fit(model, datamodule=Two(Pbmc(), pbmc_dir, **PBMC), **settings)
        return model.seen

    whole = fit(tmp_path / "whole")
    resumed = fit(tmp_path / "on", ckpt_path=tmp_path / "whole" / "step=5.ckpt")
    assert resumed["train"] == whole["train"][5 * 32 :]
    assert resumed["val"] == whole["val"][5 * 2 :]


def test_a_prepared_directory_is_opened_when_first_asked_for(pbmc_dir: Path) -> None:
    assert make(pbmc_dir).n_genes == len(make(pbmc_dir).gene_ids) == 64
    assert make(pbmc_dir).categories.keys() == {"cell_type"}
    for loader in (
        make(pbmc_dir).train_dataloader(),
        make(pbmc_dir).val_dataloader(),
        make(pbmc_dir).predict_dataloader(),
    ):
        assert next(iter(loader))[0].shape == (32, 64)
    assert make(pbmc_dir).state_dict()["progress"] is None


def test_a_subclass_keeps_arguments_of_its_own(pbmc_dir: Path) -> None:
    class Own(ScRNADataModule):
        def __init__(self, donor: str, **settings: Any) -> None:
            super().__init__(Pbmc(), **settings)

    cells = Own("d1", data_dir=pbmc_dir, **PBMC)
    assert cells.hparams["donor"] == "d1"
    assert cells.hparams["data_dir"] == str(pbmc_dir)


def test_it_can_be_pickled_at_any_time(pbmc_dir: Path) -> None:
    cells = make(pbmc_dir)
    for _ in range(2):
        other = pickle.loads(pickle.dumps(cells))
        first, second = (next(iter(one.train_dataloader()))[0] for one in (cells, other))
        assert torch.equal(first, second)


def test_what_is_printed_says_what_is_in_it(pbmc_dir: Path) -> None:
    cells = make(pbmc_dir)
    assert repr(cells) == f"ScRNADataModule(Pbmc(), {str(pbmc_dir)!r}: not opened)"
    loader = cells.val_dataloader()
    assert "569 train of 7, 65 val of 7" in repr(cells)
    assert repr(loader.dataset) == (
        f"HVGDataset(65 val cells x 64 genes, labels ['cell_type', 'n_counts'], {str(pbmc_dir)!r})"
    )
    assert "65 cells, batches of 32, in order, seed 0, epoch 0, rank 0 of 1" in repr(loader)
    assert "700 of all cells x 765 genes" in repr(create_dataloader(pbmc_dir, 8, split=None))


@pytest.mark.parametrize("name", ["categories", "gene_ids", "n_genes", "train_dataset"])
def test_before_anything_is_prepared_the_error_says_what_to_call(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"call .*datamodule\.prepare_data\(\)"):
        attrgetter(name)(make(tmp_path))


def test_testing_alone_takes_batches_larger_than_the_training_cells(pbmc_dir: Path) -> None:
    model = Seeing()
    quiet_trainer().validate(model, datamodule=make(pbmc_dir, batch_size=600), verbose=False)
    assert model.seen["val"] == HVGDataset(pbmc_dir, split="val").read_ids().tolist()


@pytest.mark.parametrize(
    "settings",
    [
        dict(OmegaConf.create({"split": {"by": "cell"}, "labels": ["cell_type", "n_counts"]})),
        {"split": OmegaConf.create({"by": "cell"})},
        {"batch_size": np.int64(32), "min_cells_pct": np.float64(0.1), "n_hvgs": np.int32(64)},
        {"labels": np.array(["cell_type", "n_counts"]), "seed": np.uint8(42)},
    ],
    ids=["omegaconf", "a node", "numbers", "arrays"],
)
def test_settings_of_any_type_are_plain_in_checkpoints(
    pbmc_dir: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0)
    trainer.fit(Seeing(), datamodule=make(pbmc_dir, **settings))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    stored = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert stored["datamodule_hyper_parameters"]["batch_size"] == 32
    opened = ScRNADataModule.load_from_checkpoint(
        tmp_path / "run.ckpt", source=Pbmc(), weights_only=True
    )
    assert opened.n_genes == 64


def test_a_value_is_logged_by_the_number_of_cells_without_a_warning(pbmc_dir: Path) -> None:
    class Logging(Seeing):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("mean", batch[0].float().mean())

    cells, trainer = make(pbmc_dir), quiet_trainer()
    found = trainer.validate(Logging(), datamodule=cells, verbose=False)  # warnings are errors
    expected = cells.val_dataset[:].expression.float().mean()
    assert found[0]["mean"] == pytest.approx(float(expected), rel=1e-5)


def test_a_strategy_for_gpus_alone_is_refused_on_cpus() -> None:
    with pytest.raises(ValueError, match="`fsdp` requires a GPU"):
        L.Trainer(accelerator="cpu", strategy=FSDPStrategy(), logger=False)
