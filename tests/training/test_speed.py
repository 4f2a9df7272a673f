"""Speed is shown while a model trains."""

import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from scdiff_data.training import Speed


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
