"""The card of a data set: what is known of it, put together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from scdiff_data.base import describe_number, read_sealed, save_figure
from scdiff_data.errors import ManifestError
from scdiff_data.recipes import Recipe
from scdiff_data.reporting.pictures import draw_card
from scdiff_data.reporting.state import find_state, weigh
from scdiff_data.reporting.survey import CellSurvey, LabelSurvey, survey_cells
from scdiff_data.reporting.text import write_text
from scdiff_data.shards import count_replacements
from scdiff_data.store import (
    DataDirectory,
    Manifest,
    describe_losses,
    find_directory,
    read_experiments,
)

_N_GENES = 10
"""Genes that a card names."""

_MOST_CELLS = 4_000_000
"""Cells that are read, about: some seconds' work."""


@dataclass(frozen=True)
class DataCard:
    """What a data directory holds: `print` it, `to_json` it, or `draw` it.

    Parameters
    ----------
    facts
        All that is known, as plain values: `data_dir`; `state` (`whole`, `unfinished` or
        `damaged`) and `notes` on it; `settings` and `changed`, those that differ from the usual;
        `cells` and `experiments` of each split; `genes`; `counts_a_cell` and `genes_a_cell`;
        `labels`, of each its values or its range; `read`, of how many cells these four are, where
        there are too many to read them all; `dropped` and `losses`; `disk`; `packages`. What
        an unfinished or damaged directory does not say is not there.
    cells
        What the table of cells says, for the picture; None if there is none.
    """

    facts: Mapping[str, Any]
    cells: CellSurvey | None

    def __str__(self) -> str:
        return write_text(self.facts)

    def to_json(self) -> str:
        """The facts as JSON."""
        return json.dumps(self.facts, indent=2, ensure_ascii=False)

    def draw(self, path: str | Path) -> None:
        """Draw cells a label, their depth, their genes, and the experiments' sizes, as PNG.

        Raises
        ------
        ValueError
            If there are no cells yet.
        """
        if self.cells is None:
            raise ValueError(
                f"{self.facts['data_dir']} is {self.facts['state']}: there are no cells to draw"
            )
        genes = self.facts["genes"]
        splits = ", ".join(f"{n:,} {name}" for name, n in self.facts["cells"].items())
        title = (
            f"{Path(self.facts['data_dir']).name}: {describe_number(self.cells.n_cells, 'cell')} "
            f"of {describe_number(len(self.cells.experiments.n_of), 'experiment')} ({splits}), "
            f"{genes['chosen']:,} of {genes['reference']:,} genes"
        )
        save_figure(draw_card(title, self.cells), Path(path))


def describe(data_dir: str | Path) -> DataCard:
    """Say what a directory holds, and whether it is whole, unfinished or damaged.

    Sizes of files are compared, not their bytes: `check_data_dir` reads these.

    Parameters
    ----------
    data_dir
        The directory.

    Raises
    ------
    FileNotFoundError
        If it is no directory, or nothing in it is ours.
    """
    directory = find_directory(data_dir)
    state = find_state(directory)
    facts: dict[str, Any] = {"data_dir": str(directory.path)}
    facts |= {"state": state.kind, "notes": list(state.notes)}
    cells = None
    manifest = state.manifest
    if manifest is not None:
        facts |= _describe_settings(manifest.recipe)
        if state.kind != "unfinished":  # the files of one that is made anew may be others
            cells = _describe_finished(directory, manifest, facts)
    elif directory.downloaded.exists():
        facts |= _describe_downloaded(directory)
    facts["disk"] = weigh(directory.path)
    return DataCard(facts, cells)


def _describe_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    usual = {name: p.default for name, p in signature(Recipe).parameters.items()}
    usual = Recipe(**(usual | {"source": recipe["source"]})).settings()
    changed = {name: value for name, value in recipe.items() if usual.get(name, "") != value}
    return {"settings": dict(recipe), "changed": [n for n in changed if n != "source"]}


def _describe_downloaded(directory: DataDirectory) -> dict[str, Any]:
    try:
        return _describe_settings(read_sealed(directory.downloaded))
    except (OSError, ValueError, KeyError):
        return {}


def _describe_finished(
    directory: DataDirectory, manifest: Manifest, facts: dict[str, Any]
) -> CellSurvey | None:
    """Put in what a manifest and its files say; what cannot be read becomes a note."""
    facts |= {
        "cells": dict(manifest.n_cells),
        "experiments": dict(manifest.n_experiments),
        "genes": {"chosen": manifest.genes.n_chosen, "reference": manifest.genes.n_reference},
        "shards": {"n": len(manifest.shards), "format": manifest.shard_format},
        "dropped": dict(manifest.dropped),
        "packages": dict(manifest.packages),
    }
    cells = None
    try:
        info = json.loads(directory.hvg_info.read_text("utf-8"))
        facts["genes"] |= {"how": info["flavor"], "first": info["hvg_symbols"][:_N_GENES]}
        facts["losses"] = describe_losses(read_experiments(directory.experiments))
        if manifest.recipe.get("fallback_min_genes"):
            facts["genes"]["places_refilled"] = count_replacements(manifest)
        cells = survey_cells(manifest, most=_MOST_CELLS)
    except (OSError, ValueError, KeyError, TypeError, ManifestError) as error:
        facts["state"] = "damaged"
        if not facts["notes"]:
            facts["notes"].append(str(error))
        return None
    facts |= {"counts_a_cell": cells.total_counts.to_dict()}
    facts |= {"genes_a_cell": cells.n_genes.to_dict()}
    if cells.n_read < cells.n_cells:
        facts["read"] = cells.n_read
    largest = cells.experiments.list_values()[:5]
    facts["largest_experiments"] = {name: int(n.sum()) for name, n in largest}
    facts["labels"] = {name: _describe_label(label) for name, label in cells.labels.items()}
    return cells


def _describe_label(label: LabelSurvey) -> dict[str, Any]:
    missing = int(label.n_missing.sum())
    if label.ends is None:
        values = {value: int(n.sum()) for value, n in label.list_values()}
        return {"values": values, "missing": missing}
    least, most = label.ends
    return {"least": least, "mean": label.mean, "most": most, "missing": missing}
