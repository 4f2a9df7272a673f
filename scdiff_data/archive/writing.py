"""The kept cells of a source's experiments, each experiment's into an archive of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.archive.cell_totals import CellSums
from scdiff_data.archive.file import ARCHIVED, RowStore, close_gap, lay_out_archive, open_room
from scdiff_data.archive.transpose import is_ascending, sort_rows, transpose
from scdiff_data.archive.word_order import sort_naturally
from scdiff_data.base import FrameParts, Workers, write_aside
from scdiff_data.reading import GeneAxis, SourceMatrix

_COPIED_AT_ONCE = 1 << 22
"""Values that go from one file to another at a time: 24 MB."""


def name_cells(experiment_id: str, barcodes: pd.Index) -> list[str]:
    """Ids of an experiment's cells, unique among all experiments."""
    return [f"{experiment_id}_{barcode}" for barcode in barcodes]


@dataclass(frozen=True)
class CountedCells:
    """A source file whose cells are counted.

    Parameters
    ----------
    matrix, obs
        Its counts, and its cells' columns.
    target
        Each gene's place on the reference axis, or -1.
    sums
        What each cell adds up to.
    axis
        The reference genes.
    workers
        Threads that fill.
    """

    matrix: SourceMatrix
    obs: pd.DataFrame
    target: NDArray[np.int32]
    sums: CellSums
    axis: GeneAxis
    workers: Workers

    def write(
        self, rows_of: Mapping[str, NDArray[np.int64]], targets: Mapping[str, Path]
    ) -> dict[str, int]:
        """Write archives, and count what saturated where repeated genes were summed, in each.

        They are on their way to the disk, which is not waited for.

        Parameters
        ----------
        rows_of
            The cells of each experiment, ascending.
        targets
            Where the experiments' archives go.
        """
        if len(rows_of) == 1:
            ((experiment_id, rows),) = rows_of.items()
            return {experiment_id: self._write(experiment_id, rows, targets, self._transpose(rows))}
        if not rows_of:
            return {}
        # All experiments' cells in one pass, an experiment after another, into one room.
        bounds = np.cumsum([0, *(self.sums.n_values[rows].sum() for rows in rows_of.values())])
        n_saturated = {}
        with open_room(next(iter(targets.values())).parent, int(bounds[-1])) as room:
            self._transpose(np.concatenate(list(rows_of.values())))(room)
            indices, data = room.map()
            for (experiment_id, rows), (start, stop) in zip(
                rows_of.items(), pairwise(bounds.tolist()), strict=True
            ):
                copy = partial(_copy, indices[start:stop], data[start:stop])
                n_saturated[experiment_id] = self._write(experiment_id, rows, targets, copy)
        return n_saturated

    def _transpose(self, rows: NDArray[np.int64]) -> Callable[[RowStore], None]:
        known = (self.matrix, self.target, rows, self.sums)
        return partial(transpose, *known, workers=self.workers)

    def _write(
        self,
        experiment_id: str,
        rows: NDArray[np.int64],
        targets: Mapping[str, Path],
        fill: Callable[[RowStore], None],
    ) -> int:
        """Write one archive, whose values `fill` puts into their room."""
        lost = self.sums.lost[rows]
        obs = self._choose_columns(experiment_id, rows, lost)
        starts = np.concatenate([[0], np.cumsum(self.sums.n_values[rows])])
        with (
            write_aside(targets[experiment_id], flushes=False) as aside,
            lay_out_archive(aside, starts, obs, self.axis) as store,
        ):
            fill(store)
            if self.sums.is_sorted and is_ascending(self.target):
                return 0
            indices, data = store.map()
            n_merged, more_lost, n_saturated = sort_rows(starts, indices, data)
            if n_merged.sum() < starts[-1]:
                obs = self._choose_columns(experiment_id, rows, lost + more_lost)
                close_gap(aside, n_merged, indices, data, obs, self.axis)
        return int(n_saturated)

    def _choose_columns(
        self, experiment_id: str, rows: NDArray[np.int64], lost: NDArray[np.int64]
    ) -> FrameParts:
        """The source's columns of some cells, as `_plain` has them, under our own."""
        own: dict[str, Callable[[], Any]] = {
            "experiment_id": lambda: pd.Categorical([experiment_id]).repeat(len(rows)),
            "total_counts": lambda: self.sums.totals[rows],
            "n_genes": lambda: self.sums.n_genes[rows].astype(np.int32),
        }
        if lost.any() or (self.target < 0).any():  # by which readers know a damaged row
            own[ARCHIVED] = lambda: self.sums.totals[rows] - lost
        index = "_index" if "cell_id" in self.obs else "cell_id"
        theirs = self.obs.columns.difference([*own, ARCHIVED, index], sort=False)
        columns = {
            str(name): partial(self._read_column, name, rows)
            for name in theirs
            if name and "/" not in name and set(name) != {"."}  # else no name in HDF5
        }

        def read_ids(start: int, stop: int) -> list[str]:
            return name_cells(experiment_id, self.obs.index[rows[start:stop]])

        return FrameParts(len(rows), index, read_ids, own | columns)

    def _read_column(self, name: str, rows: NDArray[np.int64]) -> Any:
        return _plain(pd.Series(self.obs[name].array[rows]))


def _copy(indices: NDArray[Any], data: NDArray[np.int16], store: RowStore) -> None:
    for start in range(0, len(data), _COPIED_AT_ONCE):
        part = slice(start, start + _COPIED_AT_ONCE)
        store.write(start, indices[part].astype(store.index_type, copy=False), data[part])


def _plain(column: pd.Series) -> NDArray[Any] | pd.Categorical:
    """A column in the types that every reader knows.

    Numbers and booleans as numpy has them, missing whole numbers as NaN; all else as a categorical
    of texts without blanks around them, booleans with gaps among it. What is blank is missing. A
    categorical keeps its order; other texts are in natural order.
    """
    is_bool = pd.api.types.is_bool_dtype(column)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufc":
        return column.to_numpy()
    if pd.api.types.is_numeric_dtype(column) and not (is_bool and column.isna().any()):
        kind = getattr(column.dtype, "numpy_dtype", np.dtype(np.float64))
        if column.isna().any():
            return column.to_numpy(np.float64, na_value=np.nan)
        return column.to_numpy(kind)
    is_categorical = isinstance(column.dtype, pd.CategoricalDtype)
    codes: NDArray[Any]
    if not is_categorical:
        codes, values = pd.factorize(column)
    else:
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
        if values.dtype.kind == "f" and (values == np.rint(values)).all():
            values = values.astype(np.int64)  # as the same numbers of another file read
    texts = [str(text).strip() for text in pd.Index(values).astype("string")]
    if is_bool:  # as booleans without gaps read as a label
        texts = [text.lower() for text in texts]
    found = {texts[code] for code in np.unique(codes[codes >= 0]).tolist()}
    words = [text for text in dict.fromkeys(texts) if text and text in found]
    if not is_categorical or is_bool:
        words = sort_naturally(words)
    place_of = {word: place for place, word in enumerate(words)}
    places = np.array([*(place_of.get(text, -1) for text in texts), -1])
    return pd.Categorical.from_codes(places[codes], pd.Index(words, dtype=object))
