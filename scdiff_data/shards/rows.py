"""All shards as one table of rows, copied from their memory maps by a compiled loop."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import ArrayPool, compiled, copy_bytes, map_dataset, prefetch
from scdiff_data.shards.fallback import map_replacements, replace_genes

_AHEAD = 1024
"""Stride in bytes of software prefetches within a row; the hardware prefetcher fills the gaps."""

_MOST_KEPT = 64
"""Copy jobs kept: a run asks for few kinds of batches, tests and notebooks for many."""

_NO_COUNTS = np.empty((0, 0), np.int16)
"""Stands in for the counts where no column is wide: the compiled loop takes arrays alone."""


class ShardRows:
    """All shards as one table of rows, gathered from their maps.

    Shards are mapped when a row of theirs is first asked for, in each process for itself; what is
    pickled or inherited by a fork holds no open file.

    Parameters
    ----------
    paths
        The shards in their order.
    shard_size
        Cells in each but the last.
    n_cells
        Cells in all.
    """

    def __init__(self, paths: Sequence[Path], *, shard_size: int, n_cells: int) -> None:
        self._paths = list(paths)
        self._shard_size = shard_size
        self.n_cells = n_cells
        with h5py.File(self._paths[0]) as file:
            self.gene_ids: list[str] = [gene.decode() for gene in file["gene_ids"][:]]
            self.gene_symbols: list[str] = [gene.decode() for gene in file["gene_symbols"][:]]
            self.gene_indices: NDArray[np.int64] = file["gene_indices"][:].astype(np.int64)
            self.has_fallback = "fallback" in file
            self.categories: dict[str, list[str]] = {}
            self._datasets = {name: name for name in ("expression", "total_counts")}
            self._datasets |= {"cell_id": "cell_ids", "experiment_id": "experiment_ids"}
            for name, label in file.get("labels", {}).items():
                is_text = isinstance(label, h5py.Group)
                self._datasets[name] = f"labels/{name}/codes" if is_text else f"labels/{name}"
                if is_text:
                    self.categories[name] = [c.decode() for c in label["categories"][:]]
            self._layout = {}
            for place, (name, path) in enumerate(self._datasets.items()):
                dtype, shape = file[path].dtype, file[path].shape[1:]
                row_bytes = math.prod(shape) * dtype.itemsize
                self._layout[name] = _Column(place, dtype, row_bytes, shape)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in self.__dict__.items()
            if k not in ("_maps", "_addresses", "_replacements", "_copy_jobs", "_pool")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, list[NDArray[Any]]] = {}
        self._replacements: dict[int, tuple[NDArray[Any], ...]] = {}
        self._pool = ArrayPool()
        self._copy_jobs: dict[tuple[tuple[str, ...], int, int | None], _CopyJobs] = {}
        self._addresses = np.zeros((len(self._datasets), len(self._paths)), np.int64)

    @property
    def labels(self) -> list[str]:
        """The labels that the shards keep."""
        return [name for name, path in self._datasets.items() if path.startswith("labels/")]

    def gather(
        self,
        names: tuple[str, ...],
        rows: NDArray[np.int64],
        *,
        within: range | None = None,
        width: int | None = None,
    ) -> list[NDArray[Any]]:
        """Rows of columns: `expression`, `total_counts`, `cell_id`, `experiment_id` or labels.

        Parameters
        ----------
        names
            The columns.
        rows
            Row numbers, int64 [n], counted from the start of `within`, or if negative from its end.
        within
            Global row numbers, such as a split's; None takes all.
        width
            Of `expression`, only the first `width` genes.

        Returns
        -------
        columns
            [n, width] for `expression`, else [n]; ids as bytes, text labels as codes (-1 missing).

        Raises
        ------
        IndexError
            If a row is outside.
        """
        within = range(self.n_cells) if within is None else within
        if len(self._maps) < len(self._paths):
            self._map_shards_of(np.where(rows < 0, rows + len(within), rows) + within.start)
        jobs = self._list_jobs(names, len(rows), width)
        # Narrow columns share their memory, wide ones have their own: ids that somebody keeps do
        # not keep counts.
        narrow = np.empty(jobs.n_narrow_bytes, np.uint8)
        columns = []
        wide = _NO_COUNTS
        for shape, dtype, offset in jobs.layout:
            if offset < 0:
                wide = self._pool.take(shape, dtype)
                columns.append(wide)
            else:
                columns.append(np.ndarray(shape, dtype, narrow, offset))
        span = (within.start, len(within), self._shard_size)
        if not _gather(self._addresses, jobs.table, rows, *span, wide, narrow):
            low = rows.min()
            high = rows.max()
            n = len(within)
            raise IndexError(f"rows are {-n} … {n - 1}, got {low} … {high}")
        return columns

    def _list_jobs(self, names: tuple[str, ...], n_rows: int, width: int | None) -> "_CopyJobs":
        """What to copy for so many rows; kept, since working it out takes longer than copying."""
        kept = self._copy_jobs.get((names, n_rows, width))
        if kept is not None:
            return kept
        table = np.empty((len(names), 4), np.int64)
        layout, n_narrow_bytes = [], 0
        for job, name in zip(table, names, strict=True):
            place, dtype, row_bytes, shape = self._layout[name]
            if shape:
                shape = (width or shape[0],)
            n_bytes = math.prod(shape) * dtype.itemsize
            offset = -1 if shape else n_narrow_bytes
            job[:] = place, row_bytes, n_bytes, offset
            layout.append(((n_rows, *shape), dtype, offset))
            if not shape:
                n_narrow_bytes += -(-n_rows * n_bytes // 16) * 16  # each column starts aligned
        if len(self._copy_jobs) > _MOST_KEPT:
            self._copy_jobs.clear()
        jobs = self._copy_jobs[names, n_rows, width] = _CopyJobs(table, layout, n_narrow_bytes)
        return jobs

    def _map_shards_of(self, rows: NDArray[np.int64]) -> None:
        for shard in np.unique(rows // self._shard_size):
            if shard not in self._maps and 0 <= shard < len(self._paths):
                self._map(int(shard))

    def gather_gene_ids(self, rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Which gene each place of these rows holds: places on the reference axis, [n, width]."""
        gene_ids = np.tile(self.gene_indices[:width], (len(rows), 1))
        shards, rows_there = np.divmod(rows, self._shard_size)
        for shard in np.unique(shards):
            if shard not in self._replacements:
                with h5py.File(self._paths[shard]) as file:
                    self._replacements[shard] = map_replacements(file)
            mine = shards == shard
            part = gene_ids[mine]
            replace_genes(self._replacements[shard], rows_there[mine], part)
            gene_ids[mine] = part
        return gene_ids

    def _map(self, shard: int) -> None:
        with h5py.File(self._paths[shard]) as file:
            maps = [map_dataset(file[path]) for path in self._datasets.values()]
        self._maps[shard] = maps
        self._addresses[:, shard] = [mapped.ctypes.data for mapped in maps]


