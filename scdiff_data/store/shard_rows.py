"""All shards as one table of rows, copied from their memory maps by a compiled loop."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numba
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import Buffers, copy_bytes, hash_file, map_dataset, prefetch
from scdiff_data.errors import ManifestError
from scdiff_data.store.fallback import map_replacements, replace_genes
from scdiff_data.store.manifest import Manifest

_AHEAD = 1024
"""Bytes between the lines of a row that are asked for ahead: the processor finds the rest."""

_MOST_PLANS = 64

_NO_COUNTS = np.empty((0, 0), np.int16)


class ShardMap:
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
        self._paths, self._shard_size, self.n_cells = list(paths), shard_size, n_cells
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
            if k not in ("_maps", "_addresses", "_replacements", "_plans", "_buffers")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, list[NDArray[Any]]] = {}
        self._replacements: dict[int, tuple[NDArray[Any], ...]] = {}
        self._buffers = Buffers()
        self._plans: dict[tuple[tuple[str, ...], int, int | None], _Plan] = {}
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
        plan = self._plans.get((names, len(rows), width)) or self._plan(names, len(rows), width)
        # Narrow columns share their memory, wide ones have their own: ids that somebody keeps do
        # not keep counts.
        narrow, columns, wide = np.empty(plan.n_narrow, np.uint8), [], _NO_COUNTS
        for shape, dtype, offset in plan.layout:
            if offset < 0:
                wide = self._buffers.take(shape, dtype)
                columns.append(wide)
            else:
                columns.append(np.ndarray(shape, dtype, narrow, offset))
        span = (within.start, len(within), self._shard_size)
        if not _gather(self._addresses, plan.jobs, rows, *span, wide, narrow):
            low, high, n = rows.min(), rows.max(), len(within)
            raise IndexError(f"rows are {-n} … {n - 1}, got {low} … {high}")
        return columns

    def _plan(self, names: tuple[str, ...], n_rows: int, width: int | None) -> "_Plan":
        """What to copy for so many rows: kept, since it takes longer than the copying."""
        jobs, layout, n_narrow = np.empty((len(names), 4), np.int64), [], 0
        for job, name in zip(jobs, names, strict=True):
            place, dtype, row_bytes, shape = self._layout[name]
            if shape:
                shape = (width or shape[0],)
            n_bytes = math.prod(shape) * dtype.itemsize
            offset = -1 if shape else n_narrow
            job[:] = place, row_bytes, n_bytes, offset
            layout.append(((n_rows, *shape), dtype, offset))
            if not shape:
                n_narrow += -(-n_rows * n_bytes // 16) * 16
        if len(self._plans) > _MOST_PLANS:
            self._plans.clear()
        self._plans[names, n_rows, width] = plan = _Plan(jobs, layout, n_narrow)
        return plan

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


def check_shards(manifest: Manifest, *, full: bool) -> None:
    """Compare the shards' sizes and headers with the manifest, and with `full` every byte.

    Raises
    ------
    ManifestError
        If a shard is of another run, or damaged.
    """
    manifest.check_files(manifest.directory.shards)
    name, first = manifest.directory.manifest.name, 0
    n_cells, n_genes = sum(manifest.n_cells.values()), manifest.genes.n_chosen
    for path, entry in zip(manifest.shards, manifest.shard_entries, strict=True):
        wanted = (manifest.shards_key, (min(manifest.shard_size, n_cells - first), n_genes))
        first += manifest.shard_size
        try:
            with h5py.File(path) as file:
                expression = file["expression"]
                found = (str(file.attrs["key"]), expression.shape)
                is_mapped = expression.id.get_offset() is not None and expression.dtype == np.int16
        except (OSError, KeyError) as error:
            raise ManifestError(
                f"{path} is damaged ({error}): delete it and {name}, and prepare again; what is "
                "whole stays"
            ) from error
        if found != wanted or not is_mapped:
            raise ManifestError(
                f"{path} is of another run: it has key and shape {found}, {name} says {wanted}: "
                f"delete it and {name}, and prepare again; what is whole stays"
            )
        if full and hash_file(path) != entry.sha256:
            raise ManifestError(
                f"{path} has another checksum than {name} says, so bytes of it have changed: "
                f"delete it and {name}, and prepare again; what is whole stays"
            )


class _Column(NamedTuple):
    """A dataset of the shards: its place among them, type, bytes a row, and shape of a row."""

    place: int
    dtype: np.dtype[Any]
    row_bytes: int
    shape: tuple[int, ...]


class _Plan(NamedTuple):
    """What `_gather` copies.

    Its jobs; shape, type and offset of each column; bytes of the narrow ones together.
    """

    jobs: NDArray[np.int64]
    layout: list[tuple[tuple[int, ...], np.dtype[Any], int]]
    n_narrow: int


@numba.njit(cache=True, nogil=True)
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
    """Copy rows of columns one after another; False if a row is outside.

    A job is a column's place in `addresses`, the bytes of its rows, how many of them to copy, and
    where in `narrow` they go, or -1 for `wide`. Narrow rows are asked for first and copied last,
    and pages of a wide row while the one before it is copied: memory answers many requests at once.
    """
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
