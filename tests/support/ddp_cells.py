"""Run by test_ddp.py in two processes: train and validate, and write which cells each rank saw."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from scdiff_data import Pbmc, ScRNADataModule
from support.cases import PBMC_SETTINGS
from support.trainers import quiet_trainer


class Witness(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 1)
        self.seen: dict[str, list[list[str]]] = {"train": [], "val": []}

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, metadata = batch
        self.seen["train"].append(metadata["cell_id"].tolist())
        return self.layer(x.float().log1p()).pow(2).mean()

    def validation_step(self, batch: Any, _: int) -> None:
        x, metadata = batch
        self.seen["val"].append(metadata["cell_id"].tolist())
        loss = self.layer(x.float().log1p()).pow(2).mean()
        self.log("val", loss, batch_size=len(x), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


if __name__ == "__main__":
    data_dir, out, runs = sys.argv[1:]
    for name, settings in json.loads(runs).items():
        datamodule = ScRNADataModule(Pbmc(), data_dir, **(PBMC_SETTINGS | settings))
        model = Witness()
        trainer = quiet_trainer(
            devices=2, strategy="ddp", max_epochs=2, num_sanity_val_steps=0, default_root_dir=out
        )
        trainer.fit(model, datamodule=datamodule)
        found = Path(out, f"{name}-rank{trainer.global_rank}.json")
        found.write_text(json.dumps(model.seen))
