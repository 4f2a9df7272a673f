"""Panels that lay generated cells beside real ones, each with what two draws of real ones give.

In all of them generated cells are blue, held-out real ones orange, and another draw of real cells
is grey: what lies as near as the grey does is as good as real.

Shapes: c cells, g genes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import BLUE, GREY, ORANGE, number_log_axis, shorten_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Counts = NDArray[np.integer[Any]]
"""Counts [c, g]."""

_DARK = "#5F5F5F"
"""The grey of another draw where it has to be seen through others."""

_N_CORRELATED = 60
"""Genes, those that vary most among the real cells, whose correlations are shown."""

_MOST_TYPES = 12
"""Cell types that are named."""

_LONGEST = 26
"""Letters of a cell type that are shown."""


@dataclass(frozen=True)
class Samples:
    """As many cells of each kind, over the same genes.

    Parameters
    ----------
    generated, real, other
        Counts of generated cells, of held-out real ones, and of another draw of real ones;
        [n_cells, n_genes] each.
    """

    generated: Counts
    real: Counts
    other: Counts

    @classmethod
    def cut(cls, generated: Counts, real: Counts, other: Counts) -> "Samples":
        """The first cells of each, as many as all have."""
        n = min(len(generated), len(real), len(other))
        return cls(generated[:n], real[:n], other[:n])

    def __len__(self) -> int:
        return len(self.real)


def compare_genes(
    axes: "Axes", samples: Samples, measure: Callable[[Counts], NDArray[Any]], *, is_log: bool
) -> None:
    """One statistic of every gene, generated and of other real cells, against held-out ones'."""
    real_g = measure(samples.real)
    values = []
    for counts, color, label in (
        (samples.other, GREY, "other real cells"),
        (samples.generated, BLUE, "generated"),
    ):
        own_g = measure(counts)
        shown = (own_g > 0) & (real_g > 0) if is_log else np.ones(len(real_g), dtype=bool)
        axes.scatter(real_g[shown], own_g[shown], s=11, c=color, linewidths=0, label=label)
        values += [real_g[shown], own_g[shown]]
    shown = np.concatenate(values)
    ends = (shown.min(), shown.max()) if len(shown) else (0.1, 1.0)
    axes.plot(ends, ends, color="black", linewidth=1, linestyle="--", zorder=0)
    scale = "log" if is_log else "linear"
    axes.set(
        xscale=scale, yscale=scale, xlabel="held-out real cells", ylabel="generated, other real"
    )


def compare_totals(axes: "Axes", samples: Samples) -> None:
    """Counts a cell over the genes that were generated."""
    sums = {"held-out real": samples.real, "other real": samples.other}
    sums = {
        name: counts.sum(1) for name, counts in {**sums, "generated": samples.generated}.items()
    }
    sums = {name: sum_c.clip(min=1) for name, sum_c in sums.items()}  # the axis is logarithmic
    low, high = np.quantile(np.concatenate(list(sums.values())), [0, 1])
    n_bins = int(np.clip(1.5 * np.sqrt(len(samples)), 8, 30))
    edges = np.geomspace(low / 1.01, high * 1.01, n_bins + 1)
    for (name, sum_c), color in zip(sums.items(), (ORANGE, GREY, BLUE), strict=True):
        share = 100 * np.histogram(sum_c, edges)[0] / len(sum_c)
        if name == "held-out real":
            axes.stairs(share, edges, color=color, alpha=0.5, fill=True, label=name)
        else:
            axes.stairs(share, edges, color=color, linewidth=2, label=name)
    axes.set(xscale="log", xlabel="counts a cell, over these genes (log scale)")
    axes.set_ylabel("share of the cells (%)")
    number_log_axis(axes.xaxis)
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])
    axes.legend(frameon=False, loc="upper left", fontsize=9, ncols=2)


