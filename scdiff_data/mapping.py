"""HDF5 datasets mapped into memory, past the library.

A contiguous, uncompressed dataset is a range of bytes in its file. Reading rows through h5py takes
fifteen times as long as copying them out of a map of that range, and a compiled loop can copy from
many files at once when it is given the maps' addresses.
"""

import ctypes
import mmap
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numpy.typing import NDArray

from scdiff_data.errors import ManifestError

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _LIBRARY.mmap, _LIBRARY.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def reserve_dataset(group: h5py.Group, name: str, n: int, dtype: Any) -> int:
    """Make a contiguous dataset of `n` values without writing them; gives its place in the file."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same input gives the same bytes
    kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple((n,))
    created = h5py.h5d.create(group.id, name.encode(), kind, space, properties)
    return int(created.get_offset() or 0)


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
        address = _mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset - skipped)
    finally:
        os.close(descriptor)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"cannot map {n_bytes} bytes of {path} into memory")
    memory: Any = (ctypes.c_ubyte * length).from_address(address)
    weakref.finalize(memory, _munmap, address, length).atexit = False
    values: NDArray[Any] = np.frombuffer(memory, np.uint8)[skipped:].view(dtype).reshape(shape)
    values.flags.writeable = False
    return values


@dataclass(frozen=True)
class RowStore:
    """Room for a matrix's rows in an HDF5 file: two contiguous datasets, written past the library.

    Parameters
    ----------
    descriptor
        Of the file, open for writing.
    path
        Its path.
    n_values
        Values of the matrix.
    index_type
        Of its indices; its counts are int16.
    indices_at, data_at
        Where the datasets' bytes start.
    """

    descriptor: int
    path: Path
    n_values: int
    index_type: Any
    indices_at: int
    data_at: int

    def write(self, start: int, indices: NDArray[Any], data: NDArray[np.int16]) -> None:
        """Write values from the `start`-th on."""
        arrays: Any = ((self.indices_at, indices), (self.data_at, data))
        for at, values in arrays:
            place, left = at + start * values.itemsize, memoryview(values).cast("B")
            while left:
                n_written = os.pwrite(self.descriptor, left, place)
                # To the disk at once, in the background: the flush at the end then waits for less.
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(self.descriptor, place, n_written, os.POSIX_FADV_DONTNEED)
                place, left = place + n_written, left[n_written:]

    def map(self) -> tuple[NDArray[Any], NDArray[np.int16]]:
        """Map indices and counts into memory, to be written in any order."""
        # Without its blocks reserved, a full disk would end the process, not raise an error.
        if hasattr(os, "posix_fallocate") and self.n_values:
            os.posix_fallocate(self.descriptor, 0, os.fstat(self.descriptor).st_size)
        if not self.n_values:
            return np.empty(0, self.index_type), np.empty(0, np.int16)
        indices, data = (
            np.memmap(self.path, dtype, "r+", at, (self.n_values,)).view(np.ndarray)
            for dtype, at in ((self.index_type, self.indices_at), (np.int16, self.data_at))
        )
        return indices, data


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


@intrinsic
def prefetch(typing_context: Any, address: Any) -> tuple[Signature, Any]:
    """In compiled code: have the processor fetch what lies at an integer address, and go on."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        to_read, keep_in_caches, is_data = word(0), word(3), word(1)
        pointer = builder.inttoptr(arguments[0], byte)
        builder.call(function, [pointer, to_read, keep_in_caches, is_data])
        return context.get_dummy_value()

    return types.void(address), generate


@intrinsic
def add_eight(typing_context: Any, target: Any, source: Any) -> tuple[Signature, Any]:
    """In compiled code: add eight float64 at an integer address to eight at another, as a vector.

    A loop over them is not made into one: the compiler cannot know that the two do not overlap.
    """
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        vector = ir.VectorType(ir.DoubleType(), 8).as_pointer()
        to, from_ = (builder.inttoptr(address, vector) for address in arguments)
        total = builder.fadd(builder.load(to, align=8), builder.load(from_, align=8))
        builder.store(total, to, align=8)
        return context.get_dummy_value()

    return types.void(target, source), generate
