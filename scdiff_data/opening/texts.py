"""Attributes of HDF5 that are texts, whoever wrote them."""

from typing import Any

import numpy as np


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
