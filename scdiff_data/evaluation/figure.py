"""A run as a picture: its losses, its scores, and its cells beside real ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdiff_data.base import BLUE, GREY, ORANGE, new_mosaic, save_figure
from scdiff_data.evaluation.panels import (
    Components,
    Samples,
    compare_components,
    compare_correlations,
    compare_genes,
    compare_totals,
    compare_types,
)
from scdiff_data.evaluation.verdicts import (
    draw_agreement,
    draw_effects,
    draw_reliability,
    say_nothing,
    write_scores,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LAYOUT = (
    ("losses", "likelihoods", "scores", "scores"),
    ("means", "variances", "zeros", "totals"),
    ("components", "real components", "correlations", "types"),
    ("zero reliability", "count reliability", "agreement", "effects"),
)
"""Where each panel is."""

_SPLITS = {"val": (BLUE, "o", "validation"), "test": (ORANGE, "D", "test")}
"""Color, mark and name of the cells that were scored."""


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a run's picture shows.

    Parameters
    ----------
    samples
        Cells, as many of each kind.
    split, held_out
        The split that the held-out ones are of, and what was held out, in words.
    scores
        Of each sample the figures of `compare_cells`, and `scale`, `effects` and `calibration`, as
        `Comparison` has them; empty, if none were taken.
    type_names, type_shares
        Types, and the share of each among `generated`, `real` and `other` cells; or empty.
    curves
        Lists of equal length, one entry a validation: `step`, `train/loss`, `val/loss` and
        `val/marginal` (nats a gene); or empty, if nothing was trained.
    losses
        What Lightning logged last: `val/loss`, `test/loss_se` and their like.
    baselines
        Of a split, what its counts cost without a model, by the names of `score_baselines`.
    """

    samples: Samples
    split: str
    held_out: str = "cells"
    scores: Mapping[str, Any] = field(default_factory=dict)
    type_names: Sequence[str] = ()
    type_shares: Mapping[str, Sequence[float]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def plot_report(path: Path, content: ReportContent) -> None:
    """Write a run's picture as PNG, whole or not at all."""
    save_figure(draw_report(content), path)


def draw_report(content: ReportContent) -> "Figure":
    """A run's losses and scores, and its generated cells beside real ones."""
    samples = content.samples
    title = (
        f"{len(samples):,} generated cells beside as many held-out ones "
        f"({_SPLITS[content.split][2]}: {content.held_out} held out), and as many other real ones"
    )
    figure, axes = new_mosaic(_LAYOUT, size=(18, 16.5), title=title)
    _plot_losses(axes["losses"], content)
    _plot_likelihoods(axes["likelihoods"], content)
    write_scores(axes["scores"], content.scores)

    panels: dict[str, tuple[str, Any, bool]] = {
        "means": ("mean count of each gene", lambda counts: counts.mean(0), True),
        "variances": ("variance of each gene", lambda counts: counts.var(0), True),
        "zeros": ("fraction of zeros of each gene", lambda counts: (counts == 0).mean(0), False),
    }
    for name, (text, measure, is_log) in panels.items():
        compare_genes(axes[name], samples, measure, is_log=is_log)
        axes[name].set_title(text)
    axes["means"].legend(frameon=False, loc="upper left", fontsize=9, markerscale=2)
    compare_totals(axes["totals"], samples)
    axes["totals"].set_title("counts a cell")

    components = Components.fit([samples.generated, samples.real], show=samples)
    names = ("generated", "held-out real")
    compare_components(axes["components"], samples.generated, samples.real, names, components)
    compare_components(
        axes["real components"],
        samples.other,
        samples.real,
        ("other real", "held-out real"),
        components,
    )
    axes["components"].set_title("generated beside real: PCA of log(1 + count)")
    axes["real components"].set_title("real beside real, in the same components")
    compare_correlations(axes["correlations"], samples)
    axes["correlations"].set_title("correlation of pairs of genes")
    if content.type_names:
        compare_types(axes["types"], content.type_shares, content.type_names)
        axes["types"].set_title("types of the nearest training cells")
    else:
        say_nothing(axes["types"], "the cells have no labels")
    _judge(axes, content)
    return figure


def _judge(axes: Mapping[str, "Axes"], content: ReportContent) -> None:
    """Whether probabilities hold, and effects are those of real cells."""
    curves, effects = content.scores.get("calibration"), content.scores.get("effects")
    for name, text in (("zeros", "a count is 0"), ("counts", "a count reaches 1, 2, …")):
        panel = axes[f"{name[:-1]} reliability"]
        panel.set_title(f"of hidden genes: {text}")
        if curves is None:
            say_nothing(panel, "nothing was predicted")
        else:
            draw_reliability(panel, curves[name])
    for name, draw in (("agreement", draw_agreement), ("effects", draw_effects)):
        if effects is None:
            say_nothing(axes[name], "no two labels have cells enough")
        else:
            draw(axes[name], effects)
            what = "correlation" if name == "agreement" else "slope"
            axes[name].set_title(f"log-fold changes: {what}")


def draw_samples(samples: Samples, title: str) -> "Figure":
    """Generated cells beside real ones, in one row of panels, for a picture amid training.

    The components are those of the real cells: from picture to picture they stay.
    """
    names = ("means", "zeros", "totals", "components")
    figure, axes = new_mosaic((names,), size=(17, 4.4), title=title)
    compare_genes(axes["means"], samples, lambda counts: counts.mean(0), is_log=True)
    axes["means"].set_title("mean count of each gene")
    axes["means"].legend(frameon=False, loc="upper left", fontsize=9, markerscale=2)
    compare_genes(axes["zeros"], samples, lambda counts: (counts == 0).mean(0), is_log=False)
    axes["zeros"].set_title("fraction of zeros of each gene")
    compare_totals(axes["totals"], samples)
    axes["totals"].set_title("counts a cell")
    components = Components.fit([samples.real, samples.other], show=samples)
    both = ("generated", "held-out real")
    compare_components(axes["components"], samples.generated, samples.real, both, components)
    axes["components"].set_title("PCA of log(1 + count)")
    return figure


def _plot_losses(axes: "Axes", content: ReportContent) -> None:
    curves, losses = content.curves, content.losses
    axes.set_title("loss")
    if not curves or not len(curves["step"]):
        say_nothing(axes, "nothing was trained")
        return
    steps = curves["step"]
    axes.plot(steps, curves["train/loss"], color=GREY, label="training", linewidth=2)
    axes.plot(steps, curves["val/loss"], color=BLUE, label="validation", linewidth=2)
    axes.axhline(
        curves["val/marginal"][-1], color="black", linestyle="--", label="each gene by itself"
    )
    if "test/loss" in losses:
        axes.errorbar(
            steps[-1],
            losses["test/loss"],
            losses.get("test/loss_se"),
            color=ORANGE,
            marker="D",
            linestyle="none",
            label=f"test: {_with_error(losses, 'test')}",
        )
    axes.set(xlabel="optimizer step", ylabel="nats a gene")
    axes.set_ylim(top=axes.get_ylim()[0] + 1.4 * np.ptp(axes.get_ylim()))
    axes.legend(frameon=False, loc="upper right", fontsize=9)  # where curves seldom are


def _plot_likelihoods(axes: "Axes", content: ReportContent) -> None:
    """What counts cost the model, beside what they cost without one."""
    losses = content.losses
    scored = [s for s in _SPLITS if f"{s}/count_nll" in losses and s in content.baselines]
    axes.set_title("negative log-likelihood of counts")
    if not scored:
        say_nothing(axes, "nothing was scored")
        return
    names = list(dict.fromkeys(name for split in scored for name in content.baselines[split]))
    rows = ["model", *names]
    for split in scored:
        color, marker, text = _SPLITS[split]
        costs = {"model": losses[f"{split}/count_nll"], **content.baselines[split]}
        own = [costs.get(name, np.nan) for name in rows]
        axes.scatter(own, range(len(rows)), c=color, marker=marker, s=40, label=text, zorder=2)
        for place, cost in enumerate(own):
            side = -1 if split == "val" else 1
            axes.annotate(
                f"{cost:.3f}",
                (cost, place),
                xytext=(0, -9 * side),
                textcoords="offset points",
                ha="center",
                va="bottom" if side < 0 else "top",
                color=color,
                fontsize=9,
            )
        if error := losses.get(f"{split}/loss_se"):
            axes.errorbar(own[0], 0, xerr=error, color=color, zorder=1)
    axes.set_yticks(range(len(rows)), [_name_baseline(name) for name in rows])
    axes.set_ylim(len(rows) + 0.2, -0.6)  # room for what the colors mean
    axes.margins(x=0.15)
    axes.grid(axis="x", color="#E5E5E5")
    axes.set_axisbelow(True)
    axes.set_xlabel("nats a gene (less is better)")
    axes.legend(frameon=False, loc="lower center", fontsize=9, ncols=2)


def _name_baseline(name: str) -> str:
    known = {"model": "the model", "marginal": "each gene\nby itself", "given_depth": "given depth"}
    return known.get(name, name.replace("given_", "given ").replace("$", r"\$"))


def _with_error(losses: Mapping[str, float], split: str) -> str:
    error = losses.get(f"{split}/loss_se")
    return f"{losses[f'{split}/loss']:.3f}" + (f" ± {error:.3f}" if error is not None else "")
