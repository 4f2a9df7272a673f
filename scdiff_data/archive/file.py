"""The archive's file: laid out, filled past the library, and mapped again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.base import (
    FrameParts,
    ask_for,
    create_file,
    explain_damage,
    give_back,
    map_file_datasets,
    open_in_place,
    write_frame,
    write_hdf5,
    write_mappings,
)
from scdiff_data.errors import ManifestError
from scdiff_data.reading import GeneAxis

ARCHIVED = "archived_counts"
"""Column of the cells in archives that lack some of their counts: what those there add up to."""

_READ_BYTES = 16 << 20
"""Bytes of a matrix that are read in one go."""


def reserve_dataset(group: h5py.Group, name: str, n: int, dtype: Any) -> int:
    """Make a contiguous dataset of `n` values without writing them; gives its place in the file."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same input gives the same bytes
    kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple((n,))
    created = h5py.h5d.create(group.id, name.encode(), kind, space, properties)
    return int(created.get_offset() or 0)


@dataclass(frozen=True)
class RowStore:
    """Room for a matrix's rows in an HDF5 file: two contiguous datasets, written past the library.

    Parameters
    ----------
    file
        The file, open for reading and writing.
    n_values
        Values of the matrix.
    index_type
        Of its indices; its counts are int16.
    indices_at, data_at
        Where the datasets' bytes start.
    """

    file: BinaryIO
    n_values: int
    index_type: Any
    indices_at: int
    data_at: int

    def write(self, start: int, indices: NDArray[Any], data: NDArray[np.int16]) -> None:
        """Write values from the `start`-th on."""
        descriptor = self.file.fileno()
        arrays: Any = ((self.indices_at, indices), (self.data_at, data))
        for at, values in arrays:
            place, left = at + start * values.itemsize, memoryview(values).cast("B")
            while left:
                n_written = os.pwrite(descriptor, left, place)
                # To the disk at once, in the background: the flush at the end then waits for less.
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(descriptor, place, n_written, os.POSIX_FADV_DONTNEED)
                place, left = place + n_written, left[n_written:]

    def map(self) -> tuple[NDArray[Any], NDArray[np.int16]]:
        """Map indices and counts into memory, to be written in any order."""
        # Without its blocks reserved, a full disk would end the process, not raise an error.
        if hasattr(os, "posix_fallocate") and self.n_values:
            descriptor = self.file.fileno()
            os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
        if not self.n_values:
            return np.empty(0, self.index_type), np.empty(0, np.int16)
        indices, data = (
            np.memmap(self.file, dtype, "r+", at, (self.n_values,)).view(np.ndarray)
            for dtype, at in ((self.index_type, self.indices_at), (np.int16, self.data_at))
        )
        return indices, data


class CsrRows(NamedTuple):
    """A matrix's rows as they lie in an archive, one a cell.

    Parameters
    ----------
    indptr
        Where each row's values start, and where the last one's end; int32 or int64 [n_rows + 1].
    indices
        Each value's gene, ascending in a row; of the same type [n_values].
    data
        The counts, int16 [n_values].
    n_genes
        Genes of the axis.
    sums
        What each row adds up to, int64 [n_rows]; None if the archive says nothing but the totals.
    """

    indptr: NDArray[Any]
    indices: NDArray[Any]
    data: NDArray[np.int16]
    n_genes: int
    sums: NDArray[np.int64] | None = None


def map_matrix(path: Path, *, at_random: bool = False) -> CsrRows:
    """Map an archive's matrix into memory, once its rows are seen to lie within it.

    Its genes are not looked at: that would read all of it.

    Parameters
    ----------
    path
        The archive.
    at_random
        Whether its rows will be read at random places, not one after another.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is damaged.
    """
    with explain_damage(path), h5py.File(path) as file:
        x = file["X"]
        n_rows, n_genes = (int(n) for n in x.attrs["shape"])
        parts = [x[name] for name in ("indptr", "indices", "data")]
        parts += [file[name] for name in (f"obs/{ARCHIVED}",) if name in file]
        indptr, indices, data, *sums = map_file_datasets(path, parts, at_random=at_random)
    types = [array.dtype.str for array in (indptr, indices, data)]
    if types not in (["<i4", "<i4", "<i2"], ["<i8", "<i8", "<i2"]):
        raise ManifestError.damaged(path, f"X has types {', '.join(types)}")
    is_whole = indptr.shape == (n_rows + 1,) and indices.shape == data.shape
    if not (is_whole and indptr[0] == 0 and indptr[-1] == len(data) and _ascend(indptr)):
        raise ManifestError.damaged(
            path, f"X/indptr does not divide {len(data)} values into {n_rows} rows"
        )
    if any(column.dtype != np.int64 or len(column) != n_rows for column in sums):
        raise ManifestError.damaged(path, f"obs/{ARCHIVED} is not of {n_rows} whole numbers")
    return CsrRows(indptr, indices, data, n_genes, *sums)


