"""Rows of many archives at once, copied from their memory maps by a compiled loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from scdiff_data.archive.file import CsrRows, map_matrix
from scdiff_data.archive.gathering import (
    MISSING,
    WIDE,
    ask_for_rows,
    copy_rows,
    find_rows,
    scatter_rows,
)
from scdiff_data.archive.obs import ObsReader
from scdiff_data.base import ArrayPool, DiskWatch, ask_for, explain_damage, identify_file
from scdiff_data.errors import ManifestError

_MOST_MAPS = 40_000
"""Archives mapped at a time, a map each: Linux lets a process have 65,530; shards take some."""

_Places = NDArray[np.integer[Any]]
"""Whole numbers, one a row."""


class OtherTotal(ManifestError):
    """A row adds up to what its archive says is its cell's total, and the caller's is another one.

    Parameters
    ----------
    path
        The archive.
    row
        The row there.
    place
        Its place among the rows asked for.
    given, own
        The total that the caller has, and the archive's.
    """

    def __init__(self, path: Path, row: int, *, place: int, given: int, own: int) -> None:
        super().__init__(f"a cell's total_counts is {given}, row {row} of {path} has {own}")
        self.place = place


class _MappedArchive(NamedTuple):
    """An archive in memory, and of each of its rows whether it was looked at."""

    rows: CsrRows
    seen: NDArray[np.uint8]


class ArchiveRows:
    """Rows of many archives, gathered from their memory maps.

    Each process maps an archive when it is first asked for one of its rows. What is pickled or
    inherited by a fork holds no open file. Where rows come from the disk, the system is told of all
    rows of a gather before the first is read.

    Parameters
    ----------
    paths
        The archives. A row is named by its archive's place in this list, and its place there.
    are_exact
        Of each, whether its rows hold all counts of their cells: then they add up to the cells'
        totals, else to what the archive says, or to no more where an older one says nothing. Bool
        [n_archives].

    Raises
    ------
    FileNotFoundError
        If one of them is not there.
    """

    def __init__(self, paths: Sequence[Path], are_exact: NDArray[np.bool_]) -> None:
        self._paths, self._are_exact = list(paths), are_exact
        self._identities = [identify_file(path) for path in self._paths]
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_paths", "_are_exact", "_identities")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._maps: dict[int, _MappedArchive] = {}
        self.watch = DiskWatch()
        self._addresses = np.zeros((len(self._paths), 8), np.int64)
        self._pools = {name: ArrayPool() for name in ("indices", "data", "dense")}

    def gather(
        self, archives: _Places, rows: _Places, totals: _Places
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int16]]:
        """Rows as CSR: indptr [n + 1] and indices, int32 if the archives' are, and data int16.

        Parameters
        ----------
        archives, rows
            Which rows, [n].
        totals
            Their cells' total counts, [n].

        Raises
        ------
        ManifestError
            If an archive is damaged or was replaced, or there is no such row.
        OtherTotal
            If the archive is whole, and a total is not that of its cell.
        """
        places, starts, is_wide = self._find(archives, rows, totals)
        index_type = np.int64 if is_wide or starts[-1] >= 2**31 else np.int32
        n_values = (int(starts[-1]),)
        indices = self._pools["indices"].take(n_values, index_type)
        data = self._pools["data"].take(n_values, np.int16)
        if not copy_rows(places, starts, indices, data):
            self._explain(archives, rows, totals)
        self.watch.look()
        return starts.astype(index_type), indices, data

    def gather_dense(
        self, archives: _Places, rows: _Places, totals: _Places, n_genes: int
    ) -> NDArray[np.int16]:
        """Rows as dense counts, int16 [n, n_genes]; takes and raises what `gather` does."""
        places, _, _ = self._find(archives, rows, totals)
        dense = self._pools["dense"].take((len(rows), n_genes), np.int16)
        if not scatter_rows(places, dense):
            self._explain(archives, rows, totals)
        self.watch.look()
        return dense

    def ask_for(self, archives: _Places, rows: _Places) -> None:
        """Start to fetch rows that a later `gather` takes, but for a probe at times."""
        self._map_missing(archives)
        chosen = self.watch.choose(np.arange(len(rows)))
        asked = archives[chosen], rows[chosen]
        self.watch.tell(ask_for_rows, self._addresses, *asked, kept=self._maps)

    def _find(
        self, archives: _Places, rows: _Places, totals: _Places
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """Where rows lie and start, see `find_rows`, and whether indices of theirs are int64."""
        self._map_missing(archives)
        if self.watch.is_cold and self.watch.asks_itself:
            self.ask_for(archives, rows)
        places, starts = np.empty((len(rows), 8), np.int64), np.empty(len(rows) + 1, np.int64)
        where = (self._addresses, archives, rows, totals, self._are_exact)
        state = find_rows(*where, places, starts)
        if state == MISSING:
            self._explain(archives, rows, totals)
        return places, starts, state == WIDE

    def _explain(self, archives: _Places, rows: _Places, totals: _Places) -> NoReturn:
        """Say which of the rows is damaged, and what is wrong with it."""
        for place, (archive, row, total) in enumerate(zip(archives, rows, totals, strict=True)):
            cells, path = self._maps[archive].rows, self._paths[archive]
            if not 0 <= row < len(cells.indptr) - 1:
                raise ManifestError.damaged(
                    path, f"it has {len(cells.indptr) - 1} rows, row {row} is asked for"
                )
            part = slice(cells.indptr[row], cells.indptr[row + 1])
            genes, added = cells.indices[part], cells.data[part].sum(dtype=np.int64)
            if len(genes) and not 0 <= genes.min() <= genes.max() < cells.n_genes:
                found = f"{genes.min()} … {genes.max()}"
                raise ManifestError.damaged(path, f"row {row} has genes {found} of {cells.n_genes}")
            is_exact, given = self._are_exact[archive], int(total)
            if cells.sums is not None:
                total, is_exact = cells.sums[row], True
            if added > total or (added < total and is_exact):
                own = _read_total(path, row)
                if cells.sums is None and (added == own or (added < own and not is_exact)):
                    raise OtherTotal(path, row, place=place, given=given, own=own)
                raise ManifestError.damaged(path, f"row {row} has {added} counts, not {total}")
        raise AssertionError("a row that was refused is right")

    def _map_missing(self, archives: _Places) -> None:
        if len(self._maps) == len(self._paths):
            return
        missing = [archive for archive in np.unique(archives) if archive not in self._maps]
        if len(self._maps) + len(missing) > _MOST_MAPS:
            # Those mapped first go. Not in place: a hint on its way still reads by the old ones.
            gone = set(list(self._maps)[: max(len(missing), _MOST_MAPS // 4)])
            self._maps = {a: mapped for a, mapped in self._maps.items() if a not in gone}
            self._addresses = self._addresses.copy()
            missing = [archive for archive in np.unique(archives) if archive not in self._maps]
        for archive in missing:
            self._map(int(archive))

    def _map(self, archive: int) -> None:
        path = self._paths[archive]
        try:
            rows = map_matrix(path, at_random=True)
            is_same = identify_file(path) == self._identities[archive]
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise ManifestError.replaced(path)
        seen = np.zeros(len(rows.indptr), np.uint8)
        self._maps[archive] = _MappedArchive(rows, seen)
        ask_for(rows.indptr)
        arrays = rows.indptr, rows.indices, rows.data
        self._addresses[archive, :3] = [array.ctypes.data for array in arrays]
        self._addresses[archive, 3] = rows.indptr.dtype == np.int64
        self._addresses[archive, 4:7] = rows.n_genes, len(rows.indptr) - 1, seen.ctypes.data
        self._addresses[archive, 7] = 0 if rows.sums is None else rows.sums.ctypes.data


def _read_total(path: Path, row: int) -> int:
    """A cell's total counts, as its archive has them."""
    with explain_damage(path), ObsReader(path) as obs:
        return int(obs.read("total_counts", row, row + 1)[0])
