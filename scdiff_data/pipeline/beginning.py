"""Before any work: where files are and which there may be, and what stands in the way."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from scdiff_data.errors import ManifestError
from scdiff_data.genes import NamedGenes
from scdiff_data.pipeline.verifying import explain_lack
from scdiff_data.reading import GeneAxis, strip_versions
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.sources import (
    Bucket,
    CatalogRow,
    layout_of,
    read_gene_axis_of,
    read_snapshot,
    survey_genes,
    take_snapshot,
)
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


def find_axis(
    recipe: Recipe,
    directory: DataDirectory,
    bucket: Bucket,
    rows: Mapping[str, CatalogRow],
    options: PrepareOptions,
) -> GeneAxis | None:
    """The genes of all archives, written down; None where the first experiment's are taken."""
    how = recipe.gene_axis
    if isinstance(how, NamedGenes):
        names = strip_versions(how.names)
        axis = GeneAxis(tuple(names), tuple(how.symbols or names))
    elif how == "first":
        return None
    elif how == "source":
        axis = read_gene_axis_of(recipe.source, bucket)
    else:
        axis = survey_genes(
            bucket,
            rows,
            layout_of(recipe.source),
            take_all=how == "union",
            max_memory=options.max_memory,
        )
    if GeneAxis.find(directory.genes) != axis:
        directory.metadata.mkdir(parents=True, exist_ok=True)
        axis.write(directory.genes)
    if recipe.genes is not None:
        recipe.genes.find(axis)  # says at once if they are of no use here
    return axis
