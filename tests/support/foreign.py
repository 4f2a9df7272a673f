"""A module that others wrote, and a trainer of it."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor

from support.trainers import quiet_trainer


def trainer(folder: Path, **settings: Any) -> L.Trainer:
    """Silent, of one epoch; it validates once beforehand, as users' trainers do."""
    return quiet_trainer(**({"max_epochs": 1, "default_root_dir": folder} | settings))


class Foreign(BoringModel):
    """A module that knows nothing of this package but `x, metadata = batch`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 2)
        self.seen: list[list[str]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, metadata = batch
        self.seen.append(metadata["cell_id"].tolist())
        return self.layer(x.float().log1p()).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, _ = batch
        self.log("val", self.layer(x.float().log1p()).pow(2).mean(), batch_size=len(x))

    test_step = validation_step


class Seeing(L.LightningModule):
    """A module that keeps which cells each kind of step saw, and predicts the sum of each."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 1)
        self.seen: dict[str, list[str]] = {"train": [], "val": [], "predict": []}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._see("train", batch).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._see("val", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        self._see("predict", batch)
        return batch[0].sum(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)

    def _see(self, kind: str, batch: Any) -> Tensor:
        x, metadata = batch
        self.seen[kind] += metadata["cell_id"].tolist()
        return self.layer(x.float().log1p())
