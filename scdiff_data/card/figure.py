"""A card as a picture: cells a label, depth, genes a cell, and the experiments' sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scdiff_data.base import BLUE, GREY, ORANGE, new_figure, save_figure
from scdiff_data.card.cells import Cells, Spread

_N_BARS = 15
"""Values of a label that have a bar each."""

_N_NAMED = 20
"""Experiments, at most, that are named."""

_N_STEPS = 40
"""Steps of a histogram."""

_TICKS = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
"""Numbers that an axis may bear."""

_FEWEST_BARS = 8
"""Bars that a panel has room for at least: fewer stay as thin."""

_N_LETTERS = 28
"""Letters of a name that are shown."""


def plot_cells(path: Path, facts: Mapping[str, Any], cells: Cells) -> None:
    """Draw a card.

    Parameters
    ----------
    path
        PNG to write, whole or not at all.
    facts
        Those of a `DataCard`.
    cells
        What the table of cells says.
    """
    genes = facts["genes"]
    splits = ", ".join(f"{n:,} {name}" for name, n in facts["cells"].items())
    title = (
        f"{Path(facts['data_dir']).name}: {cells.n_in_table:,} cells of {len(cells.experiments):,} "
        f"experiments ({splits}), {genes['chosen']:,} of {genes['reference']:,} genes"
    )
    figure, axes = new_figure(2, 2, size=(12, 8.5), title=title)
    (label, counts), (experiments, expressed) = axes
    _plot_label(label, cells)
    _plot_spread(counts, cells.counts, "counts a cell")
    _plot_experiments(experiments, cells)
    _plot_spread(expressed, cells.genes, "genes a cell")
    save_figure(figure, path)


def _plot_label(panel: Any, cells: Cells) -> None:
    """Cells of each value of the first label that is texts."""
    name = next((name for name, found in cells.values.items() if found), None)
    if name is None:
        panel.text(0.5, 0.5, "no label of texts", ha="center", va="center", color=GREY)
        panel.set_axis_off()
        return
    found = list(cells.rank(cells.values[name]).items())
    shown = [(_shorten(value), n, BLUE) for value, n in found[:_N_BARS]]
    if rest := found[_N_BARS:]:
        shown.append((f"{len(rest):,} others", sum(n for _, n in rest), GREY))
    if missing := cells.count_missing(name):
        shown.append((f"no {name}", missing, GREY))
    _plot_bars(panel, shown)
    panel.set(xlabel="cells", title=f"cells by {name}")


def _plot_experiments(panel: Any, cells: Cells) -> None:
    """Cells of each experiment, the largest first."""
    found = list(cells.rank(cells.experiments).items())
    if len(found) <= _N_NAMED:
        _plot_bars(panel, [(_shorten(name), n, BLUE) for name, n in found])
        panel.set(xlabel="cells", title="cells by experiment")
        return
    sizes = np.array([n for _, n in found])
    ranks = np.arange(1, len(sizes) + 1)
    panel.fill_between(ranks, sizes, step="mid", color=BLUE, linewidth=0)
    panel.set(xlabel="experiments, the largest first", ylabel="cells", ylim=(0, None))
    half = int(np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)) + 1
    panel.set_title(f"cells by experiment; half are in the largest {half:,}")


def _plot_bars(panel: Any, shown: list[tuple[str, int, str]]) -> None:
    """A bar for each name, with its number."""
    places = np.arange(len(shown))
    bars = panel.barh(places, [n for _, n, _ in shown], color=[color for *_, color in shown])
    panel.bar_label(bars, [f"{n:,}" for _, n, _ in shown], padding=3, fontsize=8)
    panel.set_yticks(places, [name for name, *_ in shown], fontsize=9)
    panel.set_ylim(max(len(shown), _FEWEST_BARS) - 0.4, -0.6)
    panel.margins(x=0.12)


def _plot_spread(panel: Any, spread: Spread, name: str) -> None:
    """How many cells have how many; the median is marked, and where eight of ten cells are."""
    least, most = max(spread.quantile(0.0), 1), max(spread.quantile(1.0), 2)
    edges = np.geomspace(least, max(most, least + 1) * 1.001, _N_STEPS + 1)
    panel.stairs(spread.histogram(edges), edges, fill=True, color=BLUE)
    low, median, high = (spread.quantile(f) for f in (0.1, 0.5, 0.9))
    panel.axvspan(low, high, color=GREY, alpha=0.35, zorder=0, linewidth=0)
    panel.axvline(median, color=ORANGE, linewidth=2)
    panel.set(xscale="log", ylabel="cells", title=f"{name}: median {median:,}")
    panel.set_xlabel(f"{name} (grey: eight of ten cells, {low:,} to {high:,})")
    ticks = [tick for tick in _TICKS if least / 1.05 <= tick <= most * 1.05]
    ticks = ticks if len(ticks) > 1 else sorted({least, median, most})
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])


def _shorten(name: str) -> str:
    return name if len(name) <= _N_LETTERS else f"{name[: _N_LETTERS - 1]}…"
