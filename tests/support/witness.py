"""A module that writes down what it is shown, and a callback that saves at every moment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from support.trainers import quiet_trainer


class Witness(L.LightningModule):
    """A linear layer; `events` are the cells of every batch, and when validations started."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 1)
        self.events: list[list[str]] = []

    def write(self, *event: str) -> None:
        self.events.append(list(event))

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, metadata = batch
        self.write(f"train {self.current_epoch}", *metadata["cell_id"].tolist())
        return self.layer(x.float().log1p()).pow(2).mean()

    def on_validation_start(self) -> None:
        self.write("validation")

    def validation_step(self, batch: Any, _: int) -> None:
        x, metadata = batch
        self.write("val", *metadata["cell_id"].tolist())
        loss = self.layer(x.float().log1p()).pow(2).mean()
        self.log("val", loss, batch_size=len(x), sync_dist=True)

    def configure_optimizers(self) -> Any:
        n_steps = int(self.trainer.estimated_stepping_batches)  # makes the training loader, early
        optimizer = torch.optim.SGD(self.parameters(), 1e-3, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class SaveAlways(L.Callback):
    """Checkpoints at every hook, `{number}-{hook}.ckpt`; `moments` are their names and events."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.moments = folder, {}

    def save(self, trainer: L.Trainer, hook: str, *, n_again: int = 0) -> None:
        model: Any = trainer.lightning_module
        if trainer.sanity_checking:
            return
        name = f"{len(self.moments):03}-{hook}"
        self.moments[name] = len(model.events) - n_again
        trainer.save_checkpoint(self.folder / f"{name}.ckpt")

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.save(trainer, "train-start")

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.save(trainer, "epoch-start")

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.save(trainer, "batch-start", n_again=args[2] % trainer.accumulate_grad_batches)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        n_again = 0
        n_batches = trainer.fit_loop.batch_idx + 1
        if n_batches != trainer.num_training_batches:
            n_again = n_batches % trainer.accumulate_grad_batches
        self.save(trainer, "batch-end", n_again=n_again)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.save(trainer, "validation-batch-end", n_again=args[3] + 2)  # starts anew

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.save(trainer, "validation-end")

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.save(trainer, "epoch-end")

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.save(trainer, "train-end")


def make_trainer(folder: Path, settings: Mapping[str, Any]) -> L.Trainer:
    defaults = {"max_epochs": 3, "num_sanity_val_steps": 0, "default_root_dir": folder}
    return quiet_trainer(**(defaults | dict(settings)))
