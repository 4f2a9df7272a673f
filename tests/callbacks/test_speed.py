"""Speed is shown while a model trains."""

import time
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from scdiff_data import Pbmc, ResumableLoader, ScRNADataModule, create_hvg_dataloader
from scdiff_data.callbacks import Speed, speed
from support.cases import PBMC_SETTINGS
from support.foreign import Foreign


class Clock(Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def test_cells_a_second_stand_in_the_progress_bar(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data, clock = make_data(mixture.sample(1_000, seed=1), n_val=40), Clock()
    trainer = make_trainer(
        max_epochs=1,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        limit_val_batches=0,
        callbacks=[clock, Speed(n_steps=20)],
    )
    model = small_model()
    trainer.fit(model, datamodule=data)
    shown = trainer.progress_bar_metrics
    # The last window: 19 steps of 32 cells between its first and last moment.
    taken = clock.ends[-1] - clock.ends[-20]
    assert shown["cells/s"] == pytest.approx(19 * 32 / taken, rel=0.5)
    assert "mfu" not in shown  # a CPU's peak is not known
    assert trainer.logged_metrics["train/device/flops_per_sec"] > 0
    assert model.flops_per_batch > 0


class Counted(Foreign):
    """A module that says what a step costs, as Lightning's monitor wants it."""

    flops_per_batch = 1


class Sleeper(Counted):
    """A module whose steps take a while."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)


class SlowDataModule(ScRNADataModule):
    """Batches that take a while."""

    def train_dataloader(self) -> ResumableLoader:
        loader = super().train_dataloader()
        gather = type(loader.dataset).__getitem__

        class Slow(type(loader.dataset)):  # type: ignore[misc]
            def __getitem__(self, rows: Any) -> Any:
                time.sleep(0.05)
                return gather(self, rows)

        loader.dataset.__class__ = Slow
        return loader


@pytest.mark.parametrize(
    ("data_kind", "module", "low", "high"),
    [
        pytest.param(SlowDataModule, Counted, 0.3, 1.0, id="slow-loader"),
        pytest.param(ScRNADataModule, Sleeper, 0.0, 0.3, id="slow-step"),
    ],
)
def test_the_share_of_time_that_batches_were_waited_for_is_shown(
    pbmc_dir: Path, tmp_path: Path, data_kind: Any, module: Any, low: float, high: float
) -> None:
    data = data_kind(Pbmc(), pbmc_dir, **PBMC_SETTINGS | {"batch_size": 32})
    run = fit_with_speed(data, module(), tmp_path)
    assert low < run.progress_bar_metrics["waited"] < high
    assert "train/waited" in run.logged_metrics


class Named(ScRNADataModule):
    """Batches by name, as scvi-tools takes them."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> dict[str, Any]:
        return {"X": batch.expression, "cells": batch.metadata}


class OfNamed(Counted):
    """A module that takes these."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step((batch["X"], batch["cells"]), batch_idx)


def test_batches_may_be_of_any_kind(pbmc_dir: Path, tmp_path: Path) -> None:
    data = Named(Pbmc(), pbmc_dir, **PBMC_SETTINGS | {"batch_size": 32})
    run = fit_with_speed(data, OfNamed(), tmp_path)
    assert run.progress_bar_metrics["cells/s"] > 0


def fit_with_speed(data: ScRNADataModule, module: Any, folder: Path) -> Trainer:
    run = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Speed(n_steps=8)],
    )
    run.fit(module, datamodule=data)
    return run


def test_reads_from_the_disk_that_are_waited_for_are_said_once_with_what_helps(
    pbmc_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    n_bytes = 0

    def count(_: ResumableLoader) -> int:
        nonlocal n_bytes
        n_bytes += 10_000_000
        return n_bytes

    monkeypatch.setattr(speed, "count_bytes_read", count)
    settings = PBMC_SETTINGS | {"batch_size": 16, "shuffle": "global"}
    fit_with_speed(SlowDataModule(Pbmc(), pbmc_dir, **settings), Counted(), tmp_path)
    lines = [r.getMessage() for r in caplog.records if "come from the disk" in r.getMessage()]
    assert len(lines) == 1
    for name in (
        "data.shuffle=window",
        "scdiff-data convert DATA_DIR compact",
        "MB/s",
        "local SSD",
    ):
        assert name in lines[0]


def test_bytes_read_from_the_disk_never_fall(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 64, num_workers=2)
    first = speed.count_bytes_read(loader)
    for _ in loader:
        assert speed.count_bytes_read(loader) >= first
