"""HDF5 datasets mapped into memory, past the library.

A contiguous, uncompressed dataset is a range of bytes in its file. Reading rows through h5py takes
fifteen times as long as copying them out of a map of that range, and a compiled loop can copy from
many files at once when it is given the maps' addresses.
"""

import ctypes
import mmap
import os
import weakref
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.errors import ManifestError

_LIBRARY = ctypes.CDLL(None, use_errno=True)
"""The C library: Python's own maps keep a file open."""
_LIBRARY.mmap.restype = ctypes.c_void_p
_LIBRARY.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBRARY.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def map_dataset(dataset: h5py.Dataset) -> NDArray[Any]:
    """Map a contiguous HDF5 dataset into memory, read-only; it outlives the open file.

    The library's own indexing costs more than the read: the bytes are found once and mapped past
    it.
    """
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()
    if offset is None:
        raise ManifestError(f"{dataset.file.filename}:{dataset.name} is not contiguous")
    return _map_bytes(dataset.file.filename, offset, dataset.nbytes, dataset.dtype, dataset.shape)


def _map_bytes(
    path: str, offset: int, n_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Map a range of a file without keeping it open.

    Python's own maps hold a file descriptor each until Python 3.13: a thousand shards would take
    all that a process may have.
    """
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    length = skipped + n_bytes
    descriptor = os.open(path, os.O_RDONLY)
    try:
        address = _LIBRARY.mmap(
            None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset - skipped
        )
    finally:
        os.close(descriptor)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"cannot map {n_bytes} bytes of {path} into memory")
    memory: Any = (ctypes.c_ubyte * length).from_address(address)
    weakref.finalize(memory, _LIBRARY.munmap, address, length).atexit = False
    values: NDArray[Any] = np.frombuffer(memory, np.uint8)[skipped:].view(dtype).reshape(shape)
    values.flags.writeable = False
    return values
