"""Pictures are written whole, the same for the same data, and for any data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data.plots import plot_hvgs, plot_report


def gene_statistics(n_genes: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.3, 2.0, n_genes)
    mean[:2] = 0
    dispersion = np.where(mean > 0, 1.0 + mean * rng.random(n_genes), np.nan)
    return {
        "mean": mean,
        "dispersion": dispersion,
        "cell_fraction": 1 - np.exp(-mean),
        "hvg_indices": np.argsort(-np.nan_to_num(dispersion))[:25],
        "gene_symbols": [f"GENE{i}" for i in range(n_genes)],
    }


def run() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    curves = {
        "step": [10, 20],
        "train/loss": [1.0, 0.9],
        "val/loss": [1.0, 0.95],
        "val/marginal": [1.1, 1.1],
    }
    counts = [rng.poisson(rng.gamma(1.0, 1.0, 30), (n, 30)) for n in (40, 25)]
    return {"curves": curves, "generated_counts": counts[0], "real_counts": counts[1]}


@pytest.mark.parametrize(
    ("plot", "make"), [(plot_hvgs, gene_statistics), (plot_report, run)], ids=["hvgs", "report"]
)
def test_the_same_data_give_the_same_bytes_and_nothing_else(
    tmp_path: Path, plot: Any, make: Any
) -> None:
    plot(tmp_path / "new" / "a.png", **make())
    plot(tmp_path / "new" / "b.png", **make())
    first, second = sorted((tmp_path / "new").iterdir())
    assert first.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert first.read_bytes() == second.read_bytes()


def test_genes_that_are_all_silent_draw(tmp_path: Path) -> None:
    statistics = gene_statistics(5) | {"mean": np.zeros(5), "dispersion": np.full(5, np.nan)}
    plot_hvgs(tmp_path / "hvgs.png", **(statistics | {"hvg_indices": np.arange(2)}))
    assert (tmp_path / "hvgs.png").exists()


def test_a_report_without_a_validation_or_with_empty_cells_draws(tmp_path: Path) -> None:
    empty: dict[str, list[float]] = {name: [] for name in run()["curves"]}
    silent = {"generated_counts": np.zeros((3, 30), int), "real_counts": np.zeros((2, 30), int)}
    plot_report(tmp_path / "report.png", curves=empty, **silent)
    assert (tmp_path / "report.png").exists()
