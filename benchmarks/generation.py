"""Cells of the demo model beside scVI's, trained as long: `python benchmarks/generation.py`.

Both are trained on the same cells for the same CPU-seconds, one thread each: on the embedded blood
cells (192 genes), and on 20,000 simulated cells x 2,000 genes. Ours has the settings of
`configs/model/tiny.yaml`, with patches for the atlas; scVI its defaults, and new cells from it are
draws of its prior at training cells' library sizes. Beside them: `scvi, posterior`, its noise
around training cells (no new cells, strictly), other real cells, and two cheats. All are compared
with held-out cells. scVI is skipped where it is not installed; `--python scvi=PATH` names another
interpreter. 30 and 300 CPU-seconds; `--quick` takes a fifth of them, and one seed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from fixtures.goals import print_goal
from fixtures.training import QUIET

CELLS: dict[str, dict[str, Any]] = {
    "pbmc": {"seconds": 30, "n_sampled": 512, "n_seeds": 3},
    "atlas": {"seconds": 300, "n_sampled": 1_500, "n_seeds": 1},
}
BETTER = {"mmd2": "lower", "wasserstein_per_gene": "lower", "gene_correlation_agreement": "higher"}
SHOWN = [*BETTER, "library_cv_ratio", "gene_variance_ratio", "nearest_neighbour_accuracy"]


def open_cells(name: str, folder: Path) -> Any:
    """The datamodule, prepared."""
    from scdiff_data import LogBinTokens, Pbmc, ScRNADataModule, SimulatedAtlas

    common: dict[str, Any] = {"split": {"by": "cell"}, "tokenizer": LogBinTokens()}
    if name == "pbmc":
        common |= {"n_hvgs": 192, "min_cells_pct": 5, "min_genes": None, "min_counts": None}
        cells = ScRNADataModule(Pbmc(), folder / name, batch_size=32, **common)
    else:
        source = SimulatedAtlas(n_experiments=13, n_cells=2_000, n_genes=2_500)
        settings = {"cell_count": 20_000, "n_hvgs": 2_000, "batch_size": 64} | common
        cells = ScRNADataModule(source, folder / name, **settings)
    cells.prepare_data()
    cells.setup()
    return cells


def train_ours(name: str, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Train, and write generated counts."""
    import torch
    from lightning.pytorch import Trainer

    from scdiff_data.diffusion import MaskedDiffusion, WeightEMA

    def train(n_steps: int) -> tuple[MaskedDiffusion, float]:
        model = MaskedDiffusion(**settings, seed=seed)
        trainer = Trainer(
            accelerator="cpu",
            max_steps=n_steps,
            gradient_clip_val=1.0,
            callbacks=[WeightEMA(0.99)],
            **QUIET,
        )
        started = time.process_time()
        trainer.fit(model, datamodule=cells)
        return model, time.process_time() - started

    torch.set_num_threads(1)
    cells = open_cells(name, folder)
    settings: dict[str, Any] = {"n_layers": 1, "learning_rate": 1e-2, "patch_size": 8}
    if name == "atlas":
        settings["patch_size"] = 100
    probe = 20
    train(2)
    first, second = train(probe)[1], train(2 * probe)[1]
    n_steps = int(seconds / ((second - first) / probe))
    model, used = train(n_steps)
    generated = model.generate(CELLS[name]["n_sampled"], steps=64, seed=seed).X.toarray()
    np.savez(folder / f"{name}-ours.npz", ours=generated)
    return {"seconds": used, "steps": n_steps}


