"""Where cells come from: which experiments there are (the catalog), and their files.

Read `source`, `scbasecount`, `h5ad_folder`, `local_bucket`, `pbmc`, `simulated`, `catalog`,
`downloads`.
"""

from scdiff_data.sources.catalog import (
    CatalogRow,
    Condition,
    filter_catalog,
    group_experiments,
    match_conditions,
    read_rows,
    read_snapshot,
    take_snapshot,
)
from scdiff_data.sources.downloads import download
from scdiff_data.sources.h5ad_folder import H5adFolder
from scdiff_data.sources.pbmc import Pbmc
from scdiff_data.sources.scbasecount import ScBaseCount
from scdiff_data.sources.simulated import SimulatedAtlas
from scdiff_data.sources.source import Bucket, Source, StoredSource

__all__ = [
    "Bucket",
    "CatalogRow",
    "Condition",
    "H5adFolder",
    "Pbmc",
    "ScBaseCount",
    "SimulatedAtlas",
    "Source",
    "StoredSource",
    "download",
    "filter_catalog",
    "group_experiments",
    "match_conditions",
    "read_rows",
    "read_snapshot",
    "take_snapshot",
]
