"""Values of a matrix, of any type and layout: brought into one, checked, and packed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import ChunkedValues, compiled
from scdiff_data.constants import MAX_COUNT
from scdiff_data.errors import CountError
from scdiff_data.opening import ALLOWANCE, explain, read_text

BAD_INDEX = 1
"""`pack_values` found an index outside the matrix."""

BAD_VALUE = 2
"""`pack_values` found a value that is no count."""


class Part(NamedTuple):
    """Some values of the file as they came, in a thread's hands.

    Parameters
    ----------
    worker
        Number of the thread.
    start
        The first value's place among all values.
    is_rest
        Whether the first column's or row's first values are in an earlier part.
    first
        First column (CSC) or row that the values belong to.
    pointers
        Where each of these columns' or rows' values start, and the last one's end; int64.
    minors, values
        Indices on the other axis, and values.
    by_gene
        Whether columns it is.
    rounded
        Places of values that were not quite whole; None if there are none.
    """

    worker: int
    start: int
    is_rest: bool
    first: int
    pointers: NDArray[np.int64]
    minors: NDArray[Any]
    values: NDArray[Any]
    by_gene: bool
    rounded: NDArray[np.int64] | None = None

    def locate(self, places: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The cells and genes that some of the values are of."""
        majors = self.first + np.searchsorted(self.pointers, places, side="right") - 1
        minors = self.minors[places]
        return (minors, majors) if self.by_gene else (majors, minors)


class Block(NamedTuple):
    """Whole columns (CSC) or rows.

    Parameters
    ----------
    first
        The first of them.
    pointers
        Where each of them starts in `packed`, and where the last ends; int64.
    packed
        `index << 16 | count`, the count at most 32,767; uint32 [n], or uint64 if an index needs it.
    """

    first: int
    pointers: NDArray[np.int64]
    packed: NDArray[Any]


def find_layout(x: h5py.Group | h5py.Dataset) -> str:
    """`csc`, `csr` or `array`, as the element says; a text of any type."""
    name, element = Path(x.file.filename).name, x.name.strip("/")
    with explain(Path(name), element):
        encoding = read_text(x.attrs, "encoding-type") or read_text(x.attrs, "h5sparse_format")
    if isinstance(x, h5py.Dataset):
        return "array"
    layout = (encoding or "").removesuffix("_matrix").removesuffix("_array")
    if layout not in ("csc", "csr"):
        raise CountError(
            f"{name} cannot be read: {element} is a group that says {encoding!r} of itself, not "
            "csr_matrix or csc_matrix"
        )
    return layout


def check_type(values: h5py.Dataset, element: str) -> None:
    """Raise CountError if values are no numbers."""
    if values.dtype.kind not in "biuf":
        raise CountError(
            f"{Path(values.file.filename).name} does not hold counts: {element} holds values of "
            f"the type {values.dtype}"
        )


def as_native(values: NDArray[Any]) -> NDArray[Any]:
    """Values in a type that compiled loops take: in the machine's order, no halves, no booleans."""
    if values.dtype.kind == "b":
        return values.view(np.uint8)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    if values.dtype.kind == "f" and values.dtype.itemsize > np.dtype(np.float64).itemsize:
        return values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def check_parts(x: h5py.Group, element: str) -> None:
    """Raise CountError if the parts of a sparse matrix are no lists of numbers."""
    name = Path(x.file.filename).name
    if any(x[part].ndim != 1 for part in ("indptr", "indices", "data")):
        raise CountError(f"{name} is damaged: {element} has parts of 2 axes")
    if any(x[part].dtype.kind not in "iu" for part in ("indptr", "indices")):
        raise CountError(
            f"{name} is damaged: {element} has indices of the types "
            f"{x['indptr'].dtype} and {x['indices'].dtype}, not whole numbers"
        )
    check_type(x["data"], element)


class DenseRows:
    """Rows of a dense matrix, a few at a time from front to back; each chunk is inflated once.

    Parameters
    ----------
    x
        The matrix [n_rows, n_columns].
    n_at_once
        Values to give at a time.
    max_memory
        Bytes of rows that are kept: where chunks are higher, they are inflated more than once.
    """

    def __init__(self, x: h5py.Dataset, n_at_once: int, *, max_memory: int = ALLOWANCE) -> None:
        self._x = x
        height = x.chunks[0] if x.chunks else 1
        self._step = max(n_at_once // max(x.shape[1], 1), 1)
        # Whole chunks are read: where they are higher than what is given, they are kept meanwhile,
        # or inflated little by little.
        self._group = height if height > self._step else self._step // height * height
        values = ChunkedValues(x) if x.chunks else None
        self._values = values if values is not None and values.is_sequential else None
        if self._values is not None:
            self._group = self._step
        row_bytes = max(x.shape[1] * x.dtype.itemsize, 1)
        self._group = min(self._group, max(max_memory // row_bytes, 1))
        self._kept: tuple[int, NDArray[Any]] | None = None

    def read(self, start: int, end: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """The first of some rows, and these; from `start` to `end - 1`."""
        row = start
        while row < end:
            first = row - row % self._group
            if self._kept is None or self._kept[0] != first:
                self._kept = (first, as_native(self._read(first, first + self._group)))
            stop = min(row + self._step, first + self._group, end)
            yield row, self._kept[1][row - first : stop - first]
            row = stop

    def _read(self, first: int, stop: int) -> NDArray[Any]:
        n_rows, width = self._x.shape
        if self._values is None:
            return np.asarray(self._x[first:stop])
        values = self._values.read(first * width, min(stop, n_rows) * width)
        return values.reshape(-1, width)


# What is packed, with the values 4, 40000 and 9 of the cells 0, 2 and 1:
#
#     minors  0      2          1           packed  0 << 16 | 4
#     values  4.0    40000.0    9.0                 2 << 16 | 32767     (saturation is counted
#                                                   1 << 16 | 9          by `count_cells`)
#
# The loop has no branch, so it compiles to vector instructions: what is wrong is counted, and only
# looked for if there is any. Packed numbers sort by cell, and a comparison with `cell << 16` tells
# whether a value is of an earlier cell.
@compiled
def pack_values(
    minors: NDArray[Any], values: NDArray[Any], n_minors: int, packed: NDArray[Any]
) -> int:
    """Pack and check; no branch, so that the compiler makes vector instructions of it."""
    n_bad_indices = n_bad_values = 0
    for k in range(len(values)):
        value, minor = values[k], minors[k]
        count = np.int32(value)
        n_bad_values += (not (0 <= value < 2147483648.0)) | (count != value)
        n_bad_indices += (minor < 0) | (minor >= n_minors)
        packed[k] = (minor << 16) | min(count, MAX_COUNT)
    return (BAD_INDEX if n_bad_indices else 0) | (BAD_VALUE if n_bad_values else 0)
