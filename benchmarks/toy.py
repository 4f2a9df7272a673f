"""How near the demo model comes to an exactly known likelihood: `python benchmarks/toy.py`.

Cells are a mixture of 40 products of categoricals, so the exact NLL of a cell is known, and what it
is if genes were independent. The share of the gap between the two that training closes is the
figure: 128 genes in 90 CPU-seconds, and 2,000 genes, in patches, in 150. One thread; depth is not
told. A score above 100 % would be a leak. Then the larger model generates 1,000 cells.

`--generate`: that alone, after a few steps of training, on one thread and on two, with the time by
the clock; seconds, on a machine with nothing else to do.
"""

import argparse
import time
import warnings
from typing import Any

import torch
from fixtures.goals import print_goal
from fixtures.toy import Mixture, ToyCells
from fixtures.training import QUIET
from lightning.pytorch import Callback, LightningModule, Trainer

from scdiff_data.diffusion import MaskedDiffusion, WeightEMA

SETTINGS: dict[int, dict[str, Any]] = {
    128: {"seconds": 90, "goal": 0.70, "patch_size": 8, "batch_size": 64},
    2000: {"seconds": 150, "goal": 0.65, "patch_size": 100, "batch_size": 32},
}
N_PROBED = 12


class Clock(Callback):
    """CPU-seconds of the training steps."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer, pl_module
        self._started = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer, pl_module
        self.seconds = time.process_time() - self._started


def train(data: ToyCells, n_steps: int, **settings: Any) -> tuple[MaskedDiffusion, float]:
    """The averaged weights after so many steps, and the steps' CPU-seconds."""
    clock = Clock()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=n_steps,
        gradient_clip_val=1.0,
        callbacks=[WeightEMA(0.99), clock],
        **QUIET,
    )
    model = MaskedDiffusion(n_layers=1, **settings)
    trainer.fit(model, datamodule=data)
    return model, clock.seconds


def time_generating(model: MaskedDiffusion, n_threads: int) -> tuple[float, float]:
    """CPU-seconds of 1,000 cells, and those by the clock."""
    torch.set_num_threads(n_threads)
    started, began = time.process_time(), time.perf_counter()
    model.generate(1_000, steps=64)
    took, waited = time.process_time() - started, time.perf_counter() - began
    n_genes = model.hparams["panel"]["n_genes"]
    print(
        f"1,000 cells of {n_genes:,} genes generated in 64 steps: {took:.1f} CPU s, "
        f"{waited:.1f} s by the clock, threads: {n_threads}"
    )
    return took, waited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same: it takes five minutes")
    parser.add_argument("--generate", action="store_true", help="what generating takes, alone")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if arguments.generate:
        data = ToyCells(Mixture(2_000), 2_000, 64, batch_size=32)
        model, _ = train(data, N_PROBED, patch_size=100)
        time_generating(model, 1)
        print_goal("generate_wall_s", time_generating(model, 2)[1], "<=", 15, digits=1)
        return
    goals = []
    print("genes  steps  CPU s  model NLL (se)     exact  independent  gap closed")
    for n_genes, setting in SETTINGS.items():
        mixture = Mixture(n_genes)
        data = ToyCells(mixture, 20_000, 512, batch_size=setting["batch_size"])
        exact = mixture.exact_nll(data.val_tokens_cg)
        independent = mixture.marginal_nll(data.val_tokens_cg)
        size = {"patch_size": setting["patch_size"], "learning_rate": 1e-2}
        train(data, N_PROBED, **size)  # what is done once only
        a_step = train(data, N_PROBED, **size)[1] / N_PROBED
        n_steps = int(setting["seconds"] / a_step)
        model, seconds = train(data, n_steps, **size)
        tester = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        scores = tester.validate(model, datamodule=data, verbose=False)[0]
        closed = (independent - scores["val/loss"]) / (independent - exact)
        print(
            f"{n_genes:5,}  {n_steps:5,}  {seconds:5.0f}  "
            f"{scores['val/loss']:.4f} ({scores['val/loss_se']:.4f})  {exact:.4f}  "
            f"{independent:11.4f}  {closed:.1%}",
            flush=True,
        )
        goals.append((f"gap_closed_{n_genes}", closed, setting["goal"]))
    took, _ = time_generating(model, 1)
    for name, measured, wanted in goals:
        print_goal(name, measured, ">=", wanted, digits=3)
    print_goal("generate_s", took, "<=", 15, digits=1)


if __name__ == "__main__":
    main()
