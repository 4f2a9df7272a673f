"""What is copied for a batch, worked out once for each kind of batch."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_KEPT = 64
"""Kinds of batches kept: a run asks for few, tests and notebooks for many."""


class Column(NamedTuple):
    """A dataset of the shards: its place among them, type, bytes a row, and shape of a row."""

    place: int
    dtype: np.dtype[Any]
    row_bytes: int
    shape: tuple[int, ...]


class CopyJobs(NamedTuple):
    """What `copy_rows` copies for one kind of batch.

    Parameters
    ----------
    table
        One job a column, int64 [n_columns, 4], see the picture above it.
    layout
        Of each column the array it comes out as: shape, type, and where it starts in `narrow`, or
        -1 if it is wide.
    n_narrow_bytes
        Bytes of all narrow columns together.
    """

    table: NDArray[np.int64]
    layout: list[tuple[tuple[int, ...], np.dtype[Any], int]]
    n_narrow_bytes: int


class JobCache:
    """Copy jobs, kept, since working them out takes longer than copying.

    Parameters
    ----------
    columns
        The datasets by name.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._kept: dict[tuple[tuple[str, ...], int, int | None, bool], CopyJobs] = {}

    def take(
        self, names: tuple[str, ...], n_rows: int, width: int | None, *, is_copied: bool
    ) -> CopyJobs:
        """Jobs for `n_rows` of some columns; the wide one is none unless it `is_copied`."""
        key = (names, n_rows, width, is_copied)
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        jobs, layout, n_narrow_bytes = [], [], 0
        for name in names:
            place, dtype, row_bytes, shape = self._columns[name]
            if shape:
                shape = (width or shape[0],)
            n_bytes = math.prod(shape) * dtype.itemsize
            offset = -1 if shape else n_narrow_bytes
            if is_copied or not shape:
                jobs.append((place, row_bytes, n_bytes, offset))
            layout.append(((n_rows, *shape), dtype, offset))
            if not shape:
                n_narrow_bytes += -(-n_rows * n_bytes // 16) * 16  # each column starts aligned
        if len(self._kept) > _MOST_KEPT:
            self._kept.clear()
        table = np.array(jobs, np.int64).reshape(-1, 4)
        self._kept[key] = CopyJobs(table, layout, n_narrow_bytes)
        return self._kept[key]
