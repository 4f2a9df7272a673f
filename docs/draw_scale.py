"""Draw `docs/images/scale.png` from `benchmarks/results/scale.md`: `python docs/draw_scale.py`."""

import re
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
"""Okabe and Ito's colors, which color-blind readers tell apart."""


def read_table(report: str, title: str, column: int) -> dict[float, float]:
    """A column of the table below a title, by the numbers of the first one."""
    lines = iter(report.splitlines())
    for line in lines:
        if re.match(rf"{title}\b", line):
            break
    next(lines)  # heads
    found = {}
    for line in lines:
        cells = re.split(r" {2,}", line.strip())
        if not re.fullmatch(r"[\d,]+", cells[0]):
            break
        if len(cells) > column:
            found[to_number(cells[0])] = to_number(cells[column].removesuffix(" MB"))
    return found


def to_number(text: str) -> float:
    """A number as reports have it."""
    return float(text.replace(",", ""))


def draw(axes: Axes, points: dict[float, float], label: str, color: str, place: str) -> None:
    """A curve, named at its end."""
    axes.plot(list(points), list(points.values()), "o-", color=color, markersize=4)
    last = list(points)[-1]
    shift = {"above": (0, 7), "below": (0, -14)}[place]
    axes.annotate(
        label,
        (last, points[last]),
        shift,
        textcoords="offset points",
        ha="right",
        color=color,
        fontsize=9,
    )


def main() -> None:
    """Draw all three."""
    report = (ROOT / "benchmarks" / "results" / "scale.md").read_text("utf-8")
    figure = Figure(figsize=(13, 4), layout="constrained", dpi=110)
    first, second, third = figure.subplots(1, 3)

    seconds = read_table(report, "prepare", 1)
    draw(first, seconds, "prepare", BLUE, "above")
    draw(first, read_table(report, "draw", 1), "its table of cells", ORANGE, "below")
    n, t = list(seconds)[-1], list(seconds.values())[-1]
    first.plot([n / 300, n], [t / 300, t], "--", color=GREY, linewidth=1)
    told = {"ha": "left", "va": "top", "color": GREY, "fontsize": 9}
    first.annotate("as the cells", (n / 100, t / 140), **told)
    first.set(xscale="log", yscale="log", ylim=(0.2, 300), ylabel="seconds")
    first.set_title("time to prepare, two cores")

    draw(second, read_table(report, "prepare", 5), "prepare", BLUE, "above")
    draw(second, read_table(report, "load", 4), "load", GREEN, "above")
    draw(second, read_table(report, "sample", 4), "sample", ORANGE, "below")
    second.set(xscale="log", ylim=(0, 650), title="memory of the whole process", ylabel="MB")

    draw(third, read_table(report, "load", 1), "", GREEN, "above")
    third.set(xscale="log", ylim=(0, 2.6e6), title="loading from memory, one core")
    third.set_ylabel("cells a second")
    third.yaxis.set_major_formatter(lambda rate, _: f"{rate / 1e6:.1f} M")
    for axes in (first, second, third):
        axes.set_xlabel("cells")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs" / "images" / "scale.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
