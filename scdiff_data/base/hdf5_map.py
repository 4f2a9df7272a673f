"""HDF5 datasets mapped into memory, past the library, and what the system is told of their pages.

A contiguous, uncompressed dataset is a range of bytes in its file. Reading rows through h5py takes
fifteen times as long as copying them out of a map of that range, and a compiled loop can copy from
many files at once when it is given the maps' addresses.

Left alone, a read of a page that is not in memory fetches what the system guesses, 128 kB to 8 MB,
one at a time. Told beforehand, it fetches just what is asked for, many requests at once. On Linux
and macOS a hint returns before the bytes are there; where a system knows a hint not, reads are only
slower.
"""

import ctypes
import mmap
import os
import resource
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numba import types
from numpy.typing import NDArray

from scdiff_data.base.compiling import compiled
from scdiff_data.base.files import explain_damage
from scdiff_data.errors import ManifestError

_LIBRARY = ctypes.CDLL(None, use_errno=True)
"""The C library: Python's own maps keep a file open."""
_LIBRARY.mmap.restype = ctypes.c_void_p
_LIBRARY.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBRARY.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBRARY.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]

_RANDOM = 1
"""Of `madvise`, on Linux and macOS alike: fetch no neighbours."""

_WILL_NEED = 3
"""Of `madvise`: these pages come next."""

_UNMAP = 4
"""Of `madvise`: these pages no longer count as this process's; they stay in the system's cache."""

_COLD = 20 if sys.platform == "linux" else None
"""Of `madvise`: give these pages up first, once memory is short."""

_PAGE = mmap.PAGESIZE
"""Bytes of a page of memory."""

HINT_BYTES = 128 << 10
"""Bytes that one hint asks for. Of more, Linux fetches the first part alone: what it reads ahead
(128 kB, unless it is told otherwise), or what one request of the disk may have."""

_WHO = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
"""Whose faults are counted: this thread's, where the system tells them apart."""

_LOOK_EVERY = 8
"""Gathers between two looks at the faults while rows come from memory: each takes a microsecond."""

_PROBE_EVERY = 64
"""Gathers between two probes while rows come from the disk."""

_PROBE_ROWS = 8
"""Rows of a probe, which the system is not told of."""

_madvise = types.ExternalFunction("madvise", types.intc(types.uintp, types.uintp, types.intc))
"""The C library's, for compiled loops."""


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
    mapped = _map_bytes(dataset.file.filename, offset, dataset.nbytes)
    values: NDArray[Any] = mapped.view(dataset.dtype).reshape(dataset.shape)
    return values


def map_file_datasets(
    path: Path, datasets: Sequence[h5py.Dataset], *, at_random: bool
) -> list[NDArray[Any]]:
    """Map contiguous datasets of one file as `map_dataset` does, by one map of the whole file.

    A process can have some 65,000 maps on Linux, and a data set more archives than half of that.
    What the system is told of a part of a map makes two of it. So with `at_random` it is told of
    the whole that reads are at random places.
    """
    content, found = map_file(path), []
    if at_random:
        expect_random(content)
    for dataset in datasets:
        first = dataset.id.get_offset() if dataset.size else 0
        if first is None or first + dataset.nbytes > len(content):
            raise ManifestError(f"{path}:{dataset.name} lies in pieces, or the file is cut short")
        part = content[first : first + dataset.nbytes]
        found.append(part.view(dataset.dtype).reshape(dataset.shape))
    return found


def find_datasets(
    path: Path, names: Sequence[str], attribute: str
) -> tuple[str | None, list[tuple[int, int]]]:
    """Where contiguous datasets start in a file, and their bytes; of an empty one (0, 0).

    By the library's lower level, in a third of the time: a run opens thousands of shards.

    Parameters
    ----------
    path
        The file.
    names
        Of the datasets.
    attribute
        Of the file: a text that comes with them, None if there is none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If a dataset is missing, lies in pieces or beyond the file's end.
    """
    found, length = [], path.stat().st_size
    with explain_damage(path):
        file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY)
        for name in names:
            dataset = h5py.h5d.open(file, name.encode())
            n_bytes = dataset.get_storage_size()
            offset = dataset.get_offset() if n_bytes else 0
            if offset is None or offset + n_bytes > length:
                raise ManifestError(f"{path}:{name} lies in pieces, or the file is cut short")
            found.append((offset, n_bytes))
        text = read_attribute(h5py.File(file), attribute)
        file.close()
    return text, found


def read_attribute(file: h5py.File, name: str) -> str | None:
    """A text of a file of ours, of fixed length or as older files have it; None without one."""
    text = file.attrs.get(name)
    if isinstance(text, np.bytes_):
        return text.decode("utf-8", "replace")
    return text if isinstance(text, str) else None


