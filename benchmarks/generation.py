"""Cells of the demo model beside scVI's, trained as long: `python benchmarks/generation.py`.

Both are trained on the same cells for the same CPU-seconds, one thread each, and told the cells'
types: on the embedded blood cells (192 genes; held-out cells), on 20,000 simulated cells x 2,000
genes of experiments with batch effects (held-out experiments), and, ours alone, on a simulated
screen of 12 perturbations. Ours has the settings of `configs/model/tiny.yaml`, with patches for the
atlas; scVI its defaults, and new cells from it are draws of its prior at training cells' library
sizes. Beside them: `scvi, posterior`, its noise around training cells (no new cells, strictly),
other real cells, and two cheats.

Figures stand beside held-out cells, and on the scale where 0 is a cheat and 1 a replicate of the
experiment. Log-fold changes stand beside real ones, and on the atlas beside the true ones.
`cell-eval2` scores the same cells by its own measures. What is not installed is skipped by name;
`--python scvi=PATH` and `--python cell-eval2=PATH` name other interpreters. `--quick` takes a fifth
of the time, and one seed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fixtures.generating import CELLS, CONTROL, make_atlas, open_cells, train_ours, train_scvi
from fixtures.goals import print_goal
from fixtures.judges import choose_cells, judge, print_judgement, write_samples

BETTER = {"mmd2": "lower", "wasserstein_per_gene": "lower", "gene_correlation_agreement": "higher"}
SHOWN = [*BETTER, "library_cv_ratio", "gene_variance_ratio", "nearest_neighbour_accuracy"]
JOBS = {
    "ours": lambda job: train_ours(job["cells"], Path(job["folder"]), job["seconds"], job["seed"]),
    "scvi": lambda job: train_scvi(job["cells"], Path(job["folder"]), job["seconds"], job["seed"]),
    "cell-eval2": judge,
}
"""What runs in a process of its own."""


def start(job: dict[str, Any], pythons: dict[str, str]) -> dict[str, Any] | None:
    """Run a job; what it printed last, or None and a line if another's package is missing."""
    name = job["name"]
    done = subprocess.run(
        [pythons.get(name, sys.executable), __file__, "--run", json.dumps(job)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    if not done.returncode:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    said = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if name == "ours" or not said.startswith("ModuleNotFoundError"):
        raise RuntimeError(f"{name}: {said}")
    print(f"skipped {name}: {said}")
    return None


def keep_real(name: str, folder: Path) -> None:
    """Write the real cells of all contenders and judges, and say what they are."""
    cells, label = open_cells(name, folder), CELLS[name]["label"]
    train, *held = (
        data[:] for data in (cells.train_dataset, cells.test_dataset, cells.val_dataset)
    )
    if name == "atlas":
        held = held[:1]  # validation's are other experiments
    parts = {"train": [train], "held_out": held}
    real: dict[str, Any] = {"names": np.array(cells.categories[label])}
    real["genes"] = np.array([int(gene[4:]) for gene in cells.gene_ids] if name == "atlas" else [])
    for part, batches in parts.items():
        real[part] = np.concatenate([np.asarray(batch.expression) for batch in batches])
        real[f"{part} codes"] = np.concatenate([np.asarray(b.metadata[label]) for b in batches])
    np.savez(folder / f"{name}-real.npz", **real)
    ids = {e for batch in held for e in np.asarray(batch.metadata["experiment_id"]).tolist()}
    what = f"{len(ids)} held-out experiments" if name == "atlas" else "held-out cells"
    shape = f"{len(train.expression):,} training cells x {real['train'].shape[1]:,} genes"
    print(f"\n{name}: {shape}, {len(real['held_out']):,} cells of {what}")


def compare(real: Any, samples: dict[str, Any], n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every sample's figures, and its places on the scale."""
    from scdiff_data.measuring import (
        TrainingCells,
        compare_cells,
        compare_replicates,
        draw_mean_profiles,
        rescale_scores,
        shuffle_genes,
        take_medians,
    )

    train, held_out = real["train"].astype(np.int64), real["held_out"].astype(np.int64)
    trained, m = TrainingCells.fit(train), min(n, len(held_out) // 2)
    cheats = {"genes_shuffled": shuffle_genes(train)[:n]}
    cheats |= {"mean_profile": draw_mean_profiles(train)[:n]}
    counts = {name: counts[:n] for name, (counts, _) in samples.items()} | cheats
    figures = {name: compare_cells(own, held_out[:n], trained) for name, own in counts.items()}
    replicates = list(compare_replicates(held_out[: 2 * m], trained))
    figures["real"] = take_medians(replicates)
    halves = {name: compare_cells(own[:m], held_out[:m], trained) for name, own in counts.items()}
    scale = {name: rescale_scores(own, replicates, halves) for name, own in halves.items()}
    return figures, scale


def measure_all_effects(real: Any, samples: dict[str, Any], label: str) -> dict[str, Any]:
    """Effects of each contender beside those of held-out cells."""
    from scdiff_data.measuring import compare_effects

    held_out, names = real["held_out"].astype(np.int64), real["names"].tolist()
    return {
        name: compare_effects(
            counts, codes, held_out, real["held_out codes"], label=label, names=names, is_given=True
        )
        for name, (counts, codes) in samples.items()
    }


def measure_true_slope(real: Any, counts: Any, codes: Any) -> float:
    """Median least-squares slope of a sample's effects on the true ones, which have no noise."""
    from scdiff_data.measuring.effects import measure_effects, set_depth

    held_out = real["held_out"]
    depth = float(np.median(held_out.sum(1)))
    profiles = make_atlas().read_profiles()[:, real["genes"]]
    true = depth * profiles / profiles.sum(1, keepdims=True)
    numbers = [int(name.split()[1]) for name in real["names"]]
    known = [code for code in range(len(numbers)) if (codes == code).sum() >= 12]
    flat = set_depth(counts, depth)
    own = np.array([flat[codes == code].mean(0) for code in known])
    true = true[[numbers[code] for code in known]]
    slopes = []
    for i in range(len(known)):
        for j in range(i):
            genes = np.flatnonzero(true[[i, j]].max(0) >= 0.1)
            x, y = (measure_effects(profile, i, j, genes) for profile in (true, own))
            slopes.append(np.cov(x, y)[0, 1] / x.var(ddof=1))
    return float(np.median(slopes))


def ask_judge(
    name: str, folder: Path, real: Any, samples: dict[str, Any], pythons: dict[str, str]
) -> None:
    """Print cell-eval2's scores of samples, of a replicate and of a baseline."""
    is_screen, path = name == "perturbed", folder / f"{name}-judged.npz"
    for perturbations in (True, False) if is_screen else (False,):
        chosen = choose_cells(real, samples, control=CONTROL if perturbations else None)
        if chosen is None:
            print("skipped cell-eval2: it wants 50 cells of two labels at least, twice")
            return
        control = write_samples(path, chosen, control=CONTROL if is_screen else None)
        job = {"name": "cell-eval2", "path": str(path), "control": control}
        job |= {"samples": [one for one in chosen if one != "real"]}
        if (scores := start(job | {"perturbations": perturbations}, pythons)) is None:
            return
        print_judgement(scores)


def run_cells(
    name: str, folder: Path, share: float, pythons: dict[str, str]
) -> list[tuple[str, float, str, float]]:
    """Print the tables of some cells; their goals."""
    keep_real(name, folder)
    real, told = np.load(folder / f"{name}-real.npz"), {}
    found: dict[str, list[dict[str, float]]] = {}
    places: dict[str, list[dict[str, float | None]]] = {}
    effects: dict[str, list[Any]] = {}
    samples: dict[str, Any] = {}
    for seed in range(CELLS[name]["n_seeds"] if share == 1 else 1):
        seconds, samples = share * CELLS[name]["seconds"], {}
        for contender in ("ours", "scvi") if name != "perturbed" else ("ours",):
            job = {"name": contender, "cells": name, "folder": str(folder), "seed": seed}
            told = start(job | {"seconds": seconds}, pythons)
            if told is None:
                continue
            shown = {k: round(v, 4) for k, v in told.items()}
            print(f"trained {contender}, seed {seed}: {shown}", flush=True)
            held = np.load(folder / f"{name}-{contender}.npz")
            own = [key for key in held if not key.endswith(" codes")]
            samples |= {key: (held[key], held[f"{key} codes"]) for key in own}
            seconds = told["seconds"]  # ours goes by steps, and may take a little longer
        if name == "perturbed":
            continue
        figures, scale = compare(real, samples, CELLS[name]["n_sampled"])
        for key, scores in figures.items():
            found.setdefault(key, []).append(scores)
        for key, scores in scale.items():
            places.setdefault(key, []).append(scores)
        for key, own in measure_all_effects(real, samples, CELLS[name]["label"]).items():
            effects.setdefault(key, []).append(own)
    goals = print_figures(name, found, places, effects) if found else []
    if name == "atlas":
        slopes = {key: measure_true_slope(real, *own) for key, own in samples.items()}
        slopes["real"] = measure_true_slope(real, real["held_out"], real["held_out codes"])
        print(
            "  slope against the true log-fold changes: "
            + ", ".join(f"{key} {slope:.3f}" for key, slope in slopes.items())
        )
        goals += [(f"{name}_true_slope_low", slopes["ours"], ">=", 0.9)]
        goals += [(f"{name}_true_slope_high", slopes["ours"], "<=", 1.1)]
    ask_judge(name, folder, real, samples, pythons)
    return goals


def print_figures(
    name: str, found: dict[str, Any], places: dict[str, Any], effects: dict[str, Any]
) -> list[tuple[str, float, str, float]]:
    """Print medians over seeds; the goals."""
    median = {
        key: {score: float(np.median([s[score] for s in many])) for score in SHOWN}
        for key, many in found.items()
    }
    print(f"{'':17}" + "".join(f"{score[:16]:>24}" for score in SHOWN))
    for key, scores in median.items():
        cells = []
        for score in SHOWN:
            known = [one[score] for one in places.get(key, []) if one[score] is not None]
            place = f"({np.median(known):.2f})" if known else "(1)" if key == "real" else "(-)"
            cells.append(f"{scores[score]:16.4f} {place:>7}")
        print(f"{key:17}" + "".join(cells))
    print("in brackets: on the scale, 0 a cheat, 1 a replicate of as many cells")
    goals: list[tuple[str, float, str, float]] = []
    for key, many in effects.items():
        known = [one for one in many if one is not None]
        if not known:
            continue
        middle = sorted(known, key=lambda one: one.slope)[len(known) // 2]
        low, real, high = middle.slope_ceiling
        print(
            f"  log-fold changes of {key}, {len(middle.pairs)} pairs: slope {middle.slope:.3f}, "
            f"real {real:.3f} ({low:.3f} to {high:.3f}); correlation {middle.correlation:.3f}, "
            f"real {middle.correlation_ceiling[1]:.3f}"
        )
        if key == "ours" and name == "pbmc":
            goals += [(f"{name}_slope_low", middle.slope, ">=", round(low, 3))]
            goals += [(f"{name}_slope_high", middle.slope, "<=", round(high, 3))]
    for score, better in BETTER.items() if "scvi" in median else ():
        ours, theirs = median["ours"][score], median["scvi"][score]
        if better == "lower":  # unbiased distances can be negative: none is better than 1e-5
            ours, theirs = 1 / max(ours, 1e-5), 1 / max(theirs, 1e-5)
        goals.append((f"{name}_{score}_vs_scvi", ours / theirs, ">=", 1))
    return goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time, one seed")
    parser.add_argument("--python", action="append", default=[], metavar="CONTENDER=PATH")
    parser.add_argument("--cells", choices=CELLS, help="only these")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        job = json.loads(arguments.run)
        print(json.dumps(JOBS[job["name"]](job)))
        return
    pythons = dict(option.split("=", 1) for option in arguments.python)
    share, goals = 0.2 if arguments.quick else 1.0, []
    with tempfile.TemporaryDirectory() as folder:
        for name in [arguments.cells] if arguments.cells else CELLS:
            goals += run_cells(name, Path(folder), share, pythons)
    for goal in goals:
        print_goal(*goal)
    if arguments.cells != "perturbed" and not any(goal[0].endswith("_vs_scvi") for goal in goals):
        print("skipped goals against scvi: it is not installed")


if __name__ == "__main__":
    main()
