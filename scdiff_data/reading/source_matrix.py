"""A source file's matrix as blocks of bounded size, whatever its layout.

A value and its index on the other axis are packed into one number, `index << 16 | count`: half the
memory of what the file holds, and what turning the matrix round needs lies together.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.base import ChunkedValues, Workers, list_filters
from scdiff_data.errors import CountError, UnsafeFileError
from scdiff_data.opening import LEAST_ALLOWANCE, explain
from scdiff_data.reading.counts_place import are_counts, explain_values
from scdiff_data.reading.values import (
    BAD_INDEX,
    Block,
    DenseRows,
    Part,
    as_native,
    check_parts,
    check_type,
    find_layout,
    pack_values,
)
from scdiff_data.telling import Progress

_DENSE_AT_ONCE = 1 << 16
"""Values of a dense matrix read at a time: they stay in the L2 cache until they are packed."""

_PATIENCE = 2.0
"""Seconds after which reading a file is shown by itself."""

_CELL_BYTES = 600
"""What a conversion holds of each cell beside its block: name, id, sums; most under pandas 3."""

_MOST_COMPRESSED = 1 << 17
"""How many times its stored bytes a dataset may be: no filter in use makes that of counts."""

_WORKER_BYTES = 8 << 20
"""What each thread holds beside the block: chunks being inflated, and a tile being filled."""


class SourceMatrix:
    """A source's `X` as blocks of bounded size, in the order in which it is stored.

    Parameters
    ----------
    x
        The h5ad file's `X`: a CSC or CSR group, or a dense dataset.
    cell_names, gene_names
        Names along its axes, for the errors.
    max_memory
        Bytes that a block may take; a single row, or column, may take `LEAST_ALLOWANCE` at least.
    workers
        What inflates and checks.
    cells
        What is read where cells lie together; None reads all.

    Raises
    ------
    CountError
        If pointers do not fit the shape; while reading, if an index does not, or if a value is not
        finite, whole and non-negative.
    UnsafeFileError
        If a single row, or column where these lie together, takes more than is allowed, or values
        are far more than the file stores.
    """

    def __init__(
        self,
        x: h5py.Group | h5py.Dataset,
        cell_names: pd.Index,
        gene_names: Sequence[str],
        *,
        max_memory: int,
        workers: Workers,
        cells: range | None = None,
    ) -> None:
        self.n_cells = len(cell_names)
        self._names = (cell_names, gene_names)
        self._x = x
        self._path = Path(x.file.filename)
        self._element = x.name.strip("/")
        self.by_gene = find_layout(x) == "csc"
        with explain(self._path, self._element):
            self._check_shape()
        self._workers = workers
        n_majors, self._n_minors = (len(n) for n in self._names[:: -1 if self.by_gene else 1])
        self._type: Any = np.uint32 if self._n_minors <= 1 << 16 else np.uint64
        scratch = _CELL_BYTES * self.n_cells + _WORKER_BYTES * workers.n
        self._max_values = (
            max(max_memory - scratch, max_memory // 4) // np.dtype(self._type).itemsize
        )
        self._cached: list[Block] | None = None
        self._allowed = max(max_memory, LEAST_ALLOWANCE)
        if isinstance(x, h5py.Group):
            with explain(self._path, f"{self._element}/indptr, indices, data"):
                self._open_sparse(x, n_majors)
        else:
            check_type(x, self._element)
            with explain(self._path, self._element):
                list_filters(x)
                self._check_stored(x)
                self._rows = DenseRows(x, _DENSE_AT_ONCE, max_memory=self._allowed)
            self._indptr = np.arange(n_majors + 1, dtype=np.int64) * self._n_minors
        self._majors = range(n_majors) if cells is None or self.by_gene else cells
        starts = self._block_starts()
        longest = max(
            (int(self._indptr[b] - self._indptr[a]) for a, b in pairwise(starts)), default=0
        )
        if (n_bytes := longest * np.dtype(self._type).itemsize) > self._allowed:
            raise UnsafeFileError(
                f"{self._path.name} is refused: {self._element} has a "
                f"{'column' if self.by_gene else 'row'} of {longest:,} values, which take "
                f"{n_bytes:,} bytes, and {self._allowed:,} are allowed: if you trust the file, "
                "raise max_memory, and set retry_failed=true"
            )
        self._buffer = np.empty(longest, self._type)

    def _check_shape(self) -> None:
        """Compare the shape that X says with what obs and var say, as anndata does."""
        shape = self._x.attrs.get("shape", self._x.attrs.get("h5sparse_shape"))
        if isinstance(self._x, h5py.Dataset):
            shape = self._x.shape or ()
        expected = tuple(map(len, self._names))
        if shape is not None and tuple(int(n) for n in np.atleast_1d(shape)) != expected:
            said = " x ".join(str(int(n)) for n in np.atleast_1d(shape))
            raise CountError(
                f"{self._path.name} is damaged: {self._element} is {said}, obs and var say "
                f"{expected[0]} x {expected[1]}"
            )

    def _check_stored(self, values: h5py.Dataset) -> None:
        """Refuse values that take far longer to read than a file of this size is worth."""
        n_bytes, n_stored = values.size * values.dtype.itemsize, values.id.get_storage_size()
        if n_bytes > max(_MOST_COMPRESSED * n_stored, self._allowed):
            raise UnsafeFileError(
                f"{self._path.name} is refused: {values.name.strip('/')} has the shape "
                f"{values.shape}, which is {n_bytes:,} bytes, and stores {n_stored:,}; "
                f"{_MOST_COMPRESSED:,} times that are allowed: write it anew with all its values"
            )

    def _open_sparse(self, x: h5py.Group, n_majors: int) -> None:
        check_parts(x, self._element)
        for part in ("indices", "data"):
            self._check_stored(x[part])
        n_pointers = len(x["indptr"])
        fits = n_pointers == n_majors + 1  # else it is not read: it may have any length
        self._indptr = x["indptr"][:].astype(np.int64) if fits else np.zeros(1, np.int64)
        self._minors = ChunkedValues(x["indices"])
        self._values = ChunkedValues(x["data"])
        n_values = len(self._values)
        if (
            not fits
            or self._indptr[0] != 0
            or not self._indptr[-1] == n_values == len(self._minors)
            or (np.diff(self._indptr, prepend=0) < 0).any()
        ):
            raise CountError(
                f"{self._path.name} is damaged: {self._element} has {n_pointers - 1} "
                f"pointers over {n_values} values, obs and var say {self.n_cells} x "
                f"{len(self._names[1])}"
            )

    @property
    def n_values(self) -> int:
        """Values stored, zeros among them."""
        return int(self._indptr[-1])

    @property
    def is_one_block(self) -> bool:
        """Whether the whole matrix fits into the memory allowed."""
        first, stop = self._indptr[[self._majors.start, self._majors.stop]]
        return bool(stop - first <= self._max_values)

    def blocks(self, visit: Callable[[Part], None] | None = None) -> Iterator[Block]:
        """Read block after block into the same memory; a matrix of one block is read once.

        `visit` is shown everything that is read, in the threads that read it, while it is in the
        processor's caches.
        """
        if self._cached is not None:
            yield from self._cached
            return
        read = self._read_sparse if isinstance(self._x, h5py.Group) else self._read_dense
        first, stop = self._indptr[[self._majors.start, self._majors.stop]].tolist()
        with Progress("read", "values", stop - first, patience=_PATIENCE) as progress:
            for start, end in pairwise(self._block_starts()):
                with explain(self._path, self._element):
                    block = read(start, end, visit)
                if self.is_one_block:
                    self._cached = [block]
                yield block
                progress.add(len(block.packed))

    def _block_starts(self) -> list[int]:
        starts, stop = [self._majors.start], self._majors.stop
        while starts[-1] < stop:
            limit = self._indptr[starts[-1]] + self._max_values
            end = int(np.searchsorted(self._indptr, limit, side="right")) - 1
            starts.append(min(max(end, starts[-1] + 1), stop))
        return starts

    def _read_sparse(self, start: int, end: int, visit: Callable[[Part], None] | None) -> Block:
        low, high = int(self._indptr[start]), int(self._indptr[end])
        packed = self._buffer[: high - low]
        step = max(self._minors.step, self._values.step)
        bounds = [low, *range((low // step + 1) * step, high, step), high]

        def read(job: tuple[int, Sequence[tuple[int, int]]]) -> None:
            for from_, to in job[1]:
                minors = as_native(self._minors.read(from_, to))
                values = as_native(self._values.read(from_, to))
                first = int(np.searchsorted(self._indptr, from_, side="right")) - 1
                last = int(np.searchsorted(self._indptr, to, side="left"))
                pointers = self._indptr[first : last + 1] - from_
                is_rest = bool(pointers[0] < 0)
                pointers[0], pointers[-1] = 0, to - from_
                place = (job[0], from_, is_rest, first)
                part = Part(*place, pointers, minors, values, self.by_gene)
                part = self._check_and_pack(part, packed[from_ - low : to - low])
                if visit is not None:
                    visit(part)

        if high > low:
            parts = list(pairwise(bounds))
            # What each thread reads is bounded, not what all read together.
            n_bytes = step * (self._minors.itemsize + self._values.itemsize) * self._workers.n
            in_order = self._minors.is_sequential or self._values.is_sequential
            in_order |= n_bytes > self._allowed
            jobs = [parts] if in_order else self._workers.divide(parts)
            self._workers.map(read, enumerate(jobs))
        return Block(start, self._indptr[start : end + 1] - low, packed)

    def _read_dense(self, start: int, end: int, visit: Callable[[Part], None] | None) -> Block:
        pointers = [np.zeros(1, np.int64)]
        for row, values in self._rows.read(start, end):
            piece = sp.csr_matrix(values)
            part = Part(
                worker=0,
                start=0,
                is_rest=False,
                first=row,
                pointers=piece.indptr.astype(np.int64),
                minors=piece.indices,
                values=piece.data,
                by_gene=False,
            )
            low = pointers[-1][-1]
            part = self._check_and_pack(part, self._buffer[low : low + piece.nnz])
            pointers.append(low + part.pointers[1:])
            if visit is not None and piece.nnz:
                visit(part)
        whole = np.concatenate(pointers)
        return Block(start, whole, self._buffer[: whole[-1]])

    def _check_and_pack(self, part: Part, packed: NDArray[Any]) -> Part:
        """Pack a part's values; gives the part, values that are nearly whole made whole."""
        problem = pack_values(part.minors, part.values, self._n_minors, packed)
        if problem & BAD_INDEX:
            raise CountError(
                f"{self._path.name} is damaged: an index of {self._element} is outside "
                f"0 … {self._n_minors - 1}"
            )
        if not problem:
            return part
        if not are_counts(part.values.astype(np.float64)).all():
            self._refuse(part)
        values = np.rint(part.values)
        whole = part._replace(values=values, rounded=np.flatnonzero(values != part.values))
        pack_values(whole.minors, whole.values, self._n_minors, packed)
        return whole

    def _refuse(self, part: Part) -> NoReturn:
        bad = int(np.argmin(are_counts(part.values.astype(np.float64))))
        (cell,), (gene,) = part.locate(np.array([bad]))
        raise CountError(
            f"{self._path.name} does not hold counts: {self._element} of cell "
            f"{self._names[0][cell]}, gene {self._names[1][gene]} is {part.values[bad]}; counts "
            f"are finite, whole and not negative. {explain_values(self._x)}"
        )
