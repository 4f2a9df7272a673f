"""How fast training is: cells a second, and the share of the GPU's peak that the model uses."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ThroughputMonitor


class Speed(ThroughputMonitor):
    """Lightning's monitor, in the logs, and on GPUs in the progress bar too.

    Needs a logger. `cells/s` are those of all ranks; `mfu` is known where Lightning knows the GPU's
    peak.

    Parameters
    ----------
    n_steps
        Steps that the mean is taken over.
    """

    def __init__(self, n_steps: int = 50) -> None:
        super().__init__(batch_size_fn=lambda batch: len(batch[0]), window_size=n_steps)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch, and show what the monitor last measured."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_global_zero:
            measured = trainer.logged_metrics
            on_this_rank = measured.get("train/device/samples_per_sec")
            speeds = {
                "cells/s": measured.get("train/samples_per_sec", on_this_rank),
                "mfu": measured.get("train/device/mfu"),
            }
            known = {name: speed for name, speed in speeds.items() if speed is not None}
            pl_module.log_dict(known, prog_bar=True, logger=False, rank_zero_only=True)
