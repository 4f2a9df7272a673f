"""Settings as plain values: what checkpoints keep, and read again without running code."""

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
from omegaconf import OmegaConf

_T = TypeVar("_T")
"""What is made of settings."""


def pass_on(make: Callable[..., _T], given: Mapping[str, Any]) -> _T:
    """Call `make` with those of the settings given that it takes."""
    return make(**{name: given[name] for name in signature(make).parameters})


def make_plain(value: Any) -> Any:
    """The same with Python's own numbers, texts, lists and dicts; other objects as they are.

    Nodes of omegaconf become what they hold, numbers and arrays of numpy Python's numbers and
    lists of them, and paths texts.
    """
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {make_plain(key): make_plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(make_plain, value))
    return value
