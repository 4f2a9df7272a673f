"""HDF5 files of which every byte is known to be written, and what anndata's format has in them.

Written by h5py alone, so that the bytes do not depend on which anndata or pandas is installed.
Texts are plain `string-array`, which every anndata, h5py and R read; newer releases of anndata
write nullable strings, which they do not. (Source: "On-disk format" in anndata's documentation.)
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.base.files import open_in_place

_MOST_COLUMNS = 5_000
"""Columns whose links fit into a group's header; more need an index, as anndata makes one."""

_BLOCK = 1 << 16
"""Texts written at a time: as objects they take five times their bytes."""


@contextmanager
def write_hdf5(path: Path, **settings: Any) -> Iterator[h5py.File]:
    """An HDF5 file to write: a new one, or what is at `path` already and not empty, to be added to.

    The library writes some bytes only when an object or the file is closed, and loses what goes
    wrong then. So all bytes pass through our own calls, and the first error is raised at the end.

    Parameters
    ----------
    path
        The file.
    settings
        What `h5py.File` takes.

    Raises
    ------
    OSError
        If any byte could not be written.
    """
    with open_in_place(path) as raw:
        is_there = os.fstat(raw.fileno()).st_size > 0
        stream = _CheckedStream(raw.fileno())
        try:
            with h5py.File(stream, "r+" if is_there else "w", **settings) as file:
                yield file
        except Exception as error:
            if stream.error is None:
                raise
            raise stream.error from error
        if stream.error is not None:
            raise stream.error


class _CheckedStream(io.RawIOBase):
    """What HDF5 writes to: keeps the first error, and from then on writes nothing.

    Parameters
    ----------
    descriptor
        Of the file, open for reading and writing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}
        start = starts.get(whence)
        self._at = offset + (os.fstat(self._descriptor).st_size if start is None else start)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self.error is not None:  # what was not written would be read, and followed
            raise self.error
        n = os.preadv(self._descriptor, [buffer], self._at)
        self._at += n
        return n

    def write(self, values: Any) -> int:
        left = memoryview(values).cast("B")
        n = len(left)
        try:
            while left and self.error is None:
                n_written = os.pwrite(self._descriptor, left, self._at)
                self._at, left = self._at + n_written, left[n_written:]
        except OSError as error:  # raised here, the library would lose it
            self.error = error
        return n

    def truncate(self, size: int | None = None) -> int:
        length = self._at if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._descriptor, length)
        except OSError as error:
            self.error = error
        return length


@dataclass(frozen=True)
class FrameParts:
    """A frame whose columns are made one at a time, when they are written.

    Parameters
    ----------
    n_rows
        Its rows.
    index_name
        Name of its index.
    read_index
        Gives the names of a range of rows: of `start … stop - 1`.
    columns
        What gives each column: numbers, booleans, texts, or a categorical of texts [n_rows].
    """

    n_rows: int
    index_name: str
    read_index: Callable[[int, int], Iterable[Any]]
    columns: Mapping[str, Callable[[], Any]]


def write_frame(
    parent: h5py.Group,
    name: str,
    frame: pd.DataFrame | FrameParts,
    *,
    compression: str | None = None,
) -> None:
    """Write a frame of numbers, booleans, texts and categoricals of texts, with its index.

    Raises
    ------
    ValueError
        If a column's name repeats.
    """
    parts = frame if isinstance(frame, FrameParts) else _take_apart(name, frame)
    columns = list(parts.columns)
    group = parent.create_group(name, track_order=len(columns) > _MOST_COLUMNS or None)
    group.attrs["column-order"] = columns
    group.attrs["_index"] = parts.index_name
    _write_strings(group, parts.index_name, parts.n_rows, parts.read_index, compression)
    for column, make in parts.columns.items():
        values = make()
        if isinstance(values.dtype, pd.CategoricalDtype):
            _write_categorical(group, column, values)
        elif isinstance(values.dtype, np.dtype) and values.dtype.kind in "biufc":
            _write_array(group, column, values, compression)
        else:
            _write_strings(group, column, len(values), _slice(values), compression)
    _set_encoding(group, "dataframe", "0.2.0")


def _take_apart(name: str, frame: pd.DataFrame) -> FrameParts:
    columns = [str(column) for column in frame.columns]
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise ValueError(f"{name} has the column {twice[0]!r} twice: names must be unique")
    index_name = "_index" if frame.index.name is None else str(frame.index.name)
    makers = {str(name): partial(getattr, frame[name], "values") for name in frame.columns}
    return FrameParts(len(frame), index_name, _slice(frame.index), makers)


def _slice(values: Any) -> Callable[[int, int], Iterable[Any]]:
    return lambda start, stop: values[start:stop]


def _write_categorical(parent: h5py.Group, name: str, values: pd.Categorical) -> None:
    """Write a categorical of texts: its codes, -1 where missing, and its categories."""
    group = parent.create_group(name)
    group.attrs["ordered"] = bool(values.ordered)
    _write_array(group, "codes", values.codes)
    _write_strings(group, "categories", len(values.categories), _slice(values.categories))
    _set_encoding(group, "categorical", "0.2.0")


def write_sparse(parent: h5py.Group, name: str, matrix: sp.spmatrix, *, compression: str) -> None:
    """Write a CSR or CSC matrix."""
    group = parent.create_group(name)
    group.attrs["shape"] = matrix.shape
    for part in ("data", "indices", "indptr"):
        values = getattr(matrix, part)
        group.create_dataset(part, data=values, maxshape=(None,), compression=compression)
    _set_encoding(group, f"{matrix.format}_matrix", "0.1.0")


def write_mappings(parent: h5py.Group, names: Iterable[str]) -> None:
    """Write empty mappings: what every AnnData file has, whether or not something is in them."""
    for name in names:
        _set_encoding(parent.create_group(name), "dict", "0.1.0")


def _write_array(
    group: h5py.Group, name: str, values: NDArray[Any], compression: str | None = None
) -> None:
    group.create_dataset(name, data=values, compression=compression)
    _set_encoding(group[name], "array", "0.2.0")


def _write_strings(
    group: h5py.Group,
    name: str,
    n: int,
    read: Callable[[int, int], Iterable[Any]],
    compression: str | None = None,
) -> None:
    def read_texts(start: int) -> NDArray[Any]:
        return np.array([str(v) for v in read(start, min(start + _BLOCK, n))], dtype=object)

    kind = h5py.string_dtype()
    if n <= _BLOCK:
        group.create_dataset(name, data=read_texts(0), dtype=kind, compression=compression)
    else:
        group.create_dataset(name, (n,), dtype=kind, compression=compression)
        for start in range(0, n, _BLOCK):
            group[name][start : start + _BLOCK] = read_texts(start)
    _set_encoding(group[name], "string-array", "0.2.0")


def _set_encoding(written: h5py.Group | h5py.Dataset, kind: str, version: str) -> None:
    written.attrs["encoding-type"] = kind
    written.attrs["encoding-version"] = version
