"""Figures without global state, the same bytes for the same data."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

from numpy.typing import NDArray

from scdiff_data.base.files import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE = "#0072B2"
"""First of three colors that color-blind readers tell apart (Okabe and Ito)."""

ORANGE = "#D55E00"
"""The second."""

GREEN = "#009E73"
"""The third."""

GREY = "#B5B5B5"
"""For what the others stand out from."""

PALETTE = (BLUE, ORANGE, GREEN, "#E69F00", "#56B4E9", "#CC79A7", "#000000")
"""As many as can be told apart by all readers, the three above first; what is left is grey."""


def new_figure(
    n_rows: int, n_columns: int, *, size: tuple[float, float], title: str
) -> tuple["Figure", NDArray[Any]]:
    """A titled figure, and its grid of panels without frames, [n_rows, n_columns]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=14)
    axes: NDArray[Any] = figure.subplots(n_rows, n_columns, squeeze=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def new_mosaic(
    layout: Sequence[Sequence[str]], *, size: tuple[float, float], title: str
) -> tuple["Figure", dict[str, "Axes"]]:
    """A titled figure, and its panels by the names that a layout gives them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=14)
    axes: dict[str, Axes] = figure.subplot_mosaic([list(row) for row in layout])
    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def number_log_axis(axis: "Axis") -> None:
    """Numbers as they are spoken of, at 1, 2 and 5 times the powers of ten."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def shorten_name(name: str, longest: int) -> str:
    """A name from the data that fits into a picture, and that matplotlib takes as it is."""
    # Blanks are seen; and matplotlib leaves names with a `_` before them out of legends.
    name = name if name == name.strip() != "" and name[0] != "_" else f"“{name}”"
    short = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return short.replace("$", r"\$")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_bytes(render_figure(figure))


def render_figure(figure: "Figure") -> bytes:
    """The bytes of a PNG."""
    for panel in figure.axes:
        panel.minorticks_off()  # ticks between decades take as long to lay out as all else
    content = BytesIO()
    with catch_warnings():  # names may be in any script
        filterwarnings("ignore", r"Glyph .* missing from font")
        # Without its version, the same picture has the same bytes.
        figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