class _Column(NamedTuple):
    """A dataset of the shards: its place among them, type, bytes a row, and shape of a row."""

    place: int
    dtype: np.dtype[Any]
    row_bytes: int
    shape: tuple[int, ...]


class _CopyJobs(NamedTuple):
    """What `_gather` copies for one kind of batch.

    Parameters
    ----------
    table
        One job a column, int64 [n_columns, 4], see the picture above `_gather`.
    layout
        Of each column the array it comes out as: shape, type, and where it starts in `narrow`, or
        -1 if it is wide.
    n_narrow_bytes
        Bytes of all narrow columns together.
    """

    table: NDArray[np.int64]
    layout: list[tuple[tuple[int, ...], np.dtype[Any], int]]
    n_narrow_bytes: int


# What `_gather` sees, with two shards of 4 cells, 3 genes, and the rows 5, 0, 2 asked for:
#
#     addresses [column, shard]     shard 0   shard 1      where in memory a shard's column starts
#         0  expression               a0        a1
#         1  total_counts             b0        b1
#
#     jobs [column, 4]      place   bytes of a row   of these to copy   where in `narrow`
#         expression          0           6                 6           -1: it goes to `wide`
#         total_counts        1           4                 4            0
#
#     row 5 = shard 1, place 1           wide [3, 3]                narrow, as bytes
#     row 0 = shard 0, place 0             a1 + 1 * 6                 b1 + 1 * 4
#     row 2 = shard 0, place 2             a0                         b0
#                                          a0 + 2 * 6                 b0 + 2 * 4
#
# A row is in no cache, and fetching one from memory takes as long as copying it. So narrow rows are
# all prefetched first and copied last, and a wide row is prefetched while the row before it is
# copied: memory answers many requests at once. Rows are copied by memcpy, as bytes: one loop serves
# every type.
@compiled
def _gather(
    addresses: NDArray[Any],
    jobs: NDArray[Any],
    rows: NDArray[Any],
    start: int,
    n_cells: int,
    shard_size: int,
    wide: NDArray[Any],
    narrow: NDArray[Any],
) -> bool:
    """Copy rows of columns one after another; False if a row is outside."""
    if not len(rows):
        return True
    shards, places = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        row = rows[i] + n_cells if rows[i] < 0 else rows[i]
        if row < 0 or row >= n_cells:
            return False
        shards[i] = (row + start) // shard_size
        places[i] = (row + start) - shards[i] * shard_size
    for job in range(len(jobs)):
        column, row_bytes, n_bytes, offset = jobs[job]
        if offset >= 0:
            for i in range(len(rows)):
                prefetch(addresses[column, shards[i]] + places[i] * row_bytes)
    for job in range(len(jobs)):
        column, row_bytes, n_bytes, offset = jobs[job]
        if offset < 0:
            target, at = wide.ctypes.data, addresses[column, shards[0]] + places[0] * row_bytes
            for i in range(len(rows)):
                here = at
                if i + 1 < len(rows):
                    at = addresses[column, shards[i + 1]] + places[i + 1] * row_bytes
                    for page in range(0, n_bytes, _AHEAD):
                        prefetch(at + page)
                copy_bytes(target + i * n_bytes, here, n_bytes)
    for job in range(len(jobs)):
        column, row_bytes, n_bytes, offset = jobs[job]
        if offset >= 0:
            target = narrow.ctypes.data + offset
            for i in range(len(rows)):
                at = addresses[column, shards[i]] + places[i] * row_bytes
                copy_bytes(target + i * n_bytes, at, n_bytes)
    return True
