"""How near the demo model comes to an exactly known likelihood: `python benchmarks/toy.py`.

Cells are a mixture of 40 products of categoricals, so the exact NLL of a cell is known, and what it
is if genes were independent. The share of the gap between the two that training closes is the
figure: 128 genes in 90 CPU-seconds, and 2,000 genes, in patches, in 150. One thread; depth is not
told. A score above 100 % would be a leak. Then the larger model generates 1,000 cells.

`--compiled`: in place of all that, what steps of `configs/model/tiny.yaml` cost in CPU-seconds,
compiled and as they are, in turns; the processes that compile are counted.
"""

import argparse
import os
import time
import warnings
from typing import Any

import numpy as np
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
COMPILED: dict[int, dict[str, int]] = {
    192: {"patch_size": 8, "batch_size": 32},
    2000: {"patch_size": 100, "batch_size": 64},
}


class Clock(Callback):
    """CPU-seconds of the training steps, and of the processes that compile them."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer, pl_module
        self._started = sum(os.times()[:4])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer, pl_module
        self.seconds = sum(os.times()[:4]) - self._started


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


def compare_compiled() -> None:
    """Print what compiling takes, and what it saves of a step."""
    print("genes  ms a step  compiled  of it (quartiles)    compiling, CPU s  paid back after")
    for n_genes, size in COMPILED.items():
        data = ToyCells(Mixture(n_genes), 4_000, 64, batch_size=size["batch_size"])
        how: Any = {"patch_size": size["patch_size"], "learning_rate": 1e-2}
        kinds = (False, True)
        first = [train(data, N_PROBED, compile_network=kind, **how)[1] for kind in kinds]
        rounds = [
            [train(data, 40, compile_network=kind, **how)[1] / 40 for kind in kinds]
            for _ in range(8)
        ]
        eager, compiled = np.median(rounds, axis=0)
        ratios = [after / before for before, after in rounds]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        once = first[1] - N_PROBED * compiled
        paid = f"{once / (eager - compiled):,.0f} steps" if compiled < eager else "never"
        print(
            f"{n_genes:5,}  {1e3 * eager:9.1f}  {1e3 * compiled:8.1f}  "
            f"{middle:.2f} ({low:.2f} to {high:.2f})  {once:16.1f}  {paid:>15}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same: it takes five minutes")
    parser.add_argument("--compiled", action="store_true", help="steps compiled, and as they are")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if arguments.compiled:
        compare_compiled()
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
    started = time.process_time()
    model.generate(1_000, steps=64)
    took = time.process_time() - started
    print(f"1,000 cells of {n_genes:,} genes generated in 64 steps: {took:.1f} CPU s, one thread")
    for name, measured, wanted in goals:
        print_goal(name, measured, ">=", wanted, digits=3)
    print_goal("generate_s", took, "<=", 15, digits=1)


if __name__ == "__main__":
    main()
