"""Where cells come from: which experiments there are (the catalog), and their files.

Read `source`, `scbasecount`, `own_files`, `collection`, `h5ad_folder`, `atlases`, `catalog`,
`snapshot`, `gene_survey`.
"""

from scdiff_data.sources.atlases import Census, Tahoe100M
from scdiff_data.sources.catalog import (
    CatalogRow,
    Condition,
    filter_catalog,
    group_experiments,
    match_cells,
    match_conditions,
    read_rows,
)
from scdiff_data.sources.collection import H5adCollection, assign_cells
from scdiff_data.sources.gene_survey import survey_genes
from scdiff_data.sources.h5ad_folder import H5adFolder
from scdiff_data.sources.scbasecount import ScBaseCount
from scdiff_data.sources.snapshot import read_snapshot, read_stored, take_snapshot
from scdiff_data.sources.source import (
    Bucket,
    FileLayout,
    ListedSource,
    Source,
    StoredSource,
    layout_of,
    read_checksum,
    read_gene_axis_of,
)

__all__ = [
    "Bucket",
    "CatalogRow",
    "Census",
    "Condition",
    "FileLayout",
    "H5adCollection",
    "H5adFolder",
    "ListedSource",
    "ScBaseCount",
    "Source",
    "StoredSource",
    "Tahoe100M",
    "assign_cells",
    "filter_catalog",
    "group_experiments",
    "layout_of",
    "match_cells",
    "match_conditions",
    "read_checksum",
    "read_gene_axis_of",
    "read_rows",
    "read_snapshot",
    "read_stored",
    "survey_genes",
    "take_snapshot",
]
