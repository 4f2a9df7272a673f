"""What the loader and the demo model do on a GPU: `python benchmarks/gpu.py`.

200,000 simulated cells x 2,000 genes, batches of 512, tokens made on the GPU, bf16, compiled. The
model of `configs/model/small.yaml` is trained from the loader, and from the same cells resident on
the GPU: what the loader takes of a step is the difference. A run that is resumed shall end with the
same bits. Then `base`, for the share of the GPU's peak, and its memory. `--folder` keeps the data,
so that they can be made before. Without a GPU nothing is measured, unless `--device cpu` asks for a
trial of the script: `--device cpu --tiny` takes some minutes.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fixtures.atlas import make_atlas
from fixtures.goals import print_goal
from fixtures.training import QUIET
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from scdiff_data import CellBatch, H5adFolder, LogBinTokens, ScRNADataModule
from scdiff_data.diffusion import WeightEMA

CONFIGS = Path(__file__).parents[1] / "configs"


class Resident(LightningDataModule):
    """The cells of another datamodule, all on the GPU."""

    def __init__(self, cells: ScRNADataModule, device: torch.device) -> None:
        super().__init__()
        self._cells, self.batch_size = cells, cells.batch_size
        whole = cells.train_dataset[:]
        self._counts = whole.expression.to(device)
        self._totals = whole.metadata["total_counts"].to(device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_cells"], name)

    def train_dataloader(self) -> "Resident":
        return self

    def __len__(self) -> int:
        return len(self._counts) // self.batch_size

    def __iter__(self) -> Iterator[CellBatch]:
        order = torch.randperm(len(self._counts), device=self._counts.device)
        for rows in order.split(self.batch_size)[: len(self)]:
            yield CellBatch(self._counts[rows], {"total_counts": self._totals[rows]})

    def transfer_batch_to_device(
        self, batch: CellBatch, device: torch.device, dataloader_idx: int
    ) -> Any:
        return self._cells.transfer_batch_to_device(batch, device, dataloader_idx)


class Clock(Callback):
    """Seconds a step, after the first ones."""

    def __init__(self, n_ignored: int) -> None:
        self._n_ignored = n_ignored

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        del outputs, batch
        if batch_idx + 1 in (self._n_ignored, trainer.max_steps):
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if batch_idx + 1 == self._n_ignored:
                self._started = now
            else:
                self.step = (now - self._started) / (trainer.max_steps - self._n_ignored)


class SaveAt(Callback):
    """A checkpoint after so many steps."""

    def __init__(self, n_steps: int, path: Path) -> None:
        self._n_steps, self._path = n_steps, path

    def on_train_batch_end(self, trainer: Trainer, *given: Any) -> None:
        del given
        if trainer.global_step == self._n_steps:
            trainer.save_checkpoint(self._path)


def fit(
    size: str,
    cells: LightningDataModule,
    device: str,
    n_steps: int,
    callback: Callback,
    ckpt_path: Path | None = None,
) -> Any:
    """A model's file after so many steps."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        model = instantiate(compose("train", [f"model={size}"]).model)
    trainer = Trainer(
        accelerator=device,
        devices=1,
        precision="bf16-mixed",
        max_steps=n_steps,
        gradient_clip_val=1.0,
        callbacks=[WeightEMA(0.999), callback],
        **QUIET,
    )
    trainer.fit(model, datamodule=cells, ckpt_path=ckpt_path, weights_only=True)
    return model


def train(size: str, cells: LightningDataModule, device: str, n_steps: int) -> tuple[float, float]:
    """Seconds a step of a model's file, and its FLOPs a step."""
    clock = Clock(n_steps // 2)
    model = fit(size, cells, device, n_steps, clock)
    return clock.step, float(model.flops_per_batch)


def resume(size: str, cells: LightningDataModule, device: str, folder: Path) -> bool:
    """Whether 8 steps end with the same bits if the last 4 are of a run that was resumed."""
    path = folder / "resume.ckpt"
    whole = fit(size, cells, device, 8, SaveAt(4, path)).state_dict()
    resumed = fit(size, cells, device, 8, SaveAt(0, path), path).state_dict()
    return all(torch.equal(whole[name], resumed[name]) for name in whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 cells and fewer steps")
    parser.add_argument("--tiny", action="store_true", help="6,000 cells, few steps, model tiny")
    parser.add_argument("--device", default="gpu", choices=["gpu", "cpu"])
    parser.add_argument("--folder", type=Path, help="where the data are kept; else a temporary one")
    parser.add_argument("--sizes", nargs=2, default=["small", "base"], metavar="MODEL")
    arguments = parser.parse_args()
    if arguments.device == "gpu" and not torch.cuda.is_available():
        print("skipped: no GPU")
        return
    warnings.filterwarnings("ignore")
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if arguments.device == "gpu" else "cpu")
    n_cells, n_steps = (20_000, 30) if arguments.quick else (200_000, 300)
    if arguments.tiny:
        n_cells, n_steps, arguments.sizes = 6_000, 8, ["tiny", "tiny"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        paths = make_atlas(folder, n_cells=n_cells, n_genes=2_500)
        cells = ScRNADataModule(
            H5adFolder(paths[0].parent),
            folder / f"gpu-{n_cells}",
            min_genes=None,
            min_counts=None,
            split={"by": "cell", "val": 0, "test": 0},
            labels=[],
            n_hvgs=2_000,
            batch_size=512,
            tokenizer=LogBinTokens(),
        )
        cells.prepare_data()
        cells.setup()
        resident = Resident(cells, device)
        first, second = arguments.sizes
        results = {}
        for name, source in (("loader", cells), ("resident", resident)):
            results[name] = train(first, source, arguments.device, n_steps)
            step, flops = results[name]
            print(f"{first}, {name}: {512 / step:,.0f} cells/s, {flops / step / 1e12:.2f} TFLOP/s")
        print(f"resumed, the same bits: {resume(first, cells, arguments.device, Path(temporary))}")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step, flops = train(second, cells, arguments.device, n_steps)
        if device.type == "cuda":
            print(f"{second}: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most")
        peak = get_available_flops(device, torch.bfloat16)
        print(f"{second}, loader: {512 / step:,.0f} cells/s, {flops / step / 1e12:.2f} TFLOP/s")
    ratio = results["resident"][0] / results["loader"][0]
    goals = [("loader_vs_resident", ratio, ">=", 0.95), ("loader_share", 1 - ratio, "<=", 0.02)]
    if peak is None:
        print(f"skipped goal mfu_{second}: the peak of this device is not known")
    else:
        goals.append((f"mfu_{second}", flops / step / peak, ">=", 0.4))
    for name, measured, sign, wanted in goals:
        print_goal(name, measured, sign, wanted, digits=3)


if __name__ == "__main__":
    main()
