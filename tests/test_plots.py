"""Pictures are written whole, the same for the same data, and for any data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data.archive.gene_axis import GeneAxis
from scdiff_data.evaluation.figure import plot_report
from scdiff_data.genes.choice import GeneChoice
from scdiff_data.genes.figure import plot_hvgs


def genes(n_genes: int = 60, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.3, 2.0, n_genes)
    mean[:2] = 0
    dispersion = np.where(mean > 0, 1.0 + mean * rng.random(n_genes), 0)
    names = tuple(f"GENE{i}" for i in range(n_genes))
    choice = GeneChoice(
        how="dispersion",
        indices=np.r_[np.argsort(-dispersion)[: n_genes // 2], -1],
        ids=names,
        symbols=names,
        mean=mean,
        dispersion=dispersion,
        score=np.where(mean > 0, dispersion, np.nan),
        cell_fraction=1 - np.exp(-mean),
        n_cells=100,
        n_candidates=n_genes - 2,
        is_scaled=False,
    )
    return {"choice": replace(choice, **changes), "axis": GeneAxis(names, names)}


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
    ("plot", "make"), [(plot_hvgs, genes), (plot_report, run)], ids=["hvgs", "report"]
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
    zeros, silent = np.zeros(5), np.full(5, np.nan)
    plot_hvgs(
        tmp_path / "hvgs.png",
        **genes(5, mean=zeros, dispersion=zeros, score=silent, cell_fraction=zeros),
    )
    assert (tmp_path / "hvgs.png").exists()


@pytest.mark.parametrize("how", ["given", "all", "seurat"])
def test_genes_that_were_not_ranked_draw_too(tmp_path: Path, how: str) -> None:
    plot_hvgs(tmp_path / "hvgs.png", **genes(how=how))
    assert (tmp_path / "hvgs.png").exists()


def test_a_report_without_a_validation_or_with_empty_cells_draws(tmp_path: Path) -> None:
    empty: dict[str, list[float]] = {name: [] for name in run()["curves"]}
    silent = {"generated_counts": np.zeros((3, 30), int), "real_counts": np.zeros((2, 30), int)}
    plot_report(tmp_path / "report.png", curves=empty, **silent)
    assert (tmp_path / "report.png").exists()
