"""A gene told in two looks beside whole tokens, as long trained: `python benchmarks/looks.py`.

The same network, cells and CPU-seconds; only what a mask hides differs. Whole tokens hide k of the
L genes, k uniform, and cost the mean cross-entropy over the hidden ones: a bound, too. Both are in
nats a gene, of the same held-out cells, with averaged weights; beside each stands what chance in
the masks adds. 25 CPU-seconds on the embedded blood cells, 35 on others; one thread. `--quick`:
blood, one seed.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixtures.goals import print_goal
from fixtures.toy import N_TOKENS, Mixture
from generation import open_cells
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scdiff_data import CountTokens, LogBinTokens
from scdiff_data.diffusion.denoiser import Denoiser
from scdiff_data.diffusion.process import (
    draw_hidden_counts,
    hide_tokens,
    keyed_generator,
    score_hidden,
)
from scdiff_data.evaluation import count_marginals
from scdiff_data.training import make_optimizer

CELLS: dict[str, dict[str, Any]] = {
    "pbmc": {"patch_size": 8, "n_cells": 32, "seconds": 25, "n_rounds": 16},
    "toy": {"patch_size": 8, "n_cells": 64, "seconds": 35, "n_rounds": 6},
    "weak": {"patch_size": 8, "n_cells": 64, "seconds": 35, "n_rounds": 6},
    "atlas": {"patch_size": 100, "n_cells": 64, "seconds": 35, "n_rounds": 3},
}
TOYS = {"toy": 1.5, "weak": 0.8}
"""Of those that are mixtures, the sd of types' log-fold changes."""


def read_cells(name: str, folder: Path, tokenizer: Any = None) -> dict[str, Any]:
    """Tokens, counts and depths of training and of held-out cells, and the genes' marginals."""
    tokenizer = tokenizer or (CountTokens(N_TOKENS) if name in TOYS else LogBinTokens())
    if name in TOYS:
        mixture = Mixture(128, sd=TOYS[name])
        counts = mixture.sample(20_512, seed=1).numpy().astype(np.int16)
        parts = [(part, np.full(len(part), 1_000)) for part in (counts[512:], counts[:512])]
    else:
        cells = open_cells(name, folder, split={"by": "cell"})
        batches = [cells.train_dataset[:], cells.val_dataset[:], cells.test_dataset[:]]
        parts = [(np.asarray(b.expression), b.metadata["total_counts"].numpy()) for b in batches]
        parts[1] = tuple(np.concatenate(both)[:1_000] for both in zip(*parts[1:], strict=True))
    encoded = [(tokenizer.encode(torch.from_numpy(x)), torch.from_numpy(t)) for x, t in parts[:2]]
    n_genes = parts[0][0].shape[1]
    log_marginal_gv = count_marginals(parts[0][0], tokenizer.edges.numpy(), n_genes)
    known = {"train": encoded[0], "held_out": encoded[1], "log_marginal_gv": log_marginal_gv}
    return known | {"counts": [counts for counts, _ in parts[:2]]}


