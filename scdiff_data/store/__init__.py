"""A prepared directory: what lies where, whether it is whole, and the shards training reads.

Read `layout`, `manifest`, `records`, `fallback`, `shards`, `shard_rows`, `check`.
"""

from scdiff_data.store.check import check_shards
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.manifest import SCHEMA_VERSION, GeneCounts, Manifest, mark_unfinished
from scdiff_data.store.records import ExperimentRecord, Records, list_experiments, sum_dropped
from scdiff_data.store.shard_rows import ShardRows
from scdiff_data.store.shards import write_shards

__all__ = [
    "SCHEMA_VERSION",
    "DataDirectory",
    "ExperimentRecord",
    "GeneCounts",
    "Manifest",
    "Records",
    "ShardRows",
    "check_shards",
    "list_experiments",
    "mark_unfinished",
    "sum_dropped",
    "write_shards",
]
