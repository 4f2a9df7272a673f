"""HDF5 datasets mapped into memory, past the library.

A contiguous, uncompressed dataset is a range of bytes in its file. Reading rows through h5py takes
fifteen times as long as copying them out of a map of that range, and a compiled loop can copy from
many files at once when it is given the maps' addresses.
"""

from typing import Any, Literal

import h5py
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numpy.typing import NDArray

from scdiff_data.errors import ManifestError


def reserve_dataset(group: h5py.Group, name: str, n: int, dtype: Any) -> None:
    """Make a contiguous dataset of `n` values whose bytes are there at once, for a map to fill."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same input gives the same bytes
    kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple((n,))
    h5py.h5d.create(group.id, name.encode(), kind, space, properties)


def map_dataset(dataset: h5py.Dataset, mode: Literal["r", "r+"] = "r") -> NDArray[Any]:
    """Map a contiguous HDF5 dataset into memory, read-only or not; it outlives the open file.

    The library's own indexing costs more than the read: the bytes are found once and mapped past
    it.
    """
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()
    if offset is None:
        raise ManifestError(f"{dataset.file.filename}:{dataset.name} is not contiguous")
    mapped = np.memmap(dataset.file.filename, dataset.dtype, mode, offset, dataset.shape)
    return mapped.view(np.ndarray)  # a plain view: indexing a memmap object is twice as slow


@intrinsic
def at_address(typing_context: Any, address: Any) -> tuple[Signature, Any]:
    """In compiled code: an integer address as a pointer, for `numba.carray`."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


@intrinsic
def copy_bytes(typing_context: Any, target: Any, source: Any, n: Any) -> tuple[Signature, Any]:
    """In compiled code: copy `n` bytes between integer addresses, by the system's memcpy."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        byte = ir.IntType(8).as_pointer()
        to, from_ = (builder.inttoptr(address, byte) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, from_, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(target, source, n), generate
