"""Figures without global state, the same bytes for the same data."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from scdiff_data.base.files import write_aside

if TYPE_CHECKING:
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


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_bytes(render_figure(figure))


def render_figure(figure: "Figure") -> bytes:
    """The bytes of a PNG."""
    for panel in figure.axes:
        panel.minorticks_off()  # ticks between decades take as long to lay out as all else
    content = BytesIO()
    # Without its version, the same picture has the same bytes.
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
