"""Run by test_ranks.py in two processes: whoever iterates, write which cells each rank saw."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from scdiff_data import (
    CellSampler,
    HVGDataset,
    Pbmc,
    ResumableLoader,
    ScRNADataModule,
    create_dataloader,
    create_hvg_dataloader,
)
from support.cases import PBMC_SETTINGS
from support.foreign import Seeing
from support.trainers import quiet_trainer


class Outer(L.LightningDataModule):
    """A project's own DataModule, which holds ours."""

    def __init__(self, inner: ScRNADataModule) -> None:
        super().__init__()
        self.inner = inner

    def setup(self, stage: str) -> None:
        self.inner.setup(stage)

    def train_dataloader(self) -> Any:
        return self.inner.train_dataloader()

    def val_dataloader(self) -> Any:
        return self.inner.val_dataloader()


class Parts(Seeing):
    """Its ranks hold parts of one model, here none."""

    def configure_model(self) -> None:
        pass


class Sharded(Seeing):
    """Its ranks hold parts of its layer, and train on cells of their own."""

    def configure_model(self) -> None:
        fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])


def ids_of(loader: Any) -> list[str]:
    return [cell for _, metadata in loader for cell in metadata["cell_id"].tolist()]


if __name__ == "__main__":
    data_dir, out = sys.argv[1:]
    ddp: dict[str, Any] = {
        "devices": 2,
        "strategy": "ddp",
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
        "default_root_dir": out,
    }

    def make_datamodule() -> ScRNADataModule:
        return ScRNADataModule(Pbmc(), data_dir, **PBMC_SETTINGS, batch_size=32)

    def make_bare(split: str = "train") -> ResumableLoader:
        return create_hvg_dataloader(data_dir, 32, split=split)

    seen: dict[str, list[str]] = {}
    # Loaders are made before there are ranks: the processes start in the first fit.
    bare, held_out = make_bare(), make_bare("val")
    for name, data in {
        "bare": {"train_dataloaders": bare, "val_dataloaders": held_out},
        "outer": {"datamodule": Outer(make_datamodule())},
        "not injected": {"train_dataloaders": make_bare(), "val_dataloaders": make_bare("val")},
    }.items():
        model = Seeing()
        trainer = quiet_trainer(**ddp, use_distributed_sampler=name != "not injected")
        trainer.fit(model, **data)
        seen[name], seen[f"{name}, val"] = model.seen["train"], model.seen["val"]

    for name, data in {
        "predict": {"datamodule": make_datamodule()},
        "predict, bare": {"dataloaders": make_bare("test")},
        # Fewer batches than ranks, were they not those of a rank.
        "predict, large": {"dataloaders": create_hvg_dataloader(data_dir, 500, split="test")},
        "predict, shuffled": {"dataloaders": make_bare()},
    }.items():
        model = Seeing()
        quiet_trainer(**ddp).predict(model, **data)
        seen[name] = model.seen["predict"]

    model = Seeing()
    quiet_trainer(**ddp | {"max_epochs": 2}, overfit_batches=2).fit(
        model, train_dataloaders=make_bare()
    )
    seen["overfit"] = model.seen["train"][:64]
    assert model.seen["train"][64:] == seen["overfit"]

    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2)
    for name, data in {
        "parts": {"datamodule": make_datamodule()},
        "parts, bare": {"train_dataloaders": make_bare()},
        "parts, outer": {"datamodule": Outer(make_datamodule())},
    }.items():
        model = Parts()
        strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2)
        quiet_trainer(**ddp | {"strategy": strategy}, limit_val_batches=0).fit(model, **data)
        seen[name] = model.seen["train"]

    sharded = Sharded()
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = quiet_trainer(**ddp | {"strategy": strategy}, limit_val_batches=0)
    trainer.fit(sharded, datamodule=make_datamodule())
    seen["sharded"] = sharded.seen["train"]

    fabric = L.Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    seen["fabric"] = ids_of(fabric.setup_dataloaders(make_bare()))
    seen["fabric, datamodule"] = ids_of(
        fabric.setup_dataloaders(make_datamodule().train_dataloader())
    )

    # A state of mid-epoch, and one of the end of the first epoch.
    seen["fabric, whole"], seen["fabric, resumed"] = [], []
    for n_batches in (3, 8):
        loader = fabric.setup_dataloaders(make_bare())
        for number, batch in enumerate(loader, start=1):
            if number <= n_batches:
                seen["fabric, resumed"] += ids_of([batch])
            if number == n_batches:
                fabric.save(Path(out, f"{n_batches}.ckpt"), {"loader": loader})
            seen["fabric, whole"] += ids_of([batch])
        seen["fabric, whole"] += ids_of(loader)
        restored = fabric.setup_dataloaders(make_bare())
        fabric.load(Path(out, f"{n_batches}.ckpt"), {"loader": restored})
        for _ in range(2 - n_batches // 8):
            seen["fabric, resumed"] += ids_of(restored)

    # A plain loop of torch's: there is a process group.
    seen["plain"] = ids_of(make_bare())
    seen["plain, all genes"] = ids_of(create_dataloader(data_dir, 32))
    seen["plain, workers"] = ids_of(create_hvg_dataloader(data_dir, 32, num_workers=1))
    seen["plain, datamodule"] = ids_of(make_datamodule().train_dataloader())
    cells = HVGDataset(data_dir, split="train")
    seen["plain, own"] = ids_of(ResumableLoader(cells, CellSampler(len(cells), 32)))
    seen["told to share"] = ids_of(
        create_hvg_dataloader(data_dir, 32, num_replicas=1, rank=0),
    )
    rank = torch.distributed.get_rank()
    Path(out, f"rank{rank}.json").write_text(json.dumps(seen))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
