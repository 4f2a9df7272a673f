"""The genes' picture is written whole, the same for the same data, and for any genes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data.genes.choice import GeneChoice
from scdiff_data.genes.figure import plot_hvgs
from scdiff_data.reading.gene_axis import GeneAxis


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


@pytest.mark.parametrize("make", [genes], ids=["hvgs"])
def test_the_same_data_give_the_same_bytes_and_nothing_else(tmp_path: Path, make: Any) -> None:
    plot_hvgs(tmp_path / "new" / "a.png", **make())
    plot_hvgs(tmp_path / "new" / "b.png", **make())
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