class Contender:
    """A network that learns from whole tokens or from looks."""

    def __init__(
        self, cells: dict[str, Any], setting: dict[str, Any], looks: int, seed: int
    ) -> None:
        log_marginal_gv = torch.from_numpy(cells["log_marginal_gv"]).float()
        self._cells, self._looks, self._seed, self._step = cells, looks, seed, 0
        self._n_genes, n_tokens = log_marginal_gv.shape
        self._size = setting["n_cells"]
        torch.manual_seed(seed)
        size = {name: setting[name] for name in ("d_model", "patch_size") if name in setting}
        self.net = Denoiser(self._n_genes, n_tokens=n_tokens, n_layers=1, **size)
        log_depth_c = cells["train"][1].float().log1p()
        self.net.start_at_marginals(log_marginal_gv, log_depth_c=log_depth_c)

    def draw(self, k_b: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Looks of each gene that are hidden, `k_b` looks or genes of each cell; and the others."""
        n = self._looks * self._n_genes
        order_bn = torch.stack([torch.randperm(n, generator=generator) for _ in k_b])
        first_bn = order_bn < k_b[:, None]
        both = (first_bn, ~first_bn | (k_b == n)[:, None])
        first_bg, second_bg = (x.view(-1, self._looks, self._n_genes).sum(1) for x in both)
        return first_bg * 2 // self._looks, second_bg * 2 // self._looks

    def ask(self, rows: tuple[Tensor, Tensor], hidden_bg: Tensor, **condition: Any) -> Tensor:
        """The network's logits."""
        (tokens_bg, depth_b), none = rows, rows[0][:, :0]
        seen_bg = hide_tokens(tokens_bg, hidden_bg, mask_id=self.net.mask_id)
        logits_bgv: Tensor = self.net(seen_bg, total_counts_b=depth_b, labels_bl=none, **condition)
        return logits_bgv

    def score(self, logits_bgv: Tensor, tokens_bg: Tensor, hidden_bg: Tensor) -> Tensor:
        """The bound's one-sample estimate."""
        if self._looks == 1:
            flat = logits_bgv.flatten(0, 1), tokens_bg.flatten()
            nll_bg = cross_entropy(*flat, reduction="none").view_as(tokens_bg)
            return nll_bg.where(hidden_bg > 0, 0.0).sum(-1) / (hidden_bg > 0).sum(-1)
        return score_hidden(logits_bgv, tokens_bg, hidden_bg)

    def train(self, n_steps: int, *, until: int) -> float:
        """CPU-seconds of so many steps, of `until` in all."""
        if not self._step:
            how: Any = {"learning_rate": 1e-2, "weight_decay": 0.05, "n_warmup_steps": 20}
            self._made = make_optimizer(self.net.named_parameters(), n_steps=until, **how)
            self._average = [weight.detach().clone() for weight in self.net.parameters()]
        optimizer, schedule = self._made["optimizer"], self._made["lr_scheduler"]["scheduler"]
        tokens, depths = self._cells["train"]
        started = time.process_time()
        for _ in range(n_steps):
            generator = keyed_generator(self._seed, self._step)
            drawn = torch.randint(len(tokens), (self._size,), generator=generator)
            rows, n_looks = (tokens[drawn], depths[drawn]), self._looks * self._n_genes
            k_b = draw_hidden_counts(self._size, n_looks=n_looks, generator=generator)
            hidden_bg, _ = self.draw(k_b, generator)
            withheld_b = torch.rand(self._size, generator=generator) < 0.1
            logits_bgv = self.ask(rows, hidden_bg, unconditional_b=withheld_b)
            optimizer.zero_grad()
            self.score(logits_bgv, rows[0], hidden_bg).mean().backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            self._step += 1
            share = 1 - min(0.99, self._step / (9 + self._step))
            for mean, weight in zip(self._average, self.net.parameters(), strict=True):
                mean.lerp_(weight.detach(), share)
        return time.process_time() - started

    @torch.no_grad()
    def test(self, n_rounds: int) -> tuple[float, float]:
        """The held-out bound, and what chance in the masks adds to it.

        Complementary masks, and the marginals' score on the same ones for one that is exact: both
        leave the mean, and lower the noise.
        """
        for mean, weight in zip(self._average, self.net.parameters(), strict=True):
            weight.copy_(mean)
        (tokens, depths), means = self._cells["held_out"], []
        log_marginal_gv = torch.from_numpy(self._cells["log_marginal_gv"]).float()
        exact = -float(log_marginal_gv.gather(1, tokens.T).mean())
        for r in range(n_rounds):
            generator, n_looks = keyed_generator("test", r), self._looks * self._n_genes
            k_c = draw_hidden_counts(len(tokens), n_looks=n_looks, generator=generator)
            total = 0.0
            for *rows, k in zip(tokens.split(128), depths.split(128), k_c.split(128), strict=True):
                marginal_bgv = log_marginal_gv.expand(len(k), -1, -1)
                for hidden in self.draw(k, generator):
                    model = self.score(self.ask((rows[0], rows[1]), hidden), rows[0], hidden)
                    total += float((model - self.score(marginal_bgv, rows[0], hidden)).sum()) / 2
            means.append(exact + total / len(tokens))
        return float(np.mean(means)), float(np.std(means, ddof=1) / len(means) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="blood, one seed")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    names, n_seeds = (["pbmc"], 1) if arguments.quick else (arguments.cells, arguments.seeds)
    goals = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            setting, cells = CELLS[name], read_cells(name, Path(folder))
            tokens, log_marginal_gv = (
                cells["held_out"][0],
                torch.from_numpy(cells["log_marginal_gv"]),
            )
            marginal = -float(log_marginal_gv.gather(1, tokens.T).mean())
            probes = {looks: Contender(cells, setting, looks, 0) for looks in (1, 2)}
            took: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(6):  # the first warms up
                for looks, probe in probes.items():
                    took[looks].append(probe.train(10, until=10**6) / 10)
            a_step = {looks: float(np.median(seconds[1:])) for looks, seconds in took.items()}
            found: dict[int, list[float]] = {1: [], 2: []}
            for seed in range(n_seeds):
                for looks in (1, 2):
                    contender = Contender(cells, setting, looks, seed)
                    n_steps = int(setting["seconds"] / a_step[looks])
                    seconds = contender.train(n_steps, until=n_steps)
                    nll, error = contender.test(setting["n_rounds"])
                    found[looks].append(nll)
                    told = {1: "whole tokens", 2: "two looks   "}[looks]
                    print(
                        f"{name:5} seed {seed}  {told}  {n_steps:5,} steps, {seconds:3.0f} CPU s  "
                        f"{nll:.4f} ± {error:.4f}  (marginal {marginal:.4f})",
                        flush=True,
                    )
            gained = {looks: marginal - float(np.mean(nlls)) for looks, nlls in found.items()}
            goals.append((f"{name}_gain_of_looks_vs_tokens", gained[2] / gained[1]))
    for goal, ratio in goals:
        print_goal(goal, ratio, ">=", 0.95, digits=3)


if __name__ == "__main__":
    main()
