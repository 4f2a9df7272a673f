"""The genes' picture is written whole, the same for the same data, and for any genes; it says what
was chosen, what was passed over and why, and whether the choice follows depth."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data.genes.choice import GeneChoice, GeneSettings
from scdiff_data.genes.figure import draw_hvgs, plot_hvgs
from scdiff_data.reading.gene_axis import GeneAxis

SETTINGS = GeneSettings(
    n_hvgs=30,
    min_cells_pct=10,
    flavor="dispersion",
    normalize=False,
    span=0.3,
    batch_key=None,
    genes=None,
)


def genes(n_genes: int = 60, settings: GeneSettings = SETTINGS, **changes: Any) -> dict[str, Any]:
    """Genes whose dispersion follows their mean; the first is mitochondrial, the second keeps the
    house, and some are in too few cells."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.3, 2.0, n_genes)
    mean[:2], mean[2:4] = [8.0, 0.5], 0
    dispersion = np.where(mean > 0, 1.0 + mean * (0.5 + rng.random(n_genes)), 0)
    names = ("MT-ND1", "VCP", *(f"GENE{i}" for i in range(2, n_genes)))
    fraction = 1 - np.exp(-mean)
    best = np.argsort(-np.where(fraction >= 0.1, dispersion, 0))
    choice = GeneChoice(
        how="dispersion",
        indices=np.r_[best[: n_genes // 3], -1],
        ids=names,
        symbols=names,
        mean=mean,
        dispersion=dispersion,
        score=np.where(fraction >= 0.1, dispersion, np.nan),
        cell_fraction=fraction,
        is_candidate=fraction >= 0.1,
        n_cells=100,
        is_scaled=False,
    )
    return {
        "choice": replace(choice, **changes),
        "axis": GeneAxis(names, names),
        "settings": settings,
    }


def read_texts(figure: Any) -> list[str]:
    """Everything that the legend above the panels says, its title first."""
    (legend,) = figure.legends
    return [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]


def test_the_same_data_give_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    plot_hvgs(tmp_path / "new" / "a.png", **genes())
    plot_hvgs(tmp_path / "new" / "b.png", **genes())
    first, second = sorted((tmp_path / "new").iterdir())
    assert first.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert first.read_bytes() == second.read_bytes()


def test_it_says_which_genes_were_chosen_which_not_and_why() -> None:
    given = genes()
    choice, figure = given["choice"], draw_hvgs(**given)
    n_few = int((~choice.is_candidate & (choice.mean > 0)).sum())
    n_other = int(choice.is_candidate.sum()) - 20
    assert read_texts(figure) == [
        "20 of 60 genes, the best by flavor=dispersion; 100 training cells",
        f"not chosen ({n_other})",
        f"in fewer than 10 % of the cells ({n_few})",
        "chosen (20)",
        "mitochondrial (filled: chosen, 1 of 1)",
        "house-keeping (filled: chosen, 0 of 1)",
    ]
    scatter, top, expression, coverage = figure.axes
    assert scatter.get_ylabel() == "variance / mean (log scale)"
    assert expression.get_xlabel() == "mean count a cell (log scale)"
    assert coverage.get_xlabel() == "training cells that express the gene (%)"
    assert [text.get_text() for text in coverage.texts] == ["min_cells_pct = 10 "]
    assert len(top.get_yticklabels()) == 20


@pytest.mark.parametrize(
    ("how", "normalize", "ways"),
    [
        ("dispersion", False, "normalize=true or flavor=seurat does so less."),
        ("dispersion", True, "depth of the cells: flavor=seurat does so less."),
        ("seurat", False, "and with it the depth of the cells."),
    ],
)
def test_a_choice_that_follows_depth_names_the_ways_out(
    how: str, normalize: bool, ways: str
) -> None:
    settings = replace(SETTINGS, flavor=how, normalize=normalize)
    said = draw_hvgs(**genes(settings=settings, how=how)).get_supxlabel()
    assert said.startswith("rank correlation of score and mean expression: 0.9")
    assert said.endswith(ways)


def test_a_choice_that_does_not_follow_depth_gets_no_hint() -> None:
    score = np.random.default_rng(1).random(60)
    said = draw_hvgs(**genes(score=score)).get_supxlabel()
    assert said.startswith("rank correlation")
    assert "\n" not in said


def test_scores_that_are_all_alike_follow_nothing() -> None:
    assert draw_hvgs(**genes(score=np.ones(60))).get_supxlabel() == ""


def test_genes_that_are_all_silent_draw(tmp_path: Path) -> None:
    zeros, silent, none = np.zeros(5), np.full(5, np.nan), np.zeros(5, bool)
    plot_hvgs(
        tmp_path / "hvgs.png",
        **genes(
            5, mean=zeros, dispersion=zeros, score=silent, cell_fraction=zeros, is_candidate=none
        ),
    )
    assert (tmp_path / "hvgs.png").exists()


@pytest.mark.parametrize("how", ["given", "all", "seurat"])
def test_genes_that_were_not_ranked_draw_too(tmp_path: Path, how: str) -> None:
    plot_hvgs(tmp_path / "hvgs.png", **genes(how=how))
    assert (tmp_path / "hvgs.png").exists()
