"""Where in a file its counts lie: in `X`, in `raw.X`, or in a layer."""

import logging
import re
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import ChunkedValues
from scdiff_data.errors import CountError, UnsafeFileError

logger = logging.getLogger(__name__)

NOISE = 1e-4
"""How far from a whole number, relative to it, a value may be and still count as it."""

_SAMPLE = 1 << 16
"""Values looked at, at the start and in the middle of an element."""

_PLACE = re.compile(r"X|raw\.X|layers/[^/|]+")
"""A place that a setting can name."""

_LOG_LIMIT = 20
"""What logarithms of counts stay below: e to this is half a billion."""


def check_place(counts: str) -> None:
    """Raise ValueError if a setting names no place for counts."""
    if counts != "auto" and not all(_PLACE.fullmatch(place) for place in counts.split("|")):
        raise ValueError(f"counts must be X, raw.X, layers/NAME or auto, got {counts!r}")


def list_places(file: h5py.File) -> list[str]:
    """Elements that may hold counts: `X`, then `raw.X`, then the layers by their names."""
    places = [name for name in ("X", "raw/X", "raw.X") if name in file]
    layers = file.get("layers")
    named = sorted(layers) if isinstance(layers, h5py.Group) else []
    return places + [f"layers/{name}" for name in named]


def find_counts(file: h5py.File, counts: str, name: str) -> str:
    """The name of the element that holds counts.

    Parameters
    ----------
    file, name
        The AnnData file, and its name for the errors.
    counts
        `X`, `raw.X`, `layers/NAME`; several, as `raw.X|X`, of which the first that is there is
        taken; or `auto`: the first of the file's that holds whole numbers.

    Raises
    ------
    CountError
        If the file lacks it, or with `auto` none holds whole numbers.
    """
    places = list_places(file)
    if counts != "auto":
        wanted = [
            element
            for place in counts.split("|")
            for element in (("raw/X", "raw.X") if place == "raw.X" else (place,))
        ]
        found = [place for place in wanted if place in places]
        if not found:
            raise CountError(
                f"{name} is no AnnData file with counts in {counts}: it has none there; it "
                f"has {', '.join(places) or 'none that could hold counts'}"
            )
        return found[0]
    seen = []
    for place in places:
        values = _read_sample(file[place])
        if _hold_counts(values):
            logger.info("%s: counts are read from %s", name, place)
            return place
        seen.append(f"{place} {_describe(values)}")
    raise CountError(
        f"{name} holds no counts: no element holds whole numbers ({'; '.join(seen) or 'none'})"
    )


def explain_values(x: h5py.Group | h5py.Dataset) -> str:
    """What the values of an element look like, and where whole numbers are instead."""
    file, own = x.file, x.name.strip("/")
    others = []
    for place in list_places(file):
        with suppress(UnsafeFileError):  # of another element: it is not what is wrong
            if place != own and _hold_counts(_read_sample(file[place])):
                others.append(place)
    seen = f"{own} {_describe(_read_sample(x))}"
    if not others:
        return f"{seen}; no other element of the file holds whole numbers"
    place = "raw.X" if others[0].startswith("raw") else others[0]
    return f"{seen}; whole numbers are in {place}: set source.counts={place}"


def _read_sample(element: h5py.Group | h5py.Dataset) -> NDArray[np.float64]:
    """Some values of an element, those at its start and in its middle."""
    values: Any = element.get("data") if isinstance(element, h5py.Group) else element
    if not isinstance(values, h5py.Dataset) or values.ndim not in (1, 2):
        return np.full(1, np.nan)
    n, width = len(values), 1 if values.ndim == 1 else max(values.shape[1], 1)
    step = max(_SAMPLE // width, 1)
    try:
        parts = [values[:step], values[n // 2 : n // 2 + step]]
    except UnsafeFileError:  # a chunk too large to be inflated as a whole
        stream = ChunkedValues(values)
        if not stream.is_sequential:
            raise
        parts = [stream.read(0, min(step * width, len(stream)))]
    try:
        return np.concatenate(parts).ravel().astype(np.float64)
    except (TypeError, ValueError):
        return np.full(1, np.nan)


def are_counts(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each value is finite, not negative, below 2^31, and whole but for some noise."""
    is_count = (values >= 0) & (values < 2**31)
    whole = np.rint(values[is_count])
    is_count[is_count] = np.abs(values[is_count] - whole) <= NOISE * whole
    return is_count


def _hold_counts(values: NDArray[np.float64]) -> bool:
    return bool(are_counts(values).all() and values.any())


def _describe(values: NDArray[np.float64]) -> str:
    """What values look like, for a person who knows how they came about."""
    if not len(values) or not values.any():
        return "holds zeros alone"
    if not np.isfinite(values).all():
        return "holds values that are no numbers"
    if _hold_counts(values):
        return "holds whole numbers at its start"
    span = f"({values.min():.3g} … {values.max():.3g} at its start)"
    if (values < 0).any():
        return f"looks like scaled values or Pearson residuals {span}"
    if values.max() < _LOG_LIMIT:
        return f"looks like logarithms of normalised counts {span}"
    return f"looks like normalised counts {span}"
