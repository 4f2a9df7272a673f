"""Draw `docs/images/results.png`: `python docs/draw_results.py RUN_DIR DATA_DIR`.

Rates come from the reports in `benchmarks/results`; cells from a run of `make train` (`runs/DATE`)
and the directory that it prepared (`data/pbmc`).
"""

import re
import sys
from pathlib import Path

import anndata as ad
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scdiff_data import HVGDataset

ROOT = Path(__file__).parents[1]
OURS, OTHERS, REAL = "#0072B2", "#999999", "#E69F00"
"""Okabe and Ito's colors, which color-blind readers tell apart."""

LOADERS = {"scdiff_data": "scdiff_data", "cellstream": "cellstream", "annbatch": "annbatch"}
LOADERS |= {"plain DataLoader, 2 workers": "DataLoader, h5py", "scdataset": "scDataset"}
LOADERS |= {"scdl": "BioNeMo SCDL", "annloader": "AnnLoader"}
"""Rows of the report, and what they are called here."""

BEYOND = {"compact window": "scdiff_data\ncompact, windows", "annbatch": "annbatch"}
BEYOND |= {"dense window": "scdiff_data\ndense, windows"}
BEYOND |= {"compact global": "scdiff_data\ncompact, global"}
"""Likewise, of data four times the memory."""


def read_rate(report: str, row: str) -> float:
    """Cells a second in the first row of that name."""
    found = re.search(rf"^{re.escape(row)} +([\d,]+)", report, re.MULTILINE)
    if found is None:
        sys.exit(f"no row {row!r} in the report: is it of another version?")
    return float(found[1].replace(",", ""))


def draw_rates(axes: Axes, rates: dict[str, float], title: str) -> None:
    """Bars, the fastest on top."""
    names = sorted(rates, key=rates.__getitem__)
    colors = [OURS if name.startswith("scdiff") else OTHERS for name in names]
    axes.barh(names, [rates[name] for name in names], color=colors)
    for place, name in enumerate(names):
        axes.text(rates[name] * 1.15, place, f"{rates[name]:,.0f}", va="center", fontsize=9)
    axes.set(xscale="log", xlim=(1e3, 2e7), title=title, xlabel="cells a second")
    axes.spines[["top", "right"]].set_visible(False)


def draw_cells(axes: Axes, real: NDArray[np.integer], made: NDArray[np.integer]) -> None:
    """Real and generated cells in the components of both."""
    n_cells = min(len(real), len(made))
    logs = np.log1p(np.concatenate([real[:n_cells], made[:n_cells]]).astype(float))
    centred = logs - logs.mean(0)
    x, y = (centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T).T
    axes.scatter(x[:n_cells], y[:n_cells], s=12, c=REAL, linewidths=0, label="real")
    axes.scatter(x[n_cells:], y[n_cells:], s=12, c=OURS, alpha=0.6, linewidths=0, label="generated")
    axes.set(title="blood cells, after a minute on two cores", xticks=[], yticks=[])
    axes.set(xlabel="component 1", ylabel="component 2")
    axes.legend(frameon=False)


def main(run_dir: str, data_dir: str) -> None:
    """Draw all three."""
    reports = ROOT / "benchmarks" / "results"
    loader = (reports / "loader.md").read_text("utf-8")
    beyond = (reports / "beyond_annbatch.md").read_text("utf-8")
    figure = Figure(figsize=(15, 4.2), layout="constrained", dpi=110)
    first, second, third = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 1])
    rates = {name: read_rate(loader, row) for row, name in LOADERS.items()}
    draw_rates(first, rates, "batches of 2,000 genes, data in memory")
    rates = {name: read_rate(beyond, f"{row}, D/M 4") for row, name in BEYOND.items()}
    draw_rates(second, rates, "data four times the memory")
    made = ad.read_h5ad(Path(run_dir) / "generated.h5ad").X.toarray()
    real = HVGDataset(data_dir, split="train")[:].expression.numpy()
    draw_cells(third, real, made)
    figure.savefig(ROOT / "docs" / "images" / "results.png", metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