def compare_correlations(axes: "Axes", samples: Samples) -> None:
    """How pairs of genes go together, in generated cells and in held-out ones."""
    logs = [np.log1p(counts) for counts in (samples.real, samples.generated, samples.other)]
    varies = np.flatnonzero(np.min([log.std(0) for log in logs], axis=0) > 0)
    best = varies[np.argsort(-logs[0][:, varies].std(0), kind="stable")[:_N_CORRELATED]]
    axes.set(xlabel="held-out real cells", ylabel="generated, other real")
    if len(best) < 2:
        return
    pairs = np.triu_indices(len(best), k=1)
    real, generated, other = (np.corrcoef(log[:, best].T)[pairs] for log in logs)
    for values, color in ((other, GREY), (generated, BLUE)):
        axes.scatter(real, values, s=5, c=color, linewidths=0, alpha=0.6)
    axes.plot([-1, 1], [-1, 1], color="black", linewidth=1, linestyle="--", zorder=0)
    ends = np.quantile(np.concatenate([real, generated, other]), [0, 1])
    axes.set(xlim=ends, ylim=ends)


def compare_components(
    axes: "Axes", first: Counts, second: Counts, names: tuple[str, str], components: "Components"
) -> None:
    """Two samples in the same two components, those of `names[1]` in orange."""
    xy = np.concatenate([components.place(second), components.place(first)])
    is_first = np.arange(len(xy)) >= len(second)
    order = np.random.default_rng(0).permutation(len(xy))  # neither lies over the other
    color = _DARK if "other" in names[0] else BLUE
    colors = np.where(is_first, color, ORANGE)[order]
    x, y = xy[order].T
    axes.scatter(x, y, s=12, c=colors, linewidths=0, alpha=0.75)
    for name, own in zip(names, (color, ORANGE), strict=True):
        axes.scatter([], [], s=36, c=own, label=name)
    axes.set(xlabel="component 1", ylabel="component 2", xticks=[], yticks=[])
    axes.set(xlim=components.ends[0], ylim=components.ends[1])
    axes.legend(frameon=False, loc="upper left", fontsize=9, ncols=2)


@dataclass(frozen=True)
class Components:
    """The first two principal components of log(1 + count) of some cells.

    Parameters
    ----------
    centre, directions
        Their mean, [n_genes], and the directions of most variance, [2, n_genes].
    ends
        Of the axes that show all samples: lowest and highest, of each component.
    """

    centre: NDArray[np.float64]
    directions: NDArray[np.float64]
    ends: tuple[tuple[float, float], ...]

    @classmethod
    def fit(cls, parts: Sequence[Counts], *, show: Samples) -> "Components":
        """Find those of some cells, and axes on which all of `show` have a place."""
        logs = np.concatenate([np.log1p(counts.astype(np.float64)) for counts in parts])
        centre = logs.mean(0)
        _, _, directions = np.linalg.svd(logs - centre, full_matrices=False)
        directions = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True) + 1e-12)
        found = cls(centre, directions, ())
        xy = np.concatenate([found.place(c) for c in (show.generated, show.real, show.other)])
        low, high = xy.min(0), xy.max(0)
        margin = 0.05 * (high - low) + 1e-6
        high[1] += 0.15 * (high - low)[1]  # room for what the colors mean
        ends = np.stack([low - margin, high + margin], axis=1).tolist()
        return cls(centre, directions, tuple((first, last) for first, last in ends))

    def place(self, counts: Counts) -> NDArray[np.float64]:
        """Places of cells, [c, 2]."""
        logs = np.log1p(counts.astype(np.float64)) - self.centre
        xy: NDArray[np.float64] = logs @ self.directions.T
        return xy


def compare_types(
    axes: "Axes", shares: Mapping[str, Sequence[float]], names: Sequence[str]
) -> None:
    """The share of cells of each type among `generated`, `real` and `other` ones."""
    own = {name: 100 * np.array(values) for name, values in shares.items()}
    order = np.argsort(-own["real"], kind="stable")[:_MOST_TYPES]
    places = np.arange(len(order))
    axes.hlines(places, own["real"][order], own["generated"][order], color=GREY, zorder=1)
    for name, color, marker in (
        ("other", _DARK, "|"),
        ("real", ORANGE, "o"),
        ("generated", BLUE, "D"),
    ):
        size = 90 if marker == "|" else 34
        text = {"other": "other real", "real": "held-out real"}.get(name, name)
        axes.scatter(own[name][order], places, c=color, marker=marker, s=size, zorder=2, label=text)
    texts = [names[place] for place in order]
    axes.set_yticks(places, [shorten_name(text, _LONGEST) for text in texts], fontsize=8)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel("share of the cells (%)")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
