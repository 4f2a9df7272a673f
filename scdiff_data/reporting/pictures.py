"""The pictures of a data report; of a bounded number of things each, whatever the data's size."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    new_figure,
    number_log_axis,
    shorten_name,
)
from scdiff_data.constants import SPLITS
from scdiff_data.reporting.sample import SampledCells, Texts
from scdiff_data.reporting.survey import EDGES, CellSurvey, LabelSurvey, Numbers, find_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

_SPLIT_COLORS = dict(zip(SPLITS, (BLUE, ORANGE, GREEN), strict=True))
"""The color of each split, in every picture."""

_SPLIT_MARKERS = dict(zip(SPLITS, ("o", "D", "^"), strict=True))
"""And its shape."""

MOST_NAMED = 25
"""Experiments, or values of a label, that are named; more experiments become a curve."""

_MOST_LABELS = 3
"""Labels of texts that cells are colored by."""

_LONGEST = 28
"""Letters of a name that are shown in a legend."""

_LONGEST_VALUE = 44
"""Letters that are shown beside an axis."""

_BINS_AT_ONCE = 8
"""Of the survey's bins, those that are one bar: an eighth of an octave."""


def draw_losses(steps: Sequence[tuple[str, int]], n_drawn: int) -> "Figure":
    """Where the cells of the files went: what was taken away at each step, and what is left."""
    figure, axes = new_figure(1, 1, size=(10, 0.5 * len(steps) + 1.6), title="")
    (panel,) = axes.flat
    n_all = n_drawn + sum(n for _, n in steps)
    left = n_all
    for place, (_, n) in enumerate(steps):
        panel.barh(place, n, left=left - n, color=ORANGE)
        panel.barh(place, left - n, color=GREY)
        _write_number(panel, place, n, left, n_all)
        left -= n
    panel.barh(len(steps), n_drawn, color=BLUE)
    _write_number(panel, len(steps), n_drawn, n_drawn, n_all)
    panel.set_yticks(range(len(steps) + 1), [*(name for name, _ in steps), "drawn"])
    panel.invert_yaxis()
    panel.set_xlim(0, 1.22 * max(n_all, 1))
    panel.set_xlabel("cells (orange: lost at this step)")
    _count_in_thousands(panel)
    return figure


def _write_number(axes: "Axes", place: int, n: int, end: int, n_all: int) -> None:
    share = f" ({100 * n / n_all:.1f} %)" if n_all else ""
    axes.text(end + 0.01 * max(n_all, 1), place, f"{n:,}{share}", va="center", fontsize=9)


def draw_cells(survey: CellSurvey, settings: Mapping[str, Any]) -> "Figure":
    """Total counts and genes of the cells of each split, with the limits of QC."""
    figure, axes = new_figure(1, 2, size=(11, 4), title="")
    limits = {"counts a cell": ("min_counts",), "genes a cell": ("min_genes", "max_genes")}
    values = (survey.total_counts, survey.n_genes)
    for panel, (title, names), n_of in zip(axes.flat, limits.items(), values, strict=True):
        _plot_bins(panel, n_of)
        for name in names:
            if limit := settings.get(name):
                panel.axvline(limit, color="black", linestyle=":", label=f"{name} = {limit:,}")
        panel.set(xlabel=f"{title} (log scale)", ylabel="share of the split's cells (%)")
        panel.set_ylim(top=1.35 * panel.get_ylim()[1])  # room for what the colors mean
        panel.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    return figure


def _plot_bins(axes: "Axes", n_of_bin: Numbers) -> None:
    wide = n_of_bin.reshape(len(SPLITS), -1, _BINS_AT_ONCE).sum(-1)
    seen = np.flatnonzero(wide.sum(0))
    first, last = (seen[0], seen[-1] + 1) if len(seen) else (0, 1)
    edges = EDGES[::_BINS_AT_ONCE][first : last + 1]
    for name, n, own in zip(SPLITS, wide, n_of_bin, strict=True):
        if n.any():
            (median,) = find_quantiles(own, 0.5)
            share = 100 * n[first:last] / n.sum()
            style: dict[str, Any] = {"linewidth": 1.8}
            if name == "train":
                style = {"fill": True, "alpha": 0.35}
            label = f"{name}, median about {_round(median):,}"
            axes.stairs(share, edges, color=_SPLIT_COLORS[name], label=label, **style)
    axes.set_xscale("log")
    number_log_axis(axes.xaxis)


def _round(value: float) -> int:
    """To two digits, which is what the bins know."""
    return int(float(f"{value:.1e}"))


def draw_experiments(survey: CellSurvey) -> "Figure":
    """Cells and typical depth of each experiment; of many experiments, as curves."""
    names = sorted(survey.experiments, key=lambda name: -survey.experiments[name].sum())
    n_es = np.array([survey.experiments[name] for name in names])
    depth_e = np.exp([survey.mean_logs[name] for name in names])
    is_named = len(names) <= MOST_NAMED
    height = 0.27 * len(names) + 1.5 if is_named else 4
    figure, axes = new_figure(1, 2, size=(11, max(height, 2.6)), title="")
    cells, depth = axes.flat
    if is_named:
        places, start_e = np.arange(len(names)), np.zeros(len(names))
        for name, n_e in zip(SPLITS, n_es.T, strict=True):
            if n_e.any():
                cells.barh(places, n_e, left=start_e, color=_SPLIT_COLORS[name], label=name)
            start_e += n_e
        depth.hlines(places, 0, depth_e, color=GREY)
        depth.scatter(depth_e, places, c="black", s=30, zorder=2)
        cells.set_yticks(places, [shorten_name(name, _LONGEST) for name in names], fontsize=9)
        depth.set_yticks(places, [])
        cells.set_xlabel("cells")
        depth.set_xlabel("typical counts a cell (geometric mean)")
        for panel in (cells, depth):
            panel.set_ylim(len(names) - 0.4, -0.6)
            panel.set_xlim(left=0)
            _count_in_thousands(panel)
        figure.legend(
            *cells.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False
        )
        return figure
    rank = np.arange(1, len(names) + 1)
    cells.fill_between(rank, n_es.sum(1), color=BLUE, step="mid", rasterized=True)
    cells.set(xlabel="experiments, the largest first", yscale="log")
    cells.set_ylabel("cells of the experiment (log scale)")
    depth.fill_between(rank, np.sort(depth_e)[::-1], color=GREY, step="mid", rasterized=True)
    depth.set(xlabel="experiments, the deepest first", yscale="log")
    depth.set_ylabel("typical counts a cell (log scale)")
    for panel in (cells, depth):
        number_log_axis(panel.yaxis)
        _count_in_thousands(panel)
    return figure


