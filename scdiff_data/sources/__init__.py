"""Where cells come from: which experiments there are (the catalog), and their files.

Read `source`, `scbasecount`, `own_files`, `h5ad_folder`, `local_bucket`, `pbmc`, `simulated`,
`catalog`, `gene_survey`.
"""

from scdiff_data.sources.catalog import (
    CatalogRow,
    Condition,
    filter_catalog,
    group_experiments,
    match_cells,
    match_conditions,
    read_rows,
    read_snapshot,
    take_snapshot,
)
from scdiff_data.sources.gene_survey import survey_genes
from scdiff_data.sources.h5ad_folder import H5adFolder
from scdiff_data.sources.pbmc import Pbmc
from scdiff_data.sources.scbasecount import ScBaseCount
from scdiff_data.sources.simulated import SimulatedAtlas
from scdiff_data.sources.source import Bucket, FileLayout, Source, StoredSource, layout_of

__all__ = [
    "Bucket",
    "CatalogRow",
    "Condition",
    "FileLayout",
    "H5adFolder",
    "Pbmc",
    "ScBaseCount",
    "SimulatedAtlas",
    "Source",
    "StoredSource",
    "filter_catalog",
    "group_experiments",
    "layout_of",
    "match_cells",
    "match_conditions",
    "read_rows",
    "read_snapshot",
    "survey_genes",
    "take_snapshot",
]
