"""Where cells come from: which experiments there are (the catalog), and their files.

Read `rows`, `source`, `scbasecount`, `own_files`, `collection`, `h5ad_folder`, `atlases`,
`catalog`, `snapshot`.
"""

from scdiff_data.sources.atlases import Census, Tahoe100M
from scdiff_data.sources.catalog import (
    Condition,
    filter_catalog,
    group_experiments,
    match_cells,
    match_conditions,
    sum_cells,
)
from scdiff_data.sources.collection import H5adCollection, assign_cells
from scdiff_data.sources.h5ad_folder import H5adFolder
from scdiff_data.sources.rows import CatalogRow, DrawOrder, Rows
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
    survey_genes,
)

__all__ = [
    "Bucket",
    "CatalogRow",
    "Census",
    "Condition",
    "DrawOrder",
    "FileLayout",
    "H5adCollection",
    "H5adFolder",
    "ListedSource",
    "Rows",
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
    "read_snapshot",
    "read_stored",
    "sum_cells",
    "survey_genes",
    "take_snapshot",
]
