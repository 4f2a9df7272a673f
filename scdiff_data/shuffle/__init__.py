"""From the archives' order to another one, in bounded memory and by way of the disk.

Read `packing`, `filling`, `buckets`, `loops`, `sorting`, `parts`, `tables`.
"""

from scdiff_data.shuffle.buckets import HEADER_BYTES, Buckets
from scdiff_data.shuffle.packing import (
    PackedRows,
    most_row_bytes,
    pack_rows,
    translate_row,
    unpack_row,
)
from scdiff_data.shuffle.parts import sort_elsewhere
from scdiff_data.shuffle.sorting import sort_cells
from scdiff_data.shuffle.tables import TableSorter

__all__ = [
    "HEADER_BYTES",
    "Buckets",
    "PackedRows",
    "TableSorter",
    "most_row_bytes",
    "pack_rows",
    "sort_cells",
    "sort_elsewhere",
    "translate_row",
    "unpack_row",
]
