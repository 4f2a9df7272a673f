"""Run by test_resume.py, in its process or in others: train, and write what was seen when."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from scdiff_data import Pbmc, ScRNADataModule
from scdiff_data.callbacks import StopCheckpoint
from support.cases import PBMC_SETTINGS

WINDOWS = {"window_size": 128, "run_size": 8}
"""Sizes that make five windows of the training cells."""


class Witness(L.LightningModule):
    """Remembers the cells of every training batch, and the epochs that were validated."""

    def __init__(self, kill_at: int | None = None, kill_with: int = signal.SIGKILL) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 1)
        torch.nn.init.constant_(self.layer.weight, 0.01)
        torch.nn.init.zeros_(self.layer.bias)
        self.kill_at, self.kill_with = kill_at, kill_with
        self.seen: list[tuple[int, list[str]]] = []
        self.validated: list[int] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        if self.global_step == self.kill_at and self.global_rank == 0:
            self.kill_at = None  # once, however many batches a step has
            os.kill(os.getpid(), self.kill_with)
        x, metadata = batch
        self.seen.append((self.current_epoch, metadata["cell_id"].tolist()))
        return (self.layer(x.float().log1p()) - 1).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.validated.append(self.current_epoch)
        x, _ = batch
        loss = self.layer(x.float()).mean()
        self.log("val", loss, batch_size=len(x), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-2)


def run(
    data_dir: str,
    out: str,
    *,
    devices: int = 1,
    max_epochs: int = 3,
    max_steps: int = -1,
    ckpt_path: str | None = None,
    kill_at: int | None = None,
    kill_with: int = signal.SIGKILL,
    save_every: int = 1,
    num_workers: int = 0,
    accumulate: int = 1,
    **changes: Any,
) -> Witness:
    """Train; `out` gets a checkpoint after every `save_every` steps and validation."""
    saver = ModelCheckpoint(out, "{step}", every_n_train_steps=save_every, save_top_k=-1)
    late = ModelCheckpoint(out, "validated-{epoch}", monitor="val", save_top_k=-1)
    told = kill_at is not None and kill_with != signal.SIGKILL
    stop = [StopCheckpoint(Path(out, "stopped.ckpt"))] if told else []
    settings = PBMC_SETTINGS | WINDOWS | {"batch_size": 32, "num_workers": num_workers} | changes
    model = Witness(kill_at, kill_with)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=max_epochs,
        max_steps=max_steps,
        accumulate_grad_batches=accumulate,
        num_sanity_val_steps=0,
        callbacks=[saver, late, *stop],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
    datamodule = ScRNADataModule(Pbmc(), data_dir, **settings)
    trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    found = {"seen": model.seen, "validated": model.validated}
    Path(out, f"rank{trainer.global_rank}.json").write_text(json.dumps(found))
    return model


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run(**json.loads(argument))
