"""Where cells come from, by a short name: one of `configs/data`, with the settings it needs.

`--source pbmc` starts from what `python train.py data=pbmc` starts from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

import scdiff_data
from scdiff_data.command.mistakes import UsageError, suggest
from scdiff_data.constants import SCRIPTS

OWN_FILES = "h5ad"
"""The name of the user's own files."""

_OF_FILES = (".h5ad", ".h5", ".mtx", ".zarr")
"""How names of own files end, whether the files are there or not."""


@dataclass(frozen=True)
class Start:
    """A kind of source, and settings to start from.

    Parameters
    ----------
    kind
        Its class.
    source
        Arguments of the class.
    settings
        Arguments of `Recipe` and others, by name.
    """

    kind: type
    source: Mapping[str, Any]
    settings: Mapping[str, Any]


def list_starts() -> list[str]:
    """The names, in order."""
    files = sorted((SCRIPTS / "configs" / "data").glob("*.yaml"))
    return [file.stem for file in files if "source" in _read(file) and file.stem != "default"]


def find_start(text: str) -> Start:
    """What a name, a class or a path stands for.

    Parameters
    ----------
    text
        A name of `list_starts`; a class of this package or of a module; or what `H5adFolder` takes
        as its path.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    names = list_starts()
    if text in names:
        return _read_start(text)
    is_named = "/" in text or "*" in text or text.endswith(_OF_FILES)
    if is_named or Path(text).expanduser().exists():
        own = _read_start(OWN_FILES)
        return Start(own.kind, {**own.source, "path": text}, own.settings)
    module, _, name = text.rpartition(".")
    try:
        kind = getattr(import_module(module) if module else scdiff_data, name)
    except (ImportError, AttributeError):
        kind = None
    if not (isinstance(kind, type) and hasattr(kind, "read_catalog")):
        raise UsageError(
            f"--source {text} is no path that there is, no class of a source and none of "
            f"{', '.join(names)}{suggest(text, names)}"
        )
    return Start(kind, {}, {})


def _read(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text("utf-8")) or {})


def _read_start(name: str) -> Start:
    content = _read(SCRIPTS / "configs" / "data" / f"{name}.yaml")
    source = dict(content.pop("source"))
    kind = getattr(scdiff_data, source.pop("_target_").rpartition(".")[2])
    return Start(kind, {k: v for k, v in source.items() if v != "???"}, content)
