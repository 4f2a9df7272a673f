"""A source file's matrix as blocks of bounded size, whatever its layout."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiff_data.errors import CountError
from scdiff_data.inflate import Workers, read_values

BYTES_PER_VALUE = 16
"""Memory that a block takes for each of its values."""


class SourceMatrix:
    """A source's `X` as blocks of bounded size, in the order in which it is stored.

    Parameters
    ----------
    x
        The h5ad file's `X`: a CSC or CSR group, or a dense dataset.
    n_cells, n_genes
        Its shape, as `obs` and `var` have it.
    max_values
        Values in a block.
    workers
        What inflates the chunks.

    Raises
    ------
    CountError
        If pointers or indices do not fit the shape.
    """

    def __init__(
        self,
        x: h5py.Group | h5py.Dataset,
        n_cells: int,
        n_genes: int,
        *,
        max_values: int,
        workers: Workers,
    ) -> None:
        self.n_cells = n_cells
        encoding = x.attrs.get("encoding-type", x.attrs.get("h5sparse_format", "array"))
        self.by_gene = str(encoding).startswith("csc")
        self._x, self._max_values, self._workers = x, max(max_values, 1), workers
        self._cached: list[tuple[int, Any, Any, Any]] | None = None
        if isinstance(x, h5py.Group):
            self._indptr = x["indptr"][:].astype(np.int64)
            self._n_minors = n_cells if self.by_gene else n_genes
            expected = (n_genes if self.by_gene else n_cells) + 1
            if (
                len(self._indptr) != expected
                or not self._indptr[-1] == len(x["data"]) == len(x["indices"])
                or (np.diff(self._indptr, prepend=0) < 0).any()
            ):
                raise CountError(
                    f"{Path(x.file.filename).name} is damaged: X has {len(self._indptr) - 1} "
                    f"pointers over {len(x['data'])} values, obs and var say {n_cells} x {n_genes}"
                )
        else:
            self._indptr = np.arange(n_cells + 1, dtype=np.int64) * n_genes

    def blocks(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
        """First column (CSC) or row, pointers, indices of the other axis, values.

        A matrix of one block is read once and kept.
        """
        if self._cached is not None:
            yield from self._cached
            return
        starts = self._block_starts()
        for start, end in pairwise(starts):
            block = (start, *self._read(start, end))
            if len(starts) == 2:
                self._cached = [block]
            yield block

    def _block_starts(self) -> list[int]:
        starts, n_majors = [0], len(self._indptr) - 1
        while starts[-1] < n_majors:
            limit = self._indptr[starts[-1]] + self._max_values
            end = int(np.searchsorted(self._indptr, limit, side="right")) - 1
            starts.append(min(max(end, starts[-1] + 1), n_majors))
        return starts

    def _read(self, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        if isinstance(self._x, h5py.Dataset):
            dense = sp.csr_matrix(self._x[start:end])
            return dense.indptr.astype(np.int64), dense.indices, dense.data
        low, high = self._indptr[start], self._indptr[end]
        minors, values = (
            read_values(self._x[name], low, high, self._workers) for name in ("indices", "data")
        )
        if len(minors) and not 0 <= minors.min() <= minors.max() < self._n_minors:
            raise CountError(
                f"{Path(self._x.file.filename).name} is damaged: an index of X is outside 0 … "
                f"{self._n_minors - 1}"
            )
        return self._indptr[start : end + 1] - low, minors, values
