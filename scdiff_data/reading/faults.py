"""Whatever goes wrong while a file is read becomes one error: file, element and reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scdiff_data.errors import CountError


@contextmanager
def explain(path: Path, element: str) -> Iterator[None]:
    """Turn what anndata, h5py, numba, numpy or scipy raise over an element into a CountError.

    What is not the file's fault passes: a missing plug-in, a full disk, too many open files.
    """
    try:
        yield
    except (CountError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes libraries raise anything
        if getattr(error, "errno", None) or "No space left" in str(error):
            raise
        what = " ".join(str(error).split()) or "no reason given"
        raise CountError(
            f"{path.name} cannot be read: {element}: {type(error).__name__}: {what[:300]}"
        ) from error


def read_text(attributes: Any, name: str) -> str | None:
    """An attribute that is a text, whatever its string type; None if it is not there.

    h5py gives a text of variable length as str, and one of fixed length, as Julia writes it, as
    bytes; R writes an array of one.
    """
    if name not in attributes:
        return None
    return decode_text(attributes[name])


def read_texts(attributes: Any, name: str) -> list[str] | None:
    """An attribute that is a list of texts; None if it is not there."""
    if name not in attributes:
        return None
    return [decode_text(text) for text in np.atleast_1d(attributes[name])]


def decode_text(value: Any) -> str:
    """One text as h5py gives it: bytes, a str, or an array of one of these."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    return value.decode() if isinstance(value, bytes) else str(value)
