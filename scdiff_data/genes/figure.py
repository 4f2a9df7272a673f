"""How genes were chosen, as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.base import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from scdiff_data.genes.choice import GeneChoice, GeneSettings
from scdiff_data.genes.marked import mark_genes
from scdiff_data.genes.ranking import FLAVORS
from scdiff_data.reading import GeneAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

_N_TOP_GENES = 20
"""Genes named in the picture."""

_FOLLOWS_DEPTH = 0.5
"""Rank correlation of score and mean from which on the picture hints at other choices.

Raw dispersion has 0.85 and 0.96 on atlases whose experiments differ tenfold in depth, and 0.44 on
blood cells of like depth; `seurat` stays below 0.1 on all three."""

_FEWEST_CORRELATED = 10
"""Genes that a rank correlation is shown of."""

_MARKS: dict[str, tuple[str, str]] = {"mitochondrial": ("D", ORANGE), "house-keeping": ("^", GREEN)}
"""Shape and color of the genes that readers look for."""

_TOO_FEW = "#777777"
"""Color of genes that too few cells express."""

_Bools = NDArray[np.bool_]
"""Whether each gene is of a kind."""


def plot_hvgs(path: Path, choice: GeneChoice, axis: GeneAxis, settings: GeneSettings) -> None:
    """Draw how genes were chosen, and what the chosen ones are like.

    Parameters
    ----------
    path
        PNG to write, whole or not at all.
    choice
        The genes, and what they were chosen from.
    axis
        The reference genes, whose symbols are shown.
    settings
        How they were chosen.
    """
    save_figure(draw_hvgs(choice, axis, settings), path)


def draw_hvgs(choice: GeneChoice, axis: GeneAxis, settings: GeneSettings) -> "Figure":
    """The picture that `plot_hvgs` writes."""
    is_kept = np.zeros(len(axis), dtype=bool)
    is_kept[choice.indices[choice.indices >= 0]] = True
    marks = mark_genes(axis)
    figure, axes = new_figure(2, 2, size=(12, 9.6), title="")
    (scatter, top), (expression, coverage) = axes
    _plot_scores(scatter, choice, settings, is_kept, marks)
    _plot_best(top, choice, axis, marks)

    counts = "count scaled to 10,000 a cell" if choice.is_scaled else "count"
    expressed = choice.mean[choice.mean > 0]
    _plot_shares(expression, choice.mean, is_kept, ends=(expressed.min(initial=1), None))
    expression.set(
        xlabel=f"mean {counts} a cell (log scale)", title="how much they are expressed (grey: all)"
    )
    percent = 100 * choice.cell_fraction
    _plot_shares(coverage, percent, is_kept, ends=(100 / max(choice.n_cells, 1), 100))
    coverage.set(
        xlabel="training cells that express the gene (%)", title="in how many cells (grey: all)"
    )
    coverage.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if 100 / max(choice.n_cells, 1) < settings.min_cells_pct < 100:
        coverage.axvline(settings.min_cells_pct, color=_TOO_FEW, linestyle="--")
        coverage.annotate(
            f"min_cells_pct = {settings.min_cells_pct:g} ",
            (settings.min_cells_pct, 1),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            color=_TOO_FEW,
        )
    # A title of the figure would lie on a legend above the panels: the legend has one of its own.
    legend = figure.legend(
        handles=[mark for mark in scatter.collections if str(mark.get_label())[0] != "_"],
        title=_title(choice, axis, is_kept),
        title_fontsize=15,
        loc="outside upper center",
        ncols=3,
        frameon=False,
    )
    for mark in legend.legend_handles:
        cast("PathCollection", mark).set_sizes([46])
    found, hint = _describe_depth(choice, settings)
    figure.supxlabel(f"{found}\n{hint}".strip(), fontsize=12, color=ORANGE if hint else "black")
    return figure


def _title(choice: GeneChoice, axis: GeneAxis, is_kept: _Bools) -> str:
    how = {"given": "as they were named", "all": "all there are"}.get(choice.how)
    how = how or f"the best by flavor={choice.how}"
    genes = f"{is_kept.sum():,} of {len(axis):,} genes"
    return f"{genes}, {how}; {choice.n_cells:,} training cells"


def _plot_scores(
    axes: "Axes",
    choice: GeneChoice,
    settings: GeneSettings,
    is_kept: _Bools,
    marks: dict[str, _Bools],
) -> None:
    """What genes were ranked by, against their mean."""
    score = choice.shown_score
    if choice.how == "dispersion" and settings.batch_key is None:
        score = choice.dispersion  # of genes that too few cells express, too
    is_shown = (choice.mean > 0) & np.isfinite(score)
    is_log = bool(is_shown.any()) and bool((score[is_shown] > 0).all())
    is_few = ~choice.is_candidate & (choice.mean > 0) & ~is_kept
    n_other = int((~is_kept & choice.is_candidate & (choice.mean > 0)).sum())
    few = f"in fewer than {settings.min_cells_pct:g} % of the cells ({is_few.sum():,})"
    few = few if (is_few & is_shown).any() else f"{few}: no score"
    groups: list[tuple[_Bools, dict[str, Any]]] = [
        (~is_kept & ~is_few, {"c": GREY, "s": 10, "label": f"not chosen ({n_other:,})"}),
        (is_few, {"c": _TOO_FEW, "s": 14, "marker": "x", "label": few, "linewidths": 0.8}),
        (is_kept, {"c": BLUE, "s": 10, "label": f"chosen ({is_kept.sum():,})"}),
    ]
    for is_member, style in groups:
        if is_member.any():
            chosen = is_member & is_shown
            style = {"linewidths": 0, "rasterized": True, **style}
            axes.scatter(choice.mean[chosen], score[chosen], **style)
    for name, is_marked in marks.items():
        marker, color = _MARKS[name]
        chosen = is_marked & is_shown
        if chosen.any():
            n = int((is_marked & is_kept).sum())
            axes.scatter(
                choice.mean[chosen],
                score[chosen],
                s=46,
                marker=marker,
                c=np.where(is_kept[chosen], color, "white"),
                edgecolors=color,
                linewidths=1.4,
                zorder=3,
                label=f"{name} (filled: chosen, {n} of {is_marked.sum()})",
            )
    has_cut = choice.how in FLAVORS and settings.batch_key is None and is_kept.any()
    if has_cut and not is_kept.all():
        axes.axhline(np.nanmin(score[is_kept]), color="black", linewidth=0.8, linestyle=":")
    counts = "count scaled to 10,000 a cell" if choice.is_scaled else "count"
    axes.set(
        xscale="log" if is_shown.any() else "linear",
        yscale="log" if is_log else "linear",
        xlabel=f"mean {counts} a cell (log scale)",
        ylabel=_name_score(choice, is_log=is_log),
        title="what they were ranked by" if choice.how in FLAVORS else "how variable they are",
    )


def _plot_shares(
    axes: "Axes", values: NDArray[Any], is_kept: _Bools, *, ends: tuple[float, float | None]
) -> None:
    """Histogram of the chosen genes over one of all, each in percent of its own number."""
    is_shown = values > 0
    first, last = ends[0], ends[1] or values.max(initial=ends[0])
    edges = np.geomspace(first / 1.001, max(last, first) * 1.001, 36)
    for chosen, color, alpha in ((is_shown, GREY, 1.0), (is_shown & is_kept, BLUE, 0.6)):
        if chosen.any():
            share = 100 * np.histogram(values[chosen], edges)[0] / chosen.sum()
            axes.stairs(share, edges, fill=True, color=color, alpha=alpha)
            axes.stairs(share, edges, color=color, linewidth=1.2)
    axes.set(xscale="log", ylabel="share of the genes (%)")


def _plot_best(axes: "Axes", choice: GeneChoice, axis: GeneAxis, marks: dict[str, _Bools]) -> None:
    """The best genes by name; as points, which a logarithmic axis leaves comparable."""
    best = choice.best(_N_TOP_GENES)
    score, places = choice.shown_score[best], np.arange(len(best))
    is_log = len(best) > 0 and bool(score.min() > 0) and score.max() > 10 * score.min()
    axes.hlines(places, score.min(initial=0) if not is_log else score.min() / 1.5, score, GREY)
    axes.scatter(score, places, c=BLUE, s=36, zorder=2)
    axes.set_yticks(places, [axis.symbols[gene] for gene in best], fontsize=9)
    for label, gene in zip(axes.get_yticklabels(), best, strict=True):
        for name, is_marked in marks.items():
            if is_marked[gene]:
                label.set_color(_MARKS[name][1])
    axes.invert_yaxis()
    axes.set(
        xlabel=_name_score(choice, is_log=is_log),
        xscale="log" if is_log else "linear",
        title=f"the first {len(best)} genes",
    )
    axes.grid(axis="x", color="#E5E5E5", zorder=0)


def _name_score(choice: GeneChoice, *, is_log: bool) -> str:
    name = choice.score_name
    name = "variance / mean" if name == "dispersion" else name
    return f"{name} (log scale)" if is_log else name


def _describe_depth(choice: GeneChoice, settings: GeneSettings) -> tuple[str, str]:
    """How closely the score follows the mean, and what does so less; empty where neither is so."""
    is_ranked = choice.is_candidate & np.isfinite(choice.score) & (choice.mean > 0)
    if choice.how not in FLAVORS or is_ranked.sum() < _FEWEST_CORRELATED:
        return "", ""
    ranks = pd.DataFrame({"score": choice.score[is_ranked], "mean": choice.mean[is_ranked]}).rank()
    with np.errstate(invalid="ignore"):  # of one cell, all scores are the same
        rho = float(np.nan_to_num(ranks["score"].corr(ranks["mean"])))
    found = f"rank correlation of score and mean expression: {rho:.2f}"
    if rho < _FOLLOWS_DEPTH:
        return found, ""
    ways = [] if choice.how == "seurat" else ["flavor=seurat"]
    if choice.how == "dispersion" and not settings.normalize:
        ways.insert(0, "normalize=true")
    advice = f": {' or '.join(ways)} does so less" if ways else ""
    return found, f"The choice follows expression, and with it the depth of the cells{advice}."
