"""What sampling steps and training time buy: `python benchmarks/curves.py`.

One thread; the settings of `configs/model/tiny.yaml`. Two curves:

*Steps.* One model, trained on the embedded blood cells for 2,000 steps, generates with 1 to 128
sampling steps. Samples as large as half the held-out cells are compared with those halves, and put
on the scale where 0 is a cheat and 1 a replicate; the mean over 16 samples and its standard error
are shown, and `mean`, that of all figures. Beside them stands what 1,000 cells take. The goal says
what the default of 32 steps gives away.

*Size.* Networks of three widths learn from 16,000 simulated cells x 2,000 genes for 10, 20, 40 and
80 CPU-seconds, each with a schedule of its own that ends there, all at one rate. Of their held-out
bounds the excess over what the simulation's own law would say is fitted with a power of the
seconds. `--quick`: 5, 10 and 20 seconds, 4 samples.

`--compiled`: in place of both, what a training step costs with the network compiled, beside the
same network as it is, in turns; the processes that compile are counted.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.config as inductor
from fixtures.generating import find_true_laws, fit_ours, open_cells
from fixtures.goals import print_goal
from looks import CELLS, Contender, read_cells

from scdiff_data import LogBinTokens
from scdiff_data.measuring import (
    TrainingCells,
    compare_cells,
    draw_mean_profiles,
    rescale_scores,
    shuffle_genes,
)
from scdiff_data.measuring.scale import draw_halves

STEPS = (1, 4, 8, 16, 32, 64, 128)
DEFAULT = 32
"""Sampling steps; those that `generate` takes if not told."""

WIDTHS = (32, 64, 128)
SECONDS = (10, 20, 40, 80)
"""Of networks; of their training."""


def draw_step_curve(folder: Path, n_samples: int) -> tuple[float, float]:
    """Print figures at each number of steps; what the default gives away, and its error."""
    cells = open_cells("pbmc", folder)
    model, seconds, _ = fit_ours("pbmc", cells, n_steps=2_000, seed=0)
    parts = [cells.train_dataset[:], cells.val_dataset[:], cells.test_dataset[:]]
    train, *held = (np.asarray(part.expression).astype(np.int64) for part in parts)
    trained, held_out = TrainingCells.fit(train), np.concatenate(held)
    pairs = list(draw_halves(held_out, n_halvings=n_samples // 2))
    halves = [half for pair in pairs for half in pair]
    n = len(halves[0])
    print(
        f"blood: 2,000 training steps, {seconds:.0f} CPU s; {n_samples} samples of {n} cells on "
        "the scale, mean ± standard error"
    )
    replicates = [compare_cells(*pair, trained) for pair in pairs]

    def compare(counts: Any) -> list[dict[str, float]]:
        chunks = [counts[n * i : n * (i + 1)] for i in range(n_samples)]
        return [compare_cells(*both, trained) for both in zip(chunks, halves, strict=True)]

    rng, cheats = np.random.default_rng(0), {}
    drawn = train[rng.integers(len(train), size=n * n_samples)]
    for name, cheat in (("genes_shuffled", shuffle_genes), ("mean_profile", draw_mean_profiles)):
        figures = compare(cheat(drawn))
        cheats[name] = {key: float(np.median([f[key] for f in figures])) for key in figures[0]}
    table: dict[int, dict[str, Any]] = {}
    for steps in STEPS:
        started = time.process_time()
        generated = model.generate(n * n_samples, steps=steps).X.toarray()
        took = (time.process_time() - started) * 1_000 / len(generated)
        scaled = [rescale_scores(f, replicates, cheats) for f in compare(generated)]
        known = [key for key, place in scaled[0].items() if place is not None]
        places = {key: np.array([one[key] for one in scaled], float) for key in known}
        places["mean"] = np.mean(list(places.values()), axis=0)
        table[steps] = {"CPU s": took, **places}
    print(f"{'steps':27}" + "".join(f"{steps:>15}" for steps in STEPS))
    for key in table[DEFAULT]:
        texts = []
        for row in table.values():
            if key == "CPU s":
                texts.append(f"{row[key]:.2f}")
            else:
                error = row[key].std(ddof=1) / n_samples**0.5
                texts.append(f"{row[key].mean():.3f} ± {error:.3f}")
        print(f"{key:27}" + "".join(f"{text:>15}" for text in texts), flush=True)
    lost = table[STEPS[-1]]["mean"] - table[DEFAULT]["mean"]
    return float(lost.mean()), float(lost.std(ddof=1) / n_samples**0.5)


def draw_size_curve(folder: Path, budgets: tuple[int, ...]) -> None:
    """Print held-out bounds at each width and time, and the law."""
    setting, cells = CELLS["atlas"], read_cells("atlas", folder)
    tokens, log_marginal_gv = cells["held_out"][0], torch.from_numpy(cells["log_marginal_gv"])
    marginal = -float(log_marginal_gv.gather(1, tokens.T).mean())
    print(f"atlas: {len(cells['train'][0]):,} cells x {tokens.shape[1]:,} genes")
    print(f"width  parameters  CPU s  steps   held-out bound (marginal {marginal:.4f})")
    rows, a_step = [], {}
    for width in WIDTHS:
        probe = Contender(cells, setting | {"d_model": width}, 2, 0)
        probe.train(10, until=10**6)  # warms up
        a_step[width] = probe.train(20, until=10**6) / 20
    for seconds in budgets:
        for place, width in enumerate(WIDTHS):
            contender = Contender(cells, setting | {"d_model": width}, 2, 0)
            n_steps = int(seconds / a_step[width])
            used = contender.train(n_steps, until=n_steps)
            nll, error = contender.test(setting["n_rounds"])
            n_weights = sum(weight.numel() for weight in contender.net.parameters())
            print(
                f"{width:5}  {n_weights:10,}  {used:5.0f}  {n_steps:5,}  {nll:.4f} ± {error:.4f}",
                flush=True,
            )
            rows.append((place, used, nll))
    fit_law(rows, measure_floor(folder, len(tokens)))


def fit_law(rows: list[tuple[int, float, float]], floor: float) -> None:
    """Print powers of the excess over the floor: each width's, and that of the best width."""
    log_seconds, log_excess = (np.log([r[1] for r in rows]), np.log([r[2] - floor for r in rows]))
    is_of = np.array([[row[0] == place for place in range(len(WIDTHS))] for row in rows], float)
    slopes, errors = fit_lines(is_of, log_seconds[:, None] * is_of, log_excess)
    told = [
        f"{width}: {-slope:.2f} ± {error:.2f}"
        for width, slope, error in zip(WIDTHS, slopes, errors, strict=True)
    ]
    print(f"by the law that made them {floor:.4f}; excess ~ seconds ^ -power, power of width")
    print(", ".join(told))
    size = len(WIDTHS)
    best = [min(rows[i : i + size], key=lambda row: row[2]) for i in range(0, len(rows), size)]
    x, y = np.log([row[1] for row in best]), np.log([row[2] - floor for row in best])
    (slope,), (error,) = fit_lines(np.ones((len(x), 1)), x[:, None], y)
    print(f"of the best width at each time: {-slope:.2f} ± {error:.2f}")


