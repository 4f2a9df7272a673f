"""Run by tests in processes of its own: train, validate and write down what each rank is shown.

The argument is JSON: `data_dir`, `out`, `data` and `trainer` settings, `save_every` steps,
`ckpt_path`, and `kill_at`, a training batch at which the process kills itself.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from cases import PBMC_SETTINGS
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from witness import Witness, make_trainer

from scdiff_data import Pbmc, ScRNADataModule


class Mortal(Witness):
    kill_at: int | None = None

    def training_step(self, batch: Any, _: int) -> Tensor:
        if self.kill_at is not None and self.trainer.fit_loop.total_batch_idx == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, _)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    out = Path(asked["out"])
    out.mkdir(exist_ok=True)
    saver = ModelCheckpoint(
        out, filename="{step}", every_n_train_steps=asked.get("save_every", 1000), save_top_k=-1
    )
    trainer = make_trainer(
        out, {"callbacks": [saver], "enable_checkpointing": True} | asked["trainer"]
    )
    torch.manual_seed(0)
    model = Mortal(out / f"rank{trainer.global_rank}.jsonl")
    model.kill_at = asked.get("kill_at")
    datamodule = ScRNADataModule(Pbmc(), asked["data_dir"], **(PBMC_SETTINGS | asked["data"]))
    trainer.fit(model, datamodule=datamodule, ckpt_path=asked.get("ckpt_path"))
