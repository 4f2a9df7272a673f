"""How genes were chosen, as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from scdiff_data.base import BLUE, GREY, new_figure, save_figure
from scdiff_data.genes.choice import GeneChoice
from scdiff_data.reading import GeneAxis

_N_TOP_GENES = 20
"""Genes named in the picture."""


_FILLED: dict[str, Any] = {"histtype": "stepfilled"}
"""A histogram as one shape: forty bars take as long to draw as all else."""


def plot_hvgs(path: Path, choice: GeneChoice, axis: GeneAxis) -> None:
    """Draw how genes were chosen, and what the chosen ones are like.

    Parameters
    ----------
    path
        PNG to write, whole or not at all.
    choice
        The genes, and what they were chosen from.
    axis
        The reference genes, whose symbols are shown.
    """
    mean = choice.mean
    dispersion = choice.dispersion
    percent = 100 * choice.cell_fraction
    is_kept = np.zeros(len(axis), dtype=bool)
    is_kept[choice.indices[choice.indices >= 0]] = True
    counts = "count scaled to 10,000 a cell" if choice.is_scaled else "count"
    title = f"{is_kept.sum():,} of {len(axis):,} genes, {choice.n_cells:,} training cells"
    figure, axes = new_figure(2, 2, size=(11, 8.5), title=f"{title}: {choice.how}")
    (scatter, expression), (coverage, top) = axes

    drawable = (mean > 0) & (dispersion > 0)
    for chosen, color, label in ((~is_kept, GREY, "other genes"), (is_kept, BLUE, "chosen")):
        shown = chosen & drawable
        scatter.scatter(
            mean[shown],
            dispersion[shown],
            s=9,
            c=color,
            label=label,
            linewidths=0,
            rasterized=True,
        )
    scale = "log" if drawable.any() else "linear"
    scatter.set(xscale=scale, yscale=scale, xlabel=f"mean {counts}", ylabel="variance / mean")
    scatter.set_title("dispersion against mean")
    scatter.legend(frameon=False, markerscale=2, loc="upper left")

    expressed = mean[mean > 0]
    edges = np.geomspace(expressed.min(), expressed.max() * 1.001, 40) if len(expressed) else [1, 2]
    expression.hist(expressed, bins=edges, color=GREY, label="all genes", **_FILLED)
    expression.hist(mean[is_kept & (mean > 0)], bins=edges, color=BLUE, label="chosen", **_FILLED)
    expression.set(xscale="log", xlabel=f"mean {counts}", ylabel="genes")
    expression.set_title("expression")
    expression.legend(frameon=False, loc="upper right")

    shares = np.linspace(0, 100, 41)
    coverage.hist(percent, bins=shares, color=GREY, label="all genes", **_FILLED)
    coverage.hist(percent[is_kept], bins=shares, color=BLUE, label="chosen", **_FILLED)
    coverage.set(xlabel="cells that express the gene (%)", ylabel="genes", yscale="log")
    coverage.set_title("cell coverage")
    coverage.legend(frameon=False, loc="upper right")

    best = choice.best(_N_TOP_GENES)
    top.barh(np.arange(len(best)), choice.shown_score[best], color=BLUE)
    top.set_yticks(np.arange(len(best)), [axis.symbols[gene] for gene in best], fontsize=8)
    top.invert_yaxis()
    top.set(xlabel=choice.score_name, title=f"top {len(best)} genes")
    save_figure(figure, path)