def train_scvi(name: str, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """The same with scVI."""
    import anndata
    import scvi
    import torch
    from lightning.pytorch import Callback
    from scipy import sparse

    torch.set_num_threads(1)

    class Stop(Callback):
        """At the end of the first epoch after so many CPU-seconds."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop = time.process_time() - started > seconds

    scvi.settings.seed, scvi.settings.dl_num_workers = seed, 0
    counts = np.load(folder / f"{name}-real.npz")["train"]
    cells = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    scvi.model.SCVI.setup_anndata(cells)

    quiet: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}
    scvi.model.SCVI(cells).train(max_epochs=1, **quiet)  # what is done once only
    model, started = scvi.model.SCVI(cells), time.process_time()
    model.train(max_epochs=100_000, callbacks=[Stop()], **quiet)
    used, n_epochs = time.process_time() - started, len(model.history["elbo_train"])
    n, rng = CELLS[name]["n_sampled"], np.random.default_rng(seed)
    rows = rng.integers(len(counts), size=n)
    library = torch.from_numpy(np.log(counts[rows].sum(1, keepdims=True) + 1e-8)).float()
    module = model.module.eval()
    with torch.no_grad():
        parts = module.generative(
            z=torch.randn(n, module.n_latent),
            library=library,
            batch_index=torch.zeros(n, 1, dtype=torch.int64),
        )
        prior = parts["px"].sample().numpy().astype(np.int64)
    posterior = model.posterior_predictive_sample(cells, indices=rows, n_samples=1).todense()
    posterior = np.asarray(posterior).reshape(n, -1).astype(np.int64)
    np.savez(folder / f"{name}-scvi.npz", **{"scvi": prior, "scvi, posterior": posterior})
    return {"seconds": used, "epochs": n_epochs}


def start(job: dict[str, Any], python: str) -> dict[str, Any]:
    """Run a job in a process of its own; what it printed last."""
    done = subprocess.run(
        [python, __file__, "--run", json.dumps(job)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(name: str, folder: Path, contenders: list[str]) -> dict[str, dict[str, float]]:
    """Every sample against the held-out cells."""
    from scdiff_data.evaluation.metrics import compare_cells, draw_mean_profiles, shuffle_genes

    real = np.load(folder / f"{name}-real.npz")
    n, train = CELLS[name]["n_sampled"], real["train"].astype(np.int64)
    held_out = real["held_out"].astype(np.int64)[:n]
    samples = {}
    for contender in contenders:
        samples |= dict(np.load(folder / f"{name}-{contender}.npz"))
    samples |= {"real": train[:n], "genes shuffled": shuffle_genes(train)[:n]}
    samples |= {"mean profile": draw_mean_profiles(train)[:n]}
    return {key: compare_cells(sample, held_out, train) for key, sample in samples.items()}


def run_cells(
    name: str, folder: Path, share: float, pythons: dict[str, str]
) -> list[tuple[str, float]]:
    """Print one table; the goals' names and ratios."""
    cells = open_cells(name, folder)
    parts = [cells.train_dataset, cells.val_dataset, cells.test_dataset]
    train, *held_out = [np.asarray(part[:].expression) for part in parts]
    np.savez(folder / f"{name}-real.npz", train=train, held_out=np.concatenate(held_out))
    found: dict[str, list[dict[str, float]]] = {}
    shape = f"{len(train):,} training cells x {train.shape[1]:,} genes"
    print(f"\n{name}: {shape}, {sum(map(len, held_out)):,} held out")
    for seed in range(CELLS[name]["n_seeds"] if share == 1 else 1):
        contenders, seconds = [], share * CELLS[name]["seconds"]
        for contender in ("ours", "scvi"):
            job = {"contender": contender, "cells": name, "folder": str(folder), "seed": seed}
            job["seconds"] = seconds
            try:
                told = start(job, pythons.get(contender, sys.executable))
            except RuntimeError as error:
                if contender == "ours":
                    raise
                print(f"skipped {contender}: {error}")
                continue
            print(f"trained {contender}, seed {seed}: {told}", flush=True)
            contenders.append(contender)
            seconds = told["seconds"]  # ours goes by steps, and may take a little longer
        for key, scores in compare(name, folder, contenders).items():
            found.setdefault(key, []).append(scores)
    median = {
        key: {score: float(np.median([s[score] for s in many])) for score in SHOWN}
        for key, many in found.items()
    }
    print(f"{'':17}" + "".join(f"{score[:16]:>18}" for score in SHOWN))
    for key, scores in median.items():
        print(f"{key:17}" + "".join(f"{scores[score]:18.4f}" for score in SHOWN))
    if "scvi" not in median:
        return []
    goals = []
    for score, better in BETTER.items():
        ours, theirs = median["ours"][score], median["scvi"][score]
        if better == "lower":  # unbiased distances can be negative: none is better than 1e-5
            ours, theirs = 1 / max(ours, 1e-5), 1 / max(theirs, 1e-5)
        goals.append((f"{name}_{score}_vs_scvi", ours / theirs))
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
        train = {"ours": train_ours, "scvi": train_scvi}[job["contender"]]
        print(json.dumps(train(job["cells"], Path(job["folder"]), job["seconds"], job["seed"])))
        return
    pythons = dict(option.split("=", 1) for option in arguments.python)
    share = 0.2 if arguments.quick else 1.0
    goals = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [arguments.cells] if arguments.cells else CELLS:
            goals += run_cells(name, Path(folder), share, pythons)
    for name, ratio in goals:
        print_goal(name, ratio, ">=", 1)
    if not goals:
        print("skipped goals against scvi: it is not installed")


if __name__ == "__main__":
    main()