def _ascend(values: NDArray[Any]) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def count_rows(path: Path) -> int:
    """Cells in an archive."""
    with h5py.File(path) as file:
        return int(file["X"].attrs["shape"][0])


@contextmanager
def lay_out_archive(
    path: Path, starts: NDArray[np.int64], obs: FrameParts, axis: GeneAxis
) -> Iterator[RowStore]:
    """Write all of an archive but `X/indices` and `X/data`; gives the room for these."""
    n_values = int(starts[-1])
    index_type = np.int32 if n_values < 2**31 else np.int64
    with create_file(path) as raw:
        raw.write(_empty_archive(axis))
    with write_hdf5(path, alignment_threshold=1024, alignment_interval=64) as file:
        x = file["X"]
        x.attrs["shape"] = np.array([obs.n_rows, len(axis)], np.int64)
        x["indptr"] = starts.astype(index_type)
        indices_at = reserve_dataset(x, "indices", n_values, index_type)
        data_at = reserve_dataset(x, "data", n_values, np.int16)
        write_frame(file, "obs", obs)
    with open_in_place(path) as raw:
        yield RowStore(raw, n_values, index_type, indices_at, data_at)


@contextmanager
def open_room(folder: Path, n_values: int) -> Iterator[RowStore]:
    """Room for rows in a file that has no name, in a folder, and is gone once it is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        file.truncate(6 * n_values)
        yield RowStore(file, n_values, np.int32, 0, 4 * n_values)


@lru_cache(maxsize=1)
def _empty_archive(axis: GeneAxis) -> bytes:
    """What all archives begin with: the genes, which take HDF5 longer to write than to copy."""
    var = pd.DataFrame(
        {"gene_symbols": list(axis.symbols)}, index=pd.Index(axis.ids, name="gene_id")
    )
    with h5py.File("empty", "w", driver="core", backing_store=False) as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        write_frame(file, "var", var)
        write_mappings(file, ("layers", "obsm", "obsp", "uns", "varm", "varp"))
        file.flush()
        return bytes(file.id.get_file_image())


def close_gap(
    path: Path,
    n_values: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[np.int16],
    obs: FrameParts,
    axis: GeneAxis,
) -> None:
    """Write the archive again without the room that merged values left at its end."""
    shorter = path.with_name(path.name + ".shorter")
    starts = np.concatenate([[0], np.cumsum(n_values)])
    with lay_out_archive(shorter, starts, obs, axis) as store:
        store.write(0, indices[: starts[-1]].astype(store.index_type), data[: starts[-1]])
    shorter.replace(path)


def read_in_order(
    matrix: CsrRows, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, int]]:
    """Ranges of rows from front to back; the next one's values are fetched while one is used.

    What was read is the first to be dropped when memory is short.

    Parameters
    ----------
    matrix
        An archive's rows.
    start, stop
        The first row, and the one after the last; all rows, if they are not given.
    """
    last = len(matrix.indptr) - 1 if stop is None else stop
    indptr = matrix.indptr[start : last + 1].astype(np.int64)
    n_values = _READ_BYTES // (matrix.indices.itemsize + matrix.data.itemsize)
    bounds = [0]
    while bounds[-1] < last - start:
        reached = int(np.searchsorted(indptr, indptr[bounds[-1]] + n_values, side="right")) - 1
        bounds.append(max(reached, bounds[-1] + 1))
    parts = [
        [values[indptr[a] : indptr[b]] for values in (matrix.indices, matrix.data)]
        for a, b in pairwise(bounds)
    ]
    for values in chain(*parts[:1]):
        ask_for(values)
    for place, (a, b) in enumerate(pairwise(bounds)):
        for values in chain(*parts[place + 1 : place + 2]):
            ask_for(values)
        yield start + a, start + b
        for values in parts[place]:
            give_back(values)
