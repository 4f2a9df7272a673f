"""Machinery that knows nothing of cells: whole files, hashes, threads, HDF5 past the library.

Each file stands alone: `files`, `hashing`, `threads`, `hdf5_chunks`, `hdf5_map`,
`hdf5_frame`, `compiling`, `array_pool`, `figures`.
"""

from scdiff_data.base.array_pool import ArrayPool
from scdiff_data.base.compiling import add_eight, at_address, compiled, copy_bytes, prefetch
from scdiff_data.base.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from scdiff_data.base.files import FileEntry, describe_file, write_aside, write_json, write_parquet
from scdiff_data.base.hashing import digest, hash_file, keyed_hash, order_by_hash, pick_by_hash
from scdiff_data.base.hdf5_chunks import ChunkedValues, list_filters
from scdiff_data.base.hdf5_frame import write_categorical, write_frame, write_mappings, write_sparse
from scdiff_data.base.hdf5_map import map_dataset
from scdiff_data.base.threads import Workers

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "ArrayPool",
    "ChunkedValues",
    "FileEntry",
    "Workers",
    "add_eight",
    "at_address",
    "compiled",
    "copy_bytes",
    "describe_file",
    "digest",
    "hash_file",
    "keyed_hash",
    "list_filters",
    "map_dataset",
    "new_figure",
    "order_by_hash",
    "pick_by_hash",
    "prefetch",
    "save_figure",
    "write_aside",
    "write_categorical",
    "write_frame",
    "write_json",
    "write_mappings",
    "write_parquet",
    "write_sparse",
]
