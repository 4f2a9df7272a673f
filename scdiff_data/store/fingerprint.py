"""What bytes on disk depend on: the fingerprint of the settings, and versions of packages."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from scdiff_data.base import digest

SCHEMA_VERSION = 1
"""Of the files on disk; data of another version are made anew."""

_LATER: dict[str, Any] = {
    "gene_axis": "first",
    "span": 0.3,
    "cell_filters": {},
    "max_mito_pct": None,
    "mito_genes": "MT-",
    "min_pass_fraction": 0.0,
    "min_cells": 0,
}
"""Settings that older directories did not know, as they were then."""

_PACKAGES = ("scdiff_data", "anndata", "h5py", "numpy", "pyarrow")
"""Whose versions a manifest names: those that decide what is in the files."""


def digest_settings(settings: Mapping[str, Any]) -> str:
    """Fingerprint of the settings that decide the bytes on disk, and of the schema version.

    When a run gives up does not change what it makes, so `max_failed_fraction` counts as the value
    that older directories' fingerprints were taken with. How counts lie does not change it either.
    """
    decisive = {
        name: value
        for name, value in settings.items()
        if name != "shard_format" and (name not in _LATER or value != _LATER[name])
    }
    return digest([SCHEMA_VERSION, {**decisive, "max_failed_fraction": 0.1}])


def list_packages() -> dict[str, str]:
    """Versions of Python and of the packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
