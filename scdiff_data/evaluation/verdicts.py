"""Panels that judge: the table of scores, reliability of probabilities, effects between labels.

They draw what `Reliability` and `Effects` hold, as `metrics.json` has it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scdiff_data.base import BLUE, GREY, shorten_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAMPLES = {
    "generated": "generated",
    "real": "real",
    "other_held_out": "others",
    "genes_shuffled": "shuffled",
    "mean_profile": "profile",
}
"""Columns of the table of scores."""

_SCORES = {
    "gene_mean_ratio": ("mean count of a gene, ratio", "1"),
    "gene_variance_ratio": ("variance of a gene, ratio", "1"),
    "zero_fraction_difference": ("zeros, difference", "0"),
    "library_cv_ratio": ("spread of counts a cell, ratio", "1"),
    "detected_genes_cv_ratio": ("spread of genes a cell, ratio", "1"),
    "gene_correlation_agreement": ("gene-gene correlations agree", "1"),
    "wasserstein_per_gene": ("Wasserstein distance of a gene", "0"),
    "mmd2": ("squared MMD", "0"),
    "nearest_neighbour_accuracy": ("told apart by the nearest cell", "0.5"),
    "forest_auc": ("told apart by a forest, AUC", "0.5"),
    "duplicates": ("copies of training cells", "0"),
}
"""Rows of that table: what each is, and what it is at best."""

_MOST_EXPERIMENTS = 12
"""Experiments whose curves are drawn; of more, these are the first."""

_MOST_PAIRS = 14
"""Pairs of labels that are named."""

_LONGEST = 34
"""Letters of a pair's name that are shown."""


def write_scores(axes: "Axes", scores: Mapping[str, Any]) -> None:
    """The figures of each sample, as a table."""
    axes.set_axis_off()
    columns = [name for name in _SAMPLES if name in scores]
    if not columns:
        say_nothing(axes, "too few cells to compare")
        return
    scale = scores.get("scale", {})
    rows = [
        [
            text,
            ideal,
            *(f"{scores[sample][name]:.3f}" for sample in columns),
            "–" if scale.get(name) is None else f"{scale[name]:.2f}",
        ]
        for name, (text, ideal) in _SCORES.items()
    ]
    axes.set_title("how alike the cells are; on the scale, 0 is a cheat and 1 a replicate")
    head = ["held-out cells beside", "ideal", *(_SAMPLES[name] for name in columns), "scale"]
    widths = [0.36, 0.08, *([0.56 / (1 + len(columns))] * (1 + len(columns)))]
    whole: Any = (0, 0, 1, 1)  # of the panel
    table = axes.table(
        [head, *rows], colWidths=widths, cellLoc="right", bbox=whole, edges="horizontal"
    )
    table.auto_set_font_size(value=False)
    for (row, column), cell in table.get_celld().items():
        text = cell.get_text()
        text.set_fontsize(11)
        cell.set_edgecolor("#DDDDDD")
        if column == 0:
            text.set_horizontalalignment("left")
        if row == 0 or column == columns.index("generated") + 2:
            text.set_fontweight("bold")
        if column == columns.index("generated") + 2:
            text.set_color(BLUE)


def draw_reliability(axes: "Axes", curve: Mapping[str, Any]) -> None:
    """Observed frequencies beside predicted probabilities, with intervals; a line an experiment."""
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", zorder=0)
    if len(curve["observed_of"]) > 1:
        for predicted, observed in list(curve["observed_of"].values())[:_MOST_EXPERIMENTS]:
            axes.plot(predicted, observed, color=GREY, linewidth=1, zorder=1)
    observed = np.array(curve["observed"])
    ends = np.clip([observed - curve["low"], curve["high"] - observed], 0, None)
    axes.errorbar(
        curve["predicted"], observed, ends, color=BLUE, marker="o", markersize=4, capsize=2
    )
    worst = max(curve["ece_of"].values())
    text = f"calibration error {curve['ece']:.4f}"
    if len(curve["ece_of"]) > 1:
        text += f"\nof {len(curve['ece_of'])} experiments at most {worst:.4f}"
    axes.text(0.04, 0.96, text, va="top", transform=axes.transAxes, fontsize=9)
    axes.set(xlabel="predicted probability", ylabel="observed frequency")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def draw_effects(axes: "Axes", effects: Mapping[str, Any]) -> None:
    """The slope of each pair of labels, beside where a replicate of real cells has it."""
    pairs = sorted(effects["pairs"], key=lambda pair: -pair["correlation_ceiling"][1])[:_MOST_PAIRS]
    places = np.arange(len(pairs))
    low, middle, high = np.array([pair["slope_ceiling"] for pair in pairs]).T
    axes.hlines(places, low, high, color=GREY, linewidth=6, zorder=1, label="95 % of real cells")
    axes.scatter(middle, places, color="#5F5F5F", marker="|", s=90, zorder=2)
    slopes = [pair["slope"] for pair in pairs]
    axes.scatter(slopes, places, color=BLUE, marker="D", s=34, zorder=3, label="generated")
    axes.axvline(1, color="black", linewidth=1, linestyle="--", zorder=0)
    names = [" / ".join(pair["labels"]) for pair in pairs]
    axes.set_yticks(places, [shorten_name(name, _LONGEST) for name in names], fontsize=8)
    axes.set_ylim(1.25 * len(pairs) - 0.4, -0.6)
    axes.set_xlabel(f"between values of {effects['label']}; noise taken out")
    axes.legend(frameon=False, loc="lower right", fontsize=9)


def draw_agreement(axes: "Axes", effects: Mapping[str, Any]) -> None:
    """The correlation of each pair's log-fold changes with real ones, beside a replicate's."""
    pairs = effects["pairs"]
    real = [pair["correlation_ceiling"][1] for pair in pairs]
    own = [pair["correlation"] for pair in pairs]
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", zorder=0)
    axes.scatter(real, own, color=BLUE, s=20)
    low = min(0.0, *own, *real)
    axes.set(xlim=(low, 1.02), ylim=(low, 1.02))
    axes.set(xlabel="a replicate of real cells", ylabel="generated")


def say_nothing(axes: "Axes", text: str) -> None:
    """A panel that has nothing to show says why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#5F5F5F")