def fit_lines(starts: Any, slopes: Any, values: Any) -> tuple[Any, Any]:
    """Least squares; the slopes and their standard errors, from what is left over."""
    design, n_free = np.hstack([starts, slopes]), len(values) - starts.shape[1] - slopes.shape[1]
    found = np.linalg.lstsq(design, values, rcond=None)[0]
    variance = ((values - design @ found) ** 2).sum() / n_free
    errors = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    return found[starts.shape[1] :], errors[starts.shape[1] :]


def measure_floor(folder: Path, n_cells: int) -> float:
    """What held-out cells cost by the law that made them, nats a gene."""
    edges, total = LogBinTokens().edges.numpy(), 0.0
    for counts_g, law in find_true_laws(open_cells("atlas", folder, split={"by": "cell"}), n_cells):
        place = np.searchsorted(edges, counts_g, side="right")
        above = np.append(edges, np.inf)[place] - 1
        p_tg = law.cdf(above) - law.cdf(edges[place - 1] - 1)
        total -= float(np.log(np.maximum(p_tg, 1e-12)).mean(1).max())
    return total / n_cells


def compare_compiled(folder: Path) -> None:
    """Print what compiling takes, and what it saves of a step."""
    inductor.compile_threads, inductor.force_disable_caches = 1, True  # all of it, and here
    print(
        "cells  genes  ms a step  compiled  of it (quartiles)    compiling, CPU s  paid back after"
    )
    for name in ("pbmc", "atlas"):
        cells = read_cells(name, folder)
        plain, compiled = (Contender(cells, CELLS[name], 2, 0) for _ in range(2))
        compiled.net.compile()
        plain.train(10, until=10**6)  # warms up
        started = sum(os.times()[:4])
        compiled.train(10, until=10**6)
        once = sum(os.times()[:4]) - started
        rounds = [[c.train(20, until=10**6) / 20 for c in (plain, compiled)] for _ in range(24)]
        a_step, of_compiled = np.median(rounds, axis=0)
        low, middle, high = np.quantile(
            [after / before for before, after in rounds], (0.25, 0.5, 0.75)
        )
        once -= 10 * of_compiled
        paid = f"{once / (a_step * (1 - middle)):,.0f} steps" if middle < 1 else "never"
        print(
            f"{name:5}  {cells['held_out'][0].shape[1]:5,}  {1e3 * a_step:9.1f}  "
            f"{1e3 * of_compiled:8.1f}  {middle:.3f} ({low:.3f} to {high:.3f})  {once:16.1f}  "
            f"{paid:>15}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short, few samples")
    parser.add_argument("--compiled", action="store_true", help="a step, compiled and as it is")
    arguments = parser.parse_args()
    quick = arguments.quick
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.compiled:
            compare_compiled(Path(folder))
            return
        lost, error = draw_step_curve(Path(folder), 4 if quick else 16)
        print(f"{DEFAULT} steps give away {lost:.3f} ± {error:.3f} of the scale for {STEPS[-1]}")
        draw_size_curve(Path(folder), (5, 10, 20) if quick else SECONDS)
    print_goal("scale_lost_by_default_steps", lost, "<=", 0.03, digits=3)


if __name__ == "__main__":
    main()