def draw_label(name: str, label: LabelSurvey, n_cells: Numbers) -> "Figure":
    """The share of each split's cells that has each value, of the most frequent ones."""
    values = label.list_values()
    rows = [(shorten_name(value, _LONGEST_VALUE), n) for value, n in values[:MOST_NAMED]]
    if label.n_missing.any():
        rows.append(("(missing)", label.n_missing))
    figure, axes = new_figure(1, 1, size=(9, 0.3 * len(rows) + 1.5), title="")
    (panel,) = axes.flat
    share_vs = 100 * np.array([n for _, n in rows]) / np.maximum(n_cells, 1)
    places = np.arange(len(rows))
    has_cells = n_cells > 0
    low, high = share_vs[:, has_cells].min(1), share_vs[:, has_cells].max(1)
    panel.hlines(places, low, high, color=GREY, linewidth=2)
    for split, share_v, n in zip(SPLITS, share_vs.T, n_cells, strict=True):
        if n:
            panel.scatter(
                share_v,
                places,
                s=34,
                marker=_SPLIT_MARKERS[split],
                c=_SPLIT_COLORS[split],
                alpha=0.85,
                label=split,
                zorder=2,
            )
    panel.set_yticks(places, [text for text, _ in rows], fontsize=9)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(left=min(0, -0.01 * share_vs.max()))
    panel.set_xlabel(f"share of the split's cells with this {name} (%)")
    panel.grid(axis="x", color="#E5E5E5")
    panel.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def draw_components(sample: SampledCells, labels: Sequence[str]) -> "Figure | None":
    """The sample in its first two components: by experiment, by label, by depth; None of too few.

    Parameters
    ----------
    sample
        The cells.
    labels
        Of its labels, those to color cells by; the first few are taken.
    """
    places_ck = sample.places_ck
    if places_ck is None or places_ck.shape[1] < 2:
        return None
    by = ["experiment_id", *labels[:_MOST_LABELS]]
    n_panels = len(by) + 1
    n_columns = 2 if n_panels > 1 else 1
    n_rows = -(-n_panels // n_columns)
    figure, axes = new_figure(n_rows, n_columns, size=(11, 4.4 * n_rows), title="")
    cast("ConstrainedLayoutEngine", figure.get_layout_engine()).set(h_pad=0.12)
    panels = list(axes.flat)
    for panel, name in zip(panels, by, strict=False):
        _plot_texts(panel, places_ck, sample.texts[name])
        panel.set_title("experiment" if name == "experiment_id" else name)
    depth = panels[len(by)]
    colors = np.log10(np.maximum(sample.total_counts, 1))
    dots = depth.scatter(*places_ck[:, :2].T, c=colors, cmap="cividis", s=7, linewidths=0)
    depth.set_title("depth")
    bar = figure.colorbar(dots, ax=depth, label="counts a cell (log scale)", shrink=0.8)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{_round(10**value):,}")
    shares = 100 * sample.explained_k
    for panel in panels[: len(by) + 1]:
        panel.set_xlabel(f"component 1 ({shares[0]:.1f} % of the variance)")
        panel.set_ylabel(f"component 2 ({shares[1]:.1f} %)")
        panel.set(xticks=[], yticks=[])
    for panel in panels[len(by) + 1 :]:
        panel.set_axis_off()
    return figure


def _plot_texts(axes: "Axes", places_ck: NDArray[np.float32], texts: Texts) -> None:
    """Cells by the value of a column: the most frequent ones in colors, the others in grey."""
    values, codes, n_of = np.unique(texts, return_inverse=True, return_counts=True)
    n_of = np.where(values == "", 0, n_of)
    shown = np.argsort(-n_of, kind="stable")[: len(PALETTE)]
    shown = shown[n_of[shown] > 0]
    color_of = np.full(len(values), GREY, dtype="U7")
    color_of[shown] = PALETTE[: len(shown)]
    # All in one call: the cells of no value lie over those of another.
    axes.scatter(places_ck[:, 0], places_ck[:, 1], c=color_of[codes], s=7, linewidths=0)
    for value, color in zip(values[shown], PALETTE, strict=False):
        axes.scatter([], [], c=color, s=36, label=shorten_name(value, _LONGEST))
    n_more, has_none = int((n_of > 0).sum()) - len(shown), bool((values == "").any())
    rest = [f"{n_more:,} more"] * (n_more > 0) + ["no value"] * has_none
    if rest:
        axes.scatter([], [], c=GREY, s=36, label=" or ".join(rest))
    axes.legend(
        loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, handletextpad=0.2
    )


def _count_in_thousands(axes: "Axes") -> None:
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
