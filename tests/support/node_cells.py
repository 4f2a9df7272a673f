"""Run by test_ranks.py in four processes, two on each of two nodes: who prepares, who sees what."""

import json
import os
import sys
from pathlib import Path

import torch.distributed

from scdiff_data import Pbmc, ScRNADataModule
from support.cases import PBMC_SETTINGS
from support.foreign import Seeing
from support.trainers import quiet_trainer


class Noting(ScRNADataModule):
    """Notes whether it was told to prepare."""

    has_prepared = False

    def prepare_data(self) -> None:
        super().prepare_data()
        self.has_prepared = True


if __name__ == "__main__":
    out = Path(sys.argv[1])
    found = {}
    for name, own_disks in {"own disks": True, "a shared disk": False}.items():
        folder = out / (f"of node {os.environ['GROUP_RANK']}" if own_disks else "of all")
        cells = Noting(Pbmc(), folder, **PBMC_SETTINGS, batch_size=32)
        cells.prepare_data_per_node = own_disks
        model = Seeing()
        trainer = quiet_trainer(
            devices=2,
            num_nodes=2,
            strategy="ddp",
            max_epochs=1,
            num_sanity_val_steps=0,
            default_root_dir=out,
        )
        trainer.fit(model, datamodule=cells)
        found[name] = {"has_prepared": cells.has_prepared, **model.seen}
    (out / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
