"""A source file's matrix as blocks of bounded size, whatever its layout.

A value and its index on the other axis are packed into one number, `index << 16 | count`: half the
memory of what the file holds, and what turning the matrix round needs lies together.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.base import ChunkedValues, Workers, compiled, list_filters
from scdiff_data.constants import MAX_COUNT
from scdiff_data.errors import CountError

_DENSE_AT_ONCE = 1 << 16
"""Values of a dense matrix read at a time: they stay in the L2 cache until they are packed."""

_CELL_BYTES = 600
"""What a conversion holds of each cell beside its block: name, id, sums; most under pandas 3."""

_WORKER_BYTES = 8 << 20
"""What each thread holds beside the block: chunks being inflated, and a tile being filled."""

_BAD_INDEX = 1
"""`_pack_values` found an index outside the matrix."""

_BAD_VALUE = 2
"""`_pack_values` found a value that is no count."""


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
    """

    worker: int
    start: int
    is_rest: bool
    first: int
    pointers: NDArray[np.int64]
    minors: NDArray[Any]
    values: NDArray[Any]


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


class SourceMatrix:
    """A source's `X` as blocks of bounded size, in the order in which it is stored.

    Parameters
    ----------
    x
        The h5ad file's `X`: a CSC or CSR group, or a dense dataset.
    cell_names, gene_names
        Names along its axes, for the errors.
    max_memory
        Bytes that a block may take.
    workers
        What inflates and checks.

    Raises
    ------
    CountError
        If pointers do not fit the shape; while reading, if an index does not, or if a value is not
        finite, whole and non-negative.
    """

    def __init__(
        self,
        x: h5py.Group | h5py.Dataset,
        cell_names: pd.Index,
        gene_names: Sequence[str],
        *,
        max_memory: int,
        workers: Workers,
    ) -> None:
        self.n_cells = len(cell_names)
        self._names = (cell_names, gene_names)
        encoding = x.attrs.get("encoding-type", x.attrs.get("h5sparse_format", "array"))
        self.by_gene = str(encoding).startswith("csc")
        self._x = x
        self._workers = workers
        n_majors, self._n_minors = (len(n) for n in self._names[:: -1 if self.by_gene else 1])
        self._type: Any = np.uint32 if self._n_minors <= 1 << 16 else np.uint64
        scratch = _CELL_BYTES * self.n_cells + _WORKER_BYTES * workers.n
        self._max_values = (
            max(max_memory - scratch, max_memory // 4) // np.dtype(self._type).itemsize
        )
        self._cached: list[Block] | None = None
        if isinstance(x, h5py.Group):
            self._indptr = x["indptr"][:].astype(np.int64)
            self._minors = ChunkedValues(x["indices"])
            self._values = ChunkedValues(x["data"])
            if (
                len(self._indptr) != n_majors + 1
                or not self._indptr[-1] == len(self._values) == len(self._minors)
                or (np.diff(self._indptr, prepend=0) < 0).any()
            ):
                raise CountError(
                    f"{self._file_name} is damaged: X has {len(self._indptr) - 1} pointers over "
                    f"{len(self._values)} values, obs and var say {len(cell_names)} x "
                    f"{len(gene_names)}"
                )
        else:
            list_filters(x)
            self._indptr = np.arange(n_majors + 1, dtype=np.int64) * self._n_minors
        starts = self._block_starts()
        longest = max(
            (int(self._indptr[b] - self._indptr[a]) for a, b in pairwise(starts)), default=0
        )
        self._buffer = np.empty(longest, self._type)

    @property
    def n_values(self) -> int:
        """Values stored, zeros among them."""
        return int(self._indptr[-1])

    @property
    def is_one_block(self) -> bool:
        """Whether the whole matrix fits into the memory allowed."""
        return self.n_values <= self._max_values

    def blocks(self, visit: Callable[[Part], None] | None = None) -> Iterator[Block]:
        """Read block after block into the same memory; a matrix of one block is read once.

        `visit` is shown everything that is read, in the threads that read it, while it is in the
        processor's caches.
        """
        if self._cached is not None:
            yield from self._cached
            return
        for start, end in pairwise(self._block_starts()):
            read = self._read_sparse if isinstance(self._x, h5py.Group) else self._read_dense
            block = read(start, end, visit)
            if self.is_one_block:
                self._cached = [block]
            yield block

    def _block_starts(self) -> list[int]:
        starts, n_majors = [0], len(self._indptr) - 1
        while starts[-1] < n_majors:
            limit = self._indptr[starts[-1]] + self._max_values
            end = int(np.searchsorted(self._indptr, limit, side="right")) - 1
            starts.append(min(max(end, starts[-1] + 1), n_majors))
        return starts

    def _read_sparse(self, start: int, end: int, visit: Callable[[Part], None] | None) -> Block:
        low, high = int(self._indptr[start]), int(self._indptr[end])
        packed = self._buffer[: high - low]
        step = max(self._minors.step, self._values.step)
        bounds = [low, *range((low // step + 1) * step, high, step), high]

        def read(job: tuple[int, Sequence[tuple[int, int]]]) -> None:
            for from_, to in job[1]:
                minors, values = self._minors.read(from_, to), self._values.read(from_, to)
                first = int(np.searchsorted(self._indptr, from_, side="right")) - 1
                last = int(np.searchsorted(self._indptr, to, side="left"))
                pointers = self._indptr[first : last + 1] - from_
                is_rest = bool(pointers[0] < 0)
                pointers[0], pointers[-1] = 0, to - from_
                part = Part(job[0], from_, is_rest, first, pointers, minors, values)
                self._check_and_pack(part, packed[from_ - low : to - low])
                if visit is not None:
                    visit(part)

        if high > low:
            self._workers.map(read, enumerate(self._workers.divide(list(pairwise(bounds)))))
        return Block(start, self._indptr[start : end + 1] - low, packed)

    def _read_dense(self, start: int, end: int, visit: Callable[[Part], None] | None) -> Block:
        step = max(_DENSE_AT_ONCE // max(self._n_minors, 1), 1)
        pointers = [np.zeros(1, np.int64)]
        for row in range(start, end, step):
            piece = sp.csr_matrix(self._x[row : min(row + step, end)])
            part = Part(
                worker=0,
                start=0,
                is_rest=False,
                first=row,
                pointers=piece.indptr.astype(np.int64),
                minors=piece.indices,
                values=piece.data,
            )
            low = pointers[-1][-1]
            self._check_and_pack(part, self._buffer[low : low + piece.nnz])
            pointers.append(low + part.pointers[1:])
            if visit is not None:
                visit(part)
        whole = np.concatenate(pointers)
        return Block(start, whole, self._buffer[: whole[-1]])

    def _check_and_pack(self, part: Part, packed: NDArray[Any]) -> None:
        problem = _pack_values(part.minors, part.values, self._n_minors, packed)
        if problem & _BAD_INDEX:
            raise CountError(
                f"{self._file_name} is damaged: an index of X is outside 0 … {self._n_minors - 1}"
            )
        if problem:
            values = part.values
            is_count = (values >= 0) & (values < 2**31) & (values == np.floor(values))
            bad = int(np.argmin(is_count))
            major = part.first + int(np.searchsorted(part.pointers, bad, side="right")) - 1
            cell, gene = (part.minors[bad], major) if self.by_gene else (major, part.minors[bad])
            raise CountError(
                f"{self._file_name} does not hold counts: X of cell {self._names[0][cell]}, gene "
                f"{self._names[1][gene]} is {values[bad]}; counts are finite, whole and not "
                "negative"
            )

    @property
    def _file_name(self) -> str:
        return Path(self._x.file.filename).name


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
def _pack_values(
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
    return (_BAD_INDEX if n_bad_indices else 0) | (_BAD_VALUE if n_bad_values else 0)
