"""Every picture: PNG files whose bytes depend on the data alone.

Figures are drawn through matplotlib's objects, never pyplot, so no global state is touched and no
display is needed. Colors are Okabe and Ito's, which color-blind readers tell apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_report(
    path: Path,
    *,
    curves: Mapping[str, Sequence[float]],
    generated_counts: NDArray[np.integer[Any]],
    real_counts: NDArray[np.integer[Any]],
) -> None:
    """Draw a run: its losses, and its generated cells beside held-out real ones.

    Parameters
    ----------
    path
        PNG to write, whole or not at all.
    curves
        Lists of equal length, one entry a validation: `step`, `train/loss`, `val/loss` and
        `val/marginal` (nats a gene); or empty, if nothing was trained.
    generated_counts
        Counts of generated cells, [n_generated, n_genes].
    real_counts
        Counts of held-out cells over the same genes, [n_real, n_genes].
    """
    from matplotlib.ticker import FuncFormatter

    n_cells = f"{len(generated_counts):,} generated cells beside {len(real_counts):,} held-out ones"
    figure, axes = new_figure(2, 3, size=(15, 8.5), title=n_cells)
    (losses, means, variances), (zeros, totals, components) = axes

    if not curves:
        losses.set_axis_off()
    else:
        _plot_losses(losses, curves)

    _compare_genes(means, "mean count a gene", generated_counts.mean(0), real_counts.mean(0))
    _compare_genes(variances, "variance a gene", generated_counts.var(0), real_counts.var(0))
    zeros_by_gene = [(counts == 0).mean(0) for counts in (generated_counts, real_counts)]
    _compare_genes(zeros, "fraction of zeros a gene", *zeros_by_gene, log=False)

    sums = {"real": real_counts.sum(1), "generated": generated_counts.sum(1)}
    sums = {name: sum_c.clip(min=1) for name, sum_c in sums.items()}  # the axis is logarithmic
    low, high = np.quantile(np.concatenate(list(sums.values())), [0, 1])
    edges = np.geomspace(low / 1.01, high * 1.01, 20)
    for (name, sum_c), color in zip(sums.items(), (ORANGE, BLUE), strict=True):
        shares = np.full(len(sum_c), 1 / len(sum_c))
        totals.hist(sum_c, bins=edges, weights=shares, color=color, alpha=0.55, label=name)
    totals.set(xscale="log", xlabel="counts a cell, over these genes", ylabel="share of cells")
    totals.xaxis.set_minor_formatter(FuncFormatter(_plain_number))
    totals.xaxis.set_major_formatter(FuncFormatter(_plain_number))
    totals.set_title("total counts")
    totals.legend(frameon=False, loc="upper right")

    real_xy, generated_xy = _joint_pca(real_counts, generated_counts)
    components.scatter(*real_xy.T, s=14, c=ORANGE, alpha=0.7, linewidths=0, label="real")
    components.scatter(*generated_xy.T, s=14, c=BLUE, alpha=0.5, linewidths=0, label="generated")
    components.set(xlabel="component 1", ylabel="component 2", xticks=[], yticks=[])
    components.set_title("joint PCA of log(1 + count)")
    components.legend(frameon=False, loc="upper right")
    save_figure(figure, path)


def _plot_losses(axes: "Axes", curves: Mapping[str, Sequence[float]]) -> None:
    for name, color in (("train/loss", GREY), ("val/loss", BLUE)):
        axes.plot(curves["step"], curves[name], color=color, label=name, linewidth=2)
    if len(curves["step"]):
        marginal = curves["val/marginal"][-1]
        axes.axhline(marginal, color="black", linestyle="--", label="per-gene marginals")
    axes.set(xlabel="optimizer step", ylabel="nats a gene", title="loss")
    axes.legend(frameon=False, loc="upper right")


def _compare_genes(
    axes: "Axes",
    title: str,
    generated: NDArray[np.floating[Any]],
    real: NDArray[np.floating[Any]],
    *,
    log: bool = True,
) -> None:
    """Scatter one statistic of every gene, generated against real, beside the diagonal."""
    shown = (generated > 0) & (real > 0) if log else np.ones(len(real), dtype=bool)
    values = np.concatenate([generated[shown], real[shown]])
    ends = (values.min(), values.max()) if len(values) else (0.1, 1.0)
    axes.plot(ends, ends, color="black", linewidth=1, linestyle="--", zorder=0)
    axes.scatter(real[shown], generated[shown], s=11, c=GREEN, alpha=0.7, linewidths=0)
    scale = "log" if log else "linear"
    axes.set(xscale=scale, yscale=scale, xlabel="real", ylabel="generated", title=title)
    axes.set_aspect("equal", adjustable="datalim")


def _joint_pca(
    first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """First two principal components of log(1 + count), fitted on as many cells of both."""
    logs = [np.log1p(counts.astype(np.float64)) for counts in (first, second)]
    n_cells = min(len(first), len(second))
    centre = np.concatenate([values[:n_cells] for values in logs])
    _, _, directions = np.linalg.svd(centre - centre.mean(0), full_matrices=False)
    directions = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True) + 1e-12)
    first_xy, second_xy = ((values - centre.mean(0)) @ directions.T for values in logs)
    return first_xy, second_xy


def _plain_number(value: float, position: int | None) -> str:
    """Ticks at 1, 2 and 5 times powers of ten as whole numbers, no text at the others."""
    del position
    return f"{value:,.0f}" if f"{value:.0e}"[0] in "125" else ""
