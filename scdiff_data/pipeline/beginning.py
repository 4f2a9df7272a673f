"""Before any work: where files are and which there may be, and what stands in the way."""

import logging
from pathlib import Path

import pyarrow as pa

from scdiff_data.errors import ManifestError
from scdiff_data.pipeline.verifying import explain_lack
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.sources import Bucket, read_snapshot, take_snapshot
from scdiff_data.store import DataDirectory, Manifest, mark_unfinished

logger = logging.getLogger(__name__)


def open_source(
    recipe: Recipe, directory: DataDirectory, options: PrepareOptions
) -> tuple[Bucket | None, pa.Table]:
    """Where the files are, and the catalog; of `stages=process` the catalog alone."""
    catalog = None if options.refresh_catalog else read_snapshot(directory.catalog, recipe.source)
    if options.stages == "process":
        if catalog is None:
            raise FileNotFoundError(explain_lack(directory, f"{directory.catalog} of this source"))
        return None, catalog
    bucket = recipe.source.open(directory.source)
    if catalog is None:
        mark_unfinished(directory)
        catalog = take_snapshot(directory.catalog, recipe.source, bucket)
    return bucket, catalog


def read_finished(directory: DataDirectory) -> Manifest | None:
    """The manifest of finished data; None if there is none that can be read."""
    try:
        return Manifest.read(directory.path)
    except (FileNotFoundError, ManifestError):
        return None


def ask_before_replacing(
    recipe: Recipe, finished: Manifest | None, place: Path | str, setting: str, *, replace: bool
) -> None:
    """Raise ValueError if finished data of other settings have to go from what a setting names."""
    if finished is None or recipe.makes_what(finished.recipe):
        return
    stored = finished.recipe
    lost = recipe.describe_difference(stored, replaced_alone=True)
    if lost and not replace:
        raise ValueError(
            f"{place} holds finished data of other settings ({lost}): set another "
            f"{setting}, or let them go with replace=True (scdiff-data: --replace, train.py: "
            "replace_data=true)"
        )
    logger.warning(
        "%s holds data of other settings (%s): they are replaced",
        *(place, recipe.describe_difference(stored)),
    )
