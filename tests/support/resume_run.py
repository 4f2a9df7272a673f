"""Run by tests of resuming, in their process or in others: train, and write what was seen when."""

import json
import os
import signal
import sys
import time
from itertools import chain
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
    """Remembers the cells of every training batch, and the epochs that were validated.

    One of its ranks may get a signal, in the step after `kill_at` or in the first validation, in
    which the others then stay.
    """

    def __init__(
        self,
        kill_at: int | str | None = None,
        kill_with: int = signal.SIGKILL,
        kill_rank: int = 0,
    ) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 1)
        torch.nn.init.constant_(self.layer.weight, 0.01)
        torch.nn.init.zeros_(self.layer.bias)
        self.kill_at, self.kill_with, self.kill_rank = kill_at, kill_with, kill_rank
        self.seen: list[tuple[int, list[str]]] = []
        self.validated: list[int] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        if self.global_step == self.kill_at and self.global_rank == self.kill_rank:
            self.kill_at = None  # once, however many batches a step has
            os.kill(os.getpid(), self.kill_with)
        x, metadata = batch
        self.seen.append((self.current_epoch, metadata["cell_id"].tolist()))
        return (self.layer(x.float().log1p()) - 1).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.validated.append(self.current_epoch)
        if self.kill_at == "validation":
            if self.global_rank == self.kill_rank:
                os.kill(os.getpid(), self.kill_with)
            time.sleep(300)
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
    kill_at: int | str | None = None,
    kill_with: int = signal.SIGKILL,
    kill_rank: int = 0,
    stops: bool = False,
    save_every: int = 1,
    num_workers: int = 0,
    accumulate: int = 1,
    **changes: Any,
) -> Witness:
    """Train; `out` gets a checkpoint after every `save_every` steps and validation."""
    saver = ModelCheckpoint(out, "{step}", every_n_train_steps=save_every, save_top_k=-1)
    late = ModelCheckpoint(out, "validated-{epoch}", monitor="val", save_top_k=-1)
    stop = [StopCheckpoint(Path(out, "stopped.ckpt"))] if stops else []
    settings = PBMC_SETTINGS | WINDOWS | {"batch_size": 32, "num_workers": num_workers} | changes
    model = Witness(kill_at, kill_with, kill_rank)
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
    Path(out).mkdir(exist_ok=True)
    Path(out, f"rank{trainer.global_rank}.pid").write_text(str(os.getpid()))
    datamodule = ScRNADataModule(Pbmc(), data_dir, **settings)
    trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    weights = model.layer.weight.flatten().tolist()
    found = {"seen": model.seen, "validated": model.validated, "weights": weights}
    Path(out, f"rank{trainer.global_rank}.json").write_text(json.dumps(found))
    return model


def seen_by_ranks(out: Path, n_ranks: int) -> list[tuple[int, list[str]]]:
    """Of every step the epoch, and the cells in the global order: ranks take turns."""
    ranks = [json.loads((out / f"rank{r}.json").read_text())["seen"] for r in range(n_ranks)]
    steps = []
    for parts in zip(*ranks, strict=True):
        assert len({epoch for epoch, _ in parts}) == 1
        cells = zip(*(cells for _, cells in parts), strict=True)
        steps.append((parts[0][0], list(chain.from_iterable(cells))))
    return steps


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run(**json.loads(argument))
