"""All shards as one table of rows, gathered from their memory maps by compiled loops."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import ArrayPool, DiskWatch, ask_for, expect_random, find_datasets, map_file
from scdiff_data.errors import ManifestError
from scdiff_data.shards.copy_jobs import Column, JobCache
from scdiff_data.shards.fallback import ReplacedGenes
from scdiff_data.shards.hints import ask_for_narrow, ask_for_rows
from scdiff_data.shards.loops import (
    DAMAGED,
    FINE,
    copy_rows,
    translate_dense,
    translate_packed,
    unpack_rows,
)

_MOST_MAPS = 32_768
"""Shards mapped at a time: half of what Linux lets a process have."""

_IDS = ("cell_id", "experiment_id")
"""Columns that few batches look at."""

_NO_COUNTS = np.empty((0, 0), np.int16)
"""Stands in for the counts where no column is wide: the compiled loop takes arrays alone."""

_COUNTS = "expression"
"""The column of counts, whatever the format."""


class ShardRows:
    """All shards as one table of rows, gathered from their maps.

    Shards are mapped when a row of theirs is first asked for, in each process for itself; what is
    pickled or inherited by a fork holds no open file. Where rows come from the disk, the system is
    told of all rows of a gather before the first is read.

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
            self.is_compact = "packed" in file
            self._has_long_starts = self.is_compact and file["starts"].dtype == np.uint64
            counts = ("starts", "packed") if self.is_compact else ("expression",)
            self._columns = {"total_counts": "total_counts"}
            self._columns |= {"cell_id": "cell_ids", "experiment_id": "experiment_ids"}
            for name, label in file.get("labels", {}).items():
                is_text = isinstance(label, h5py.Group)
                self._columns[name] = f"labels/{name}/codes" if is_text else f"labels/{name}"
                if is_text:
                    self.categories[name] = [c.decode() for c in label["categories"][:]]
            self._places = {path: place for place, path in enumerate(counts)}
            self._layout = {}
            for place, (name, path) in enumerate(self._columns.items(), start=3):
                self._places[path] = place
                dtype = file[path].dtype
                self._layout[name] = Column(place, dtype, dtype.itemsize, ())
            # Of each narrow column that batches look at: place, bytes a row, entries beyond.
            narrow = [(c.place, c.row_bytes, 0) for n, c in self._layout.items() if n not in _IDS]
            if self.is_compact:
                narrow.append((0, file["starts"].dtype.itemsize, 1))
            self._narrow = np.array(narrow, np.int64)
            n_genes = len(self.gene_ids)
            self._layout[_COUNTS] = Column(0, np.dtype(np.int16), 2 * n_genes, (n_genes,))
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in self.__dict__.items()
            if k not in ("_maps", "_addresses", "_replaced", "_jobs", "_pool", "watch")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._replaced = ReplacedGenes(self._paths, self._shard_size)
        self._pool = ArrayPool()
        self.watch = DiskWatch()
        self._jobs = JobCache(self._layout)
        self._addresses = np.zeros((3 + len(self._columns), len(self._paths)), np.int64)

    @property
    def labels(self) -> list[str]:
        """The labels that the shards keep."""
        return [name for name, path in self._columns.items() if path.startswith("labels/")]

    def gather(
        self,
        names: tuple[str, ...],
        rows: NDArray[np.int64],
        *,
        within: range | None = None,
        width: int | None = None,
        table: NDArray[Any] | None = None,
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
        table
            What each count becomes, [32768]: `expression` then comes as `table[counts]`.

        Returns
        -------
        columns
            [n, width] for `expression`, else [n]; ids as bytes, text labels as codes (-1 missing).

        Raises
        ------
        IndexError
            If a row is outside.
        ManifestError
            If a compact shard is damaged.
        """
        within = range(self.n_cells) if within is None else within
        span = (within.start, len(within), self._shard_size)
        is_wide = _COUNTS in names
        is_copied = is_wide and table is None and not self.is_compact
        if is_wide and self.watch.is_cold and self.watch.asks_itself:
            self.ask_for(rows, within=within)
        if len(self._maps) < len(self._paths):  # else rows need not be worked out
            self._map_shards_of(np.where(rows < 0, rows + len(within), rows) + within.start)
        jobs = self._jobs.take(names, len(rows), width, is_copied=is_copied)
        # Narrow columns share their memory, wide ones have their own: ids that somebody keeps do
        # not keep counts.
        narrow = np.empty(jobs.n_narrow_bytes, np.uint8)
        columns = []
        wide = _NO_COUNTS
        for shape, dtype, offset in jobs.layout:
            if offset < 0:
                wide = self._pool.take(shape, dtype if table is None else table.dtype)
                columns.append(wide)
            else:
                columns.append(np.ndarray(shape, dtype, narrow, offset))
        state = copy_rows(self._addresses, jobs.table, rows, *span, wide, narrow)
        if is_wide and not is_copied and state == FINE:
            state = self._decode(rows, span, wide, table)
        if is_wide:
            self.watch.look()
        if state != FINE:
            self._explain(state, rows, within)
        return columns

    def _decode(
        self,
        rows: NDArray[np.int64],
        span: tuple[int, int, int],
        wide: NDArray[Any],
        table: NDArray[Any] | None,
    ) -> int:
        state: int
        if not self.is_compact:
            state = translate_dense(self._addresses, rows, *span, len(self.gene_ids), table, wide)
        elif table is None:
            state = unpack_rows(self._addresses, rows, *span, self._has_long_starts, wide)
        else:
            state = translate_packed(
                self._addresses, rows, *span, self._has_long_starts, table, wide
            )
        return state

    def _explain(self, state: int, rows: NDArray[np.int64], within: range) -> NoReturn:
        if state == DAMAGED:
            shards = np.unique((rows % len(within) + within.start) // self._shard_size)
            raise ManifestError(
                f"a row of {', '.join(str(self._paths[s]) for s in shards[:3])} lies outside its "
                "shard, which is damaged: run with data.verify=full to find it, delete it and "
                "config.json, and prepare again"
            )
        n = len(within)
        raise IndexError(f"rows are {-n} … {n - 1}, got {rows.min()} … {rows.max()}")

    def ask_for(self, rows: NDArray[np.int64], *, within: range) -> None:
        """Start to fetch the counts of rows that a later `gather` takes, but for a probe at times.

        Parameters
        ----------
        rows, within
            As `gather` takes them; rows outside are left out.
        """
        n = len(within)
        rows = self.watch.choose(np.where(rows < 0, rows + n, rows))
        rows = rows[(rows >= 0) & (rows < n)] + within.start
        self._ask(rows, rows)

    def ask_for_runs(self, runs: NDArray[np.int64], *, within: range) -> None:
        """The same of runs of rows: the first of each, and the one after its last; int64 [n, 2]."""
        self._ask(*self._divide(runs, within))

    def ask_for_columns(self, runs: NDArray[np.int64], *, within: range) -> None:
        """Start to fetch whatever else is gathered of runs, but for ids, and where they start."""
        firsts, lasts = self._divide(runs, within)
        self._map_shards_of(firsts)
        self._tell(ask_for_narrow, self._narrow, firsts, lasts, self._shard_size)

    def _divide(
        self, runs: NDArray[np.int64], within: range
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Runs as pieces within shards: the first global row of each, and the last one."""
        firsts, lasts = (runs + within.start - [0, 1]).T
        n_each = lasts // self._shard_size - firsts // self._shard_size + 1
        run = np.repeat(np.arange(len(runs)), n_each)
        piece = np.arange(len(run)) - np.repeat(np.cumsum(n_each) - n_each, n_each)
        start = (firsts[run] // self._shard_size + piece) * self._shard_size
        return (
            np.maximum(start, firsts[run]),
            np.minimum(start + self._shard_size - 1, lasts[run]),
        )

    def _ask(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> None:
        self._map_shards_of(firsts)
        row_bytes = 0 if self.is_compact else self._layout[_COUNTS].row_bytes
        size = self._shard_size
        self._tell(ask_for_rows, firsts, lasts, size, row_bytes, self._has_long_starts)

    def _tell(self, hint: Callable[..., None], *arguments: Any) -> None:
        self.watch.tell(hint, self._addresses, *arguments, kept=self._maps)

    def _map_shards_of(self, rows: NDArray[np.int64]) -> None:
        """Map the shards of these rows, all at a time, in place of others if there are too many."""
        if len(self._maps) == len(self._paths):
            return
        shards = [s for s in np.unique(rows // self._shard_size) if 0 <= s < len(self._paths)]
        if len(self._maps) + sum(s not in self._maps for s in shards) > _MOST_MAPS:
            # Not emptied: a hint on its way still reads by them.
            self._maps, self._addresses = {}, np.zeros_like(self._addresses)
        for shard in shards:
            if shard not in self._maps:
                self._map(int(shard))

    def gather_gene_ids(self, rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Which gene each place of these rows holds: places on the reference axis, [n, width]."""
        return self._replaced.gather(rows, self.gene_indices[:width])

    def _map(self, shard: int) -> None:
        path = self._paths[shard]
        mapped = map_file(path)
        # Rows are at random places; what is narrow is read by many batches, and fetched as a whole.
        expect_random(mapped)
        for name, (offset, n_bytes) in zip(
            self._places, find_datasets(path, list(self._places)), strict=True
        ):
            self._addresses[self._places[name], shard] = mapped.ctypes.data + offset
            if name == "packed":
                self._addresses[2, shard] = n_bytes
            elif name not in ("expression", "cell_ids", "experiment_ids"):
                ask_for(mapped[offset : offset + n_bytes])
        self._maps[shard] = mapped