def map_file(path: Path) -> NDArray[np.uint8]:
    """Map a whole file into memory, read-only: one map serves all its datasets."""
    return _map_bytes(str(path), 0, None)


def _map_bytes(path: str, offset: int, n_bytes: int | None) -> NDArray[np.uint8]:
    """Map a range of a file, or all from `offset` on, without keeping it open.

    Python's own maps hold a file descriptor each until Python 3.13: a thousand shards would take
    all that a process may have.
    """
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size  # what `stat` says may be old on a shared disk
        if n_bytes is None:
            n_bytes = size - offset
        if offset + n_bytes > size or not n_bytes:  # a read beyond the end would end the process
            raise ManifestError(f"{path} is cut short: it has {size} bytes")
        length = skipped + n_bytes
        address = _LIBRARY.mmap(
            None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset - skipped
        )
    finally:
        os.close(descriptor)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"cannot map {n_bytes} bytes of {path} into memory")
    memory: Any = (ctypes.c_ubyte * length).from_address(address)
    weakref.finalize(memory, _LIBRARY.munmap, address, length).atexit = False
    values: NDArray[np.uint8] = np.frombuffer(memory, np.uint8)[skipped:]
    values.flags.writeable = False
    return values


def identify_file(path: Path) -> tuple[int, int, int]:
    """What another file at the same path has another of: inode, bytes, time of its last change."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def expect_random(mapped: NDArray[Any]) -> None:
    """Let a read of a page of this map fetch that page alone."""
    _advise(mapped, _RANDOM)


def ask_for(mapped: NDArray[Any]) -> None:
    """Start to fetch what an array over a map covers; returns before it is there."""
    content = mapped.reshape(-1).view(np.uint8)
    for start in range(0, len(content), HINT_BYTES):
        _advise(content[start : start + HINT_BYTES], _WILL_NEED)


def give_back(mapped: NDArray[Any]) -> None:
    """Let go of what was read: once memory is needed, these pages are dropped before any others."""
    if _COLD is not None:
        _advise(mapped, _COLD)
    _advise(mapped, _UNMAP)


def count_faults() -> int:
    """Reads of this thread so far that had to wait for the disk (major page faults)."""
    return resource.getrusage(_WHO).ru_majflt


def count_reads() -> int:
    """Reads of the disk that this process has started so far, hints' ones as well."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock


def tell_here(hint: Callable[..., None], *arguments: Any, kept: Any = None) -> None:
    """Call what tells the system of rows."""
    del kept
    hint(*arguments)


class DiskWatch:
    """Whether one thread's gathers come from the disk: what decides if rows are asked for.

    To ask for every row takes as long as copying it, when it is in memory already. So nothing is
    asked for until faults are seen. From then on all rows are, but for a few now and then, whose
    faults say whether it is still so.

    Attributes
    ----------
    is_cold
        Whether rows come from the disk.
    asks_itself
        Whether a gather asks for its own rows; not while somebody asks for them ahead of it.
    asks_for_all
        Whether runs of rows are asked for as a whole.
    tell
        Calls what tells the system, with what it takes: here, or in a thread of its own. What else
        it is given is kept until then: maps, whose addresses the call reads.
    """

    def __init__(self) -> None:
        self.is_cold = False
        self.asks_itself = True
        self.asks_for_all = False
        self.tell: Callable[..., None] = tell_here
        self._n_faults = count_faults()
        self._n_gathers = 0
        self._n_asked = 0
        self._last_faulty = -1

    def choose(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of a gather's rows to ask for: all, but for a probe now and then."""
        self._n_asked += 1
        return rows[_PROBE_ROWS:] if self._n_asked % _PROBE_EVERY == 0 else rows

    def look(self) -> None:
        """Look at the faults after a gather."""
        self._n_gathers += 1
        if not self.is_cold and self._n_gathers % _LOOK_EVERY:
            return
        n_faults = count_faults()
        if n_faults > self._n_faults + 1:
            self._last_faulty = self._n_gathers
        self._n_faults = n_faults
        age = self._n_gathers - self._last_faulty
        self.is_cold = self._last_faulty >= 0 and age < 2 * _PROBE_EVERY


def _advise(mapped: NDArray[Any], advice: int) -> None:
    if mapped.nbytes:
        start = mapped.ctypes.data
        first = start - start % _PAGE
        _LIBRARY.madvise(first, start + mapped.nbytes - first, advice)  # a hint: it may fail


@compiled
def ask_for_bytes(address: int, n_bytes: int) -> None:
    """In compiled code: start to fetch the pages of `n_bytes` at an integer address of a map."""
    at = np.uint64(address) & ~np.uint64(_PAGE - 1)
    end = np.uint64(address) + np.uint64(n_bytes)
    while at < end:
        _madvise(at, min(end - at, np.uint64(HINT_BYTES)), np.int32(_WILL_NEED))
        at += np.uint64(HINT_BYTES)
