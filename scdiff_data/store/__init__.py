"""A prepared directory: what lies where, and what became of it.

Read `layout`, `locking`, `fields`, `fingerprint`, `manifest`, `records`, `strangers`, `losses`,
`drawn_cells`.
"""

from scdiff_data.store.drawn_cells import DrawnCells
from scdiff_data.store.fingerprint import SCHEMA_VERSION, digest_settings
from scdiff_data.store.layout import DataDirectory, find_directory
from scdiff_data.store.locking import explain_faults, is_being_prepared, locked
from scdiff_data.store.losses import LossLimit, describe_losses, explain_shortage, have_failed
from scdiff_data.store.manifest import GeneCounts, Manifest, mark_unfinished
from scdiff_data.store.records import (
    ExperimentRecord,
    Records,
    list_exact,
    list_experiments,
    read_experiments,
    sum_dropped,
)
from scdiff_data.store.strangers import refuse_strangers

__all__ = [
    "SCHEMA_VERSION",
    "DataDirectory",
    "DrawnCells",
    "ExperimentRecord",
    "GeneCounts",
    "LossLimit",
    "Manifest",
    "Records",
    "describe_losses",
    "digest_settings",
    "explain_faults",
    "explain_shortage",
    "find_directory",
    "have_failed",
    "is_being_prepared",
    "list_exact",
    "list_experiments",
    "locked",
    "mark_unfinished",
    "read_experiments",
    "refuse_strangers",
    "sum_dropped",
]
