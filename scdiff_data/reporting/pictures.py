"""The pictures of a card and of a page; of a bounded number of things each, whatever the size."""

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
from scdiff_data.reporting.survey import CellSurvey, LabelSurvey, Numbers, Spread

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

_N_BINS = 24
"""Bins of a histogram."""

_TICKS = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
"""Numbers that an axis of counts may bear."""

_MOST_TICKS = 8
"""Of more, the powers of ten stay."""


def draw_card(title: str, survey: CellSurvey) -> "Figure":
    """Cells by the first label of texts and by experiment, counts and genes a cell, in one."""
    figure, axes = new_figure(2, 2, size=(12, 9), title=title)
    (by_label, counts), (experiments, genes) = axes
    name = next((name for name, label in survey.labels.items() if label.n_of), None)
    if name is None:
        by_label.set_axis_off()
        by_label.set_title("no label of texts")
    else:
        label = survey.labels[name]
        n_more = len(label.n_of) - MOST_NAMED
        by_label.set_title(f"cells by {name}" + f", without {n_more:,} rare ones" * (n_more > 0))
        _plot_bars(by_label, _list_rows(label))
    experiments.set_title("cells by experiment")
    _plot_experiments(experiments, survey)
    _plot_spread(counts, survey.total_counts, "counts a cell")
    _plot_spread(genes, survey.n_genes, "genes a cell")
    return figure


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
    for panel, (title, names), spread in zip(axes.flat, limits.items(), values, strict=True):
        for name in names:
            if limit := settings.get(name):
                panel.axvline(limit, color="black", linestyle=":", label=f"{name} = {limit:,}")
        _plot_spread(panel, spread, title)
    return figure


def _plot_spread(panel: "Axes", spread: Spread, title: str) -> None:
    """How many of a split's cells have how many."""
    least, most = max(spread.quantile(0.0), 1), max(spread.quantile(1.0), 2)
    edges = np.geomspace(least, max(most, least + 1) * 1.001, _N_BINS + 1)
    for place, (name, n) in enumerate(zip(SPLITS, spread.histogram(edges), strict=True)):
        if n.any():
            style: dict[str, Any] = {"linewidth": 1.8}
            if name == "train":
                style = {"fill": True, "alpha": 0.35}
            label = f"{name}, median {spread.quantile(0.5, place):,}"
            panel.stairs(100 * n / n.sum(), edges, color=_SPLIT_COLORS[name], label=label, **style)
    panel.set(xscale="log", xlabel=f"{title} (log scale)", ylabel="share of the split's cells (%)")
    ticks = [tick for tick in _TICKS if least / 1.05 <= tick <= most * 1.05]
    if len(ticks) > _MOST_TICKS:
        ticks = [tick for tick in ticks if str(tick).startswith("1")]
    ticks = ticks if len(ticks) > 1 else sorted({least, spread.quantile(0.5), most})
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.set_ylim(top=1.35 * panel.get_ylim()[1])  # room for what the colors mean
    panel.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)


def draw_experiments(survey: CellSurvey) -> "Figure":
    """Cells and typical depth of each experiment; of many experiments, as curves."""
    names = [name for name, _ in survey.experiments.list_values()]
    depth_e = np.exp([survey.mean_logs[name] for name in names])
    is_named = len(names) <= MOST_NAMED
    height = 0.27 * len(names) + 1.5 if is_named else 4
    figure, axes = new_figure(1, 2, size=(11, max(height, 2.6)), title="")
    cells, depth = axes.flat
    _plot_experiments(cells, survey)
    if is_named:
        places = np.arange(len(names))
        depth.hlines(places, 0, depth_e, color=GREY)
        depth.scatter(depth_e, places, c="black", s=30, zorder=2)
        depth.set(yticks=places, yticklabels=[], xlim=(0, None), ylim=cells.get_ylim())
        depth.set_xlabel("typical counts a cell (geometric mean)")
        figure.legend(
            *cells.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False
        )
    else:
        _plot_curve(depth, np.sort(depth_e)[::-1], GREY)
        depth.set_xlabel("experiments, the deepest first")
        depth.set_ylabel("typical counts a cell (log scale)")
    _count_in_thousands(depth)
    return figure


def _plot_experiments(panel: "Axes", survey: CellSurvey) -> None:
    """Cells of each experiment, the largest first."""
    rows = survey.experiments.list_values()
    if len(rows) <= MOST_NAMED:
        _plot_bars(panel, rows)
        return
    _plot_curve(panel, np.array([n.sum() for _, n in rows]), BLUE)
    panel.set_xlabel("experiments, the largest first")
    panel.set_ylabel("cells of the experiment (log scale)")
    _count_in_thousands(panel)


def _plot_bars(panel: "Axes", rows: Sequence[tuple[str, Numbers]]) -> None:
    """A bar for each name, with its number, in the colors of the splits."""
    places, start_v = np.arange(len(rows)), np.zeros(len(rows), np.int64)
    for split, n_v in zip(SPLITS, np.array([n for _, n in rows]).T, strict=True):
        if n_v.any():
            panel.barh(places, n_v, left=start_v, color=_SPLIT_COLORS[split], label=split)
        start_v += n_v
    for place, n in zip(places, start_v, strict=True):
        panel.annotate(
            f"{n:,}", (n, place), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    panel.set_yticks(places, [shorten_name(name, _LONGEST) for name, _ in rows], fontsize=9)
    panel.set_ylim(max(len(rows), 4) - 0.4, -0.6)  # one bar does not fill it
    panel.set_xlim(0, 1.15 * start_v.max())
    panel.set_xlabel("cells")
    _count_in_thousands(panel)


def _plot_curve(panel: "Axes", values: NDArray[Any], color: str) -> None:
    """Values by their rank."""
    rank = np.arange(1, len(values) + 1)
    panel.fill_between(rank, values, color=color, step="mid", rasterized=True)
    panel.set_yscale("log")
    number_log_axis(panel.yaxis)


def _list_rows(label: LabelSurvey) -> list[tuple[str, Numbers]]:
    """The most frequent values of a label, and cells without any."""
    rows = label.list_values()[:MOST_NAMED]
    return [*rows, ("(missing)", label.n_missing)] if label.n_missing.any() else rows


def draw_label(name: str, label: LabelSurvey, n_cells: Numbers) -> "Figure":
    """The share of each split's cells that has each value, of the most frequent ones."""
    rows = [(shorten_name(value, _LONGEST_VALUE), n) for value, n in _list_rows(label)]
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
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{float(f'{10**value:.1e}'):,.0f}")
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
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value % 1 == 0 else "")
