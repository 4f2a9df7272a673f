"""All shards as one table of rows, gathered from their memory maps by compiled loops."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import ArrayPool, DiskWatch
from scdiff_data.errors import ManifestError
from scdiff_data.fetching import Plan
from scdiff_data.remote import find_copies
from scdiff_data.shards.columns import COUNTS, JobCache, ShardColumns
from scdiff_data.shards.fallback import ReplacedGenes
from scdiff_data.shards.formats import stamp
from scdiff_data.shards.hints import ask_for_narrow, ask_for_rows
from scdiff_data.shards.loops import (
    DAMAGED,
    FINE,
    copy_rows,
    translate_dense,
    translate_packed,
    unpack_rows,
)
from scdiff_data.store import Manifest

_T = TypeVar("_T")
"""What is read of a shard."""

_MOST_MAPS = 20_000
"""Shards mapped at a time: Linux lets a process have 65,530 maps, and archives take some."""

_NO_COUNTS = np.empty((0, 0), np.int16)
"""Stands in for the counts where no column is wide: the compiled loop takes arrays alone."""


class ShardRows:
    """All shards as one table of rows, gathered from their maps.

    Shards are mapped when a row of theirs is first asked for, in each process for itself; what is
    pickled or inherited by a fork holds no open file. Where rows come from the disk, the system is
    told of all rows of a gather before the first is read. In a local copy of a bucket, a gather
    waits for shards that are not here yet.

    Parameters
    ----------
    manifest
        Says which they are, and how many cells are in them.

    Raises
    ------
    ManifestError
        If one is damaged or was replaced by another run: at once, or when a row of it is asked
        for.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._paths = manifest.shards
        self._shard_size = manifest.shard_size
        self.n_cells = sum(manifest.n_cells.values())
        self._key = stamp(manifest.shards_key, manifest.shard_format)
        self._copies, self._lock = find_copies(manifest), RLock()
        self._columns = self._read_shard(0, lambda: ShardColumns(self._paths[0], self._key))
        self.gene_ids, self.gene_symbols = self._columns.gene_ids, self._columns.gene_symbols
        self.gene_indices = self._columns.gene_indices
        self.has_fallback = self._columns.has_fallback
        self.labels, self.categories = self._columns.labels, self._columns.categories
        self.is_compact, self.is_copy = self._columns.is_compact, self._copies is not None
        self.dtypes = {name: column.dtype for name, column in self._columns.layout.items()}
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in self.__dict__.items()
            if k not in ("_maps", "_addresses", "_replaced", "_jobs", "_pool", "watch", "_lock")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._lock = RLock()  # workers send ids from a thread of their own
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._replaced = ReplacedGenes(self._paths, self._shard_size, self._key)
        self._pool = ArrayPool()
        self.watch = DiskWatch()
        self._jobs = JobCache(self._columns.layout)
        self._addresses = np.zeros((self._columns.n_places, len(self._paths)), np.int64)

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
        is_wide = COUNTS in names
        is_copied = is_wide and table is None and not self.is_compact
        if is_wide and self.watch.is_cold and self.watch.asks_itself:
            self.ask_for(rows, within=within)
        with self._lock:
            if len(self._maps) < len(self._paths):  # else rows need not be worked out
                self._map_shards_of(np.where(rows < 0, rows + len(within), rows) + within.start)
            maps, addresses = self._maps, self._addresses
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
        state = copy_rows(addresses, jobs.table, rows, *span, wide, narrow)
        if is_wide and not is_copied and state == FINE:
            state = self._decode(addresses, rows, span, wide, table)
        del maps  # until here no other thread's gather lets them go
        if is_wide:
            self.watch.look()
        if state != FINE:
            self._explain(state, rows, within)
        return columns

    def _decode(
        self,
        addresses: NDArray[np.int64],
        rows: NDArray[np.int64],
        span: tuple[int, int, int],
        wide: NDArray[Any],
        table: NDArray[Any] | None,
    ) -> int:
        state: int
        if not self.is_compact:
            state = translate_dense(addresses, rows, *span, len(self.gene_ids), table, wide)
        elif table is None:
            state = unpack_rows(addresses, rows, *span, self._columns.has_long_starts, wide)
        else:
            state = translate_packed(
                addresses, rows, *span, self._columns.has_long_starts, table, wide
            )
        return state

    def _explain(self, state: int, rows: NDArray[np.int64], within: range) -> NoReturn:
        if state == DAMAGED:
            shard = self._find_damaged(rows % len(within) + within.start)
            raise ManifestError.damaged(self._paths[shard], "a row lies outside of it")
        n = len(within)
        raise IndexError(f"rows are {-n} … {n - 1}, got {rows.min()} … {rows.max()}")

    def _find_damaged(self, rows: NDArray[np.int64]) -> int:
        """The shard that one of these global rows cannot be unpacked from."""
        wide = np.empty((1, len(self.gene_ids)), np.int16)
        span = (0, self.n_cells, self._shard_size)
        for row in rows:
            if self._decode(self._addresses, row[None], span, wide, None) == DAMAGED:
                break
        return int(row // self._shard_size)

    def locate(self, row: int) -> Path:
        """The shard that a global row is in."""
        return self._paths[row // self._shard_size]

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
        with self._lock:
            firsts, lasts = self._find_mapped(*self._divide(runs, within))
            self._tell(ask_for_narrow, self._columns.narrow, firsts, lasts, self._shard_size)

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

    def _find_mapped(
        self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The runs whose shards are mapped, or can be by now: no hint waits for a bucket."""
        self._map_shards_of(firsts, waits=False)
        is_mapped = self._addresses[0, firsts // self._shard_size] != 0
        return firsts[is_mapped], lasts[is_mapped]

    def _ask(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> None:
        row_bytes = 0 if self.is_compact else self._columns.layout[COUNTS].row_bytes
        size, is_long = self._shard_size, self._columns.has_long_starts
        with self._lock:
            firsts, lasts = self._find_mapped(firsts, lasts)
            self._tell(ask_for_rows, firsts, lasts, size, row_bytes, is_long, self.watch)

    def _tell(self, hint: Callable[..., None], *arguments: Any) -> None:
        self.watch.tell(hint, self._addresses, *arguments, kept=self._maps)

    def follow(self, stretches: Iterator[NDArray[np.int64]], *, within: range) -> Plan | None:
        """Of a local copy, start to bring the shards of rows, see `ShardCopies`; else None."""
        return None if self._copies is None else self._copies.follow(stretches, within.start)

    def _map_shards_of(self, rows: NDArray[np.int64], *, waits: bool = True) -> None:
        """Map the shards of these rows, all at a time, in place of others if there are too many."""
        if len(self._maps) == len(self._paths):
            return
        shards = [s for s in np.unique(rows // self._shard_size) if 0 <= s < len(self._paths)]
        if len(self._maps) + sum(s not in self._maps for s in shards) > _MOST_MAPS:
            # Not emptied: a hint on its way still reads by them.
            self._maps, self._addresses = {}, np.zeros_like(self._addresses)
        missing: Iterable[int] = [int(shard) for shard in shards if shard not in self._maps]
        if self._copies is not None:
            self._drop(self._copies.find_gone(needed=shards))
            missing = self._copies.bring(missing, waits=waits)
        for shard in missing:
            self._read_shard(shard, partial(self._map, shard))

    def _drop(self, shards: list[int]) -> None:
        """Drop the maps of shards that left the disk: only then does it have their space again."""
        if shards:
            self._maps = {s: content for s, content in self._maps.items() if s not in shards}
            self._addresses = self._addresses.copy()  # a hint on its way still reads by the other
            self._addresses[:, shards] = 0
            self._replaced.drop(shards)

    def _read_shard(self, shard: int, read: Callable[[], _T]) -> _T:
        """What `read` gives of a shard, which a local copy may have to bring."""
        with self._lock:
            return read() if self._copies is None else self._copies.read(shard, read)

    def gather_gene_ids(self, rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Which gene each place of these rows holds: places on the reference axis, [n, width]."""
        return self._replaced.gather(rows, self.gene_indices[:width], self._read_shard)

    def _map(self, shard: int) -> None:
        n_cells = min(self._shard_size, self.n_cells - shard * self._shard_size)
        content, spans = self._columns.map(self._paths[shard], n_cells)
        for place, (first, _) in spans.items():
            self._addresses[place, shard] = content.ctypes.data + first
        if self.is_compact:
            self._addresses[2, shard] = spans[1][1]
        self._maps[shard] = content
