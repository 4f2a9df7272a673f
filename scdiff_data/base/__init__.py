"""Machinery that knows nothing of cells: whole files, hashes, threads, HDF5 past the library.

Each file stands alone: `files`, `hashing`, `threads`, `hdf5_chunks`, `hdf5_map`,
`hdf5_frame`, `compiling`, `array_pool`, `figures`.
"""

from scdiff_data.base.array_pool import ArrayPool
from scdiff_data.base.compiling import (
    add_eight,
    at_address,
    compiled,
    copy_bytes,
    count_trailing_zeros,
    load_eight,
    prefetch,
    translate_sixteen,
    zero_bytes,
)
from scdiff_data.base.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from scdiff_data.base.files import (
    FileEntry,
    create_file,
    describe_file,
    open_in_place,
    read_parquet,
    read_sealed,
    write_aside,
    write_hdf5,
    write_json,
    write_parquet,
    write_sealed,
)
from scdiff_data.base.hashing import digest, hash_file, keyed_hash, order_by_hash, pick_by_hash
from scdiff_data.base.hdf5_chunks import ChunkedValues, list_filters
from scdiff_data.base.hdf5_frame import (
    FrameParts,
    write_categorical,
    write_frame,
    write_mappings,
    write_sparse,
)
from scdiff_data.base.hdf5_map import (
    DiskWatch,
    ask_for,
    ask_for_bytes,
    expect_random,
    find_datasets,
    give_back,
    identify_file,
    map_dataset,
    map_file,
    map_file_datasets,
    tell_here,
)
from scdiff_data.base.threads import Workers

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "ArrayPool",
    "ChunkedValues",
    "DiskWatch",
    "FileEntry",
    "FrameParts",
    "Workers",
    "add_eight",
    "ask_for",
    "ask_for_bytes",
    "at_address",
    "compiled",
    "copy_bytes",
    "count_trailing_zeros",
    "create_file",
    "describe_file",
    "digest",
    "expect_random",
    "find_datasets",
    "give_back",
    "hash_file",
    "identify_file",
    "keyed_hash",
    "list_filters",
    "load_eight",
    "map_dataset",
    "map_file",
    "map_file_datasets",
    "new_figure",
    "open_in_place",
    "order_by_hash",
    "pick_by_hash",
    "prefetch",
    "read_parquet",
    "read_sealed",
    "save_figure",
    "tell_here",
    "translate_sixteen",
    "write_aside",
    "write_categorical",
    "write_frame",
    "write_hdf5",
    "write_json",
    "write_mappings",
    "write_parquet",
    "write_sealed",
    "write_sparse",
    "zero_bytes",
]
