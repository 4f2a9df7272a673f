"""What the table of cells says of all cells, in memory that does not grow with their number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scdiff_data.base import explain_damage
from scdiff_data.constants import SPLITS
from scdiff_data.store import Manifest

_OWN = ("experiment_id", "split", "total_counts", "n_genes")
"""Columns that every table of cells has, beside its labels."""

_EXACT = 1 << 16
"""Whole numbers below it are counted one by one, larger ones within a part in 5,900."""

_STEPS = 1 << 12
"""Steps that a doubling has above."""

_LARGEST = 31
"""A whole number is taken to be below two to the power of this."""

Numbers = NDArray[np.int64]
"""Cells of each split, int64 [3], or codes of splits."""


class Spread:
    """How whole numbers are spread in each split: histograms fine enough to give any quantile."""

    def __init__(self) -> None:
        self._n_of = np.zeros((len(SPLITS), _EXACT + (_LARGEST - 16) * _STEPS + 1), np.int64)

    def add(self, values: NDArray[np.integer[Any]], split: Numbers) -> None:
        """Take in some values, from 0 on, and the split of each."""
        places = np.clip(values, 0, (1 << _LARGEST) - 1).astype(np.int64)
        is_large = places >= _EXACT
        places[is_large] = _EXACT + (np.log2(places[is_large]) - 16) * _STEPS
        np.add.at(self._n_of.reshape(-1), split * self._n_of.shape[1] + places, 1)

    def quantile(self, fraction: float, split: int | None = None) -> int:
        """The value that this fraction does not exceed, of a split or of all; 0 without any."""
        ends = np.cumsum(self._n_of.sum(0) if split is None else self._n_of[split])
        place = int(np.searchsorted(ends, max(fraction * ends[-1], 1)))
        return int(self._values(np.array([place]))[0]) if ends[-1] else 0

    def histogram(self, edges: NDArray[np.float64]) -> Numbers:
        """How many values of each split are between each two edges, int64 [3, n_edges - 1]."""
        places = np.flatnonzero(self._n_of.any(0))
        values = self._values(places).clip(edges[0])
        return np.array([np.histogram(values, edges, weights=n[places])[0] for n in self._n_of])

    def to_dict(self) -> dict[str, int]:
        """The least, the most and what is between, of all splits."""
        named = {"least": 0.0, "tenth": 0.1, "median": 0.5, "nine_tenths": 0.9, "most": 1.0}
        return {name: self.quantile(fraction) for name, fraction in named.items()}

    @staticmethod
    def _values(places: NDArray[np.int64]) -> NDArray[np.int64]:
        large = np.exp2(16 + (places - _EXACT) / _STEPS)
        return np.where(places < _EXACT, places, large).astype(np.int64)


@dataclass
class LabelSurvey:
    """One label over all cells.

    Parameters
    ----------
    n_missing
        Cells without it, of each split.
    n_of
        Of a label of texts, the cells that have each value, of each split.
    ends
        Of a label of numbers, the lowest and the highest.
    mean
        And their mean.
    n_numbers
        How many numbers these are of.
    """

    n_missing: Numbers = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    n_of: dict[str, Numbers] = field(default_factory=dict)
    ends: tuple[float, float] | None = None
    mean: float = 0.0
    n_numbers: int = 0

    def list_values(self) -> list[tuple[str, Numbers]]:
        """Values and their cells, the most frequent first."""
        return sorted(self.n_of.items(), key=lambda item: (-item[1].sum(), item[0]))

    def add(self, column: pa.Array, split: Numbers) -> None:
        """Take in the label of some cells, and the split of each."""
        is_known = ~column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        self.n_missing += np.bincount(split[~is_known], minlength=len(SPLITS))
        column, split = column.filter(pa.array(is_known)), split[is_known]
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            self._add_numbers(column.to_numpy(zero_copy_only=False))
            return
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        n_values, n_splits = len(column.dictionary), len(SPLITS)
        codes = column.indices.to_numpy().astype(np.int64) * n_splits + split
        n_vs = np.bincount(codes, minlength=n_values * n_splits).reshape(n_values, n_splits)
        seen = np.flatnonzero(n_vs.any(1))
        values = column.dictionary.take(pa.array(seen)).to_pylist()
        for value, n in zip(values, n_vs[seen], strict=True):
            self.n_of[value] = self.n_of.get(value, 0) + n

    def scale(self, factor: float) -> None:
        """Let each of the cells read stand for so many; numbers have the same ends and mean."""
        self.n_missing = np.rint(self.n_missing * factor).astype(np.int64)
        self.n_of = {v: np.rint(n * factor).astype(np.int64) for v, n in self.n_of.items()}

    def _add_numbers(self, values: NDArray[Any]) -> None:
        if len(values):
            low, high = self.ends or (np.inf, -np.inf)
            self.ends = float(min(low, values.min())), float(max(high, values.max()))
            self.n_numbers += len(values)
            step = float(values.mean(dtype=np.float64)) - self.mean
            self.mean += step * len(values) / self.n_numbers


@dataclass(frozen=True)
class CellSurvey:
    """All cells of a prepared directory.

    Parameters
    ----------
    n_cells, n_read
        How many there are, and how many were read; what else is here is scaled to all.
    total_counts, n_genes
        Counts and genes a cell.
    experiments
        The experiments, as a label.
    mean_logs
        Of each experiment, the mean of log(total counts): its exponential is a typical depth.
    labels
        The labels.
    """

    n_cells: int
    n_read: int
    total_counts: Spread
    n_genes: Spread
    experiments: LabelSurvey
    mean_logs: Mapping[str, float]
    labels: Mapping[str, LabelSurvey]


def survey_cells(manifest: Manifest, *, most: int | None = None) -> CellSurvey:
    """Look at the cells of a directory once.

    Parameters
    ----------
    manifest
        The directory's.
    most
        Cells that are read, about; None: all. Of more, every second row group is, or fewer: cells
        stand in random order in each split, so these tell as much.

    Raises
    ------
    ManifestError
        If the table of cells is damaged.
    """
    path = manifest.directory.cells
    totals, genes = Spread(), Spread()
    experiments, logs, n_read = LabelSurvey(), dict[str, float](), 0
    with explain_damage(path), pq.ParquetFile(path, page_checksum_verification=True) as table:
        n_cells = table.metadata.num_rows
        step = 1 if most is None else max(-(-n_cells // most), 1)
        groups = list(range(0, table.num_row_groups, step))
        names = [name for name in manifest.recipe["labels"] if name in table.schema_arrow.names]
        labels = {name: LabelSurvey() for name in names}
        columns = list(dict.fromkeys([*_OWN, *names]))
        for batch in table.iter_batches(row_groups=groups, columns=columns):
            n_read += len(batch)
            split = _read_splits(batch["split"])
            total = batch["total_counts"].to_numpy()
            totals.add(total, split)
            genes.add(batch["n_genes"].to_numpy(), split)
            experiments.add(batch["experiment_id"], split)
            codes = batch["experiment_id"]
            sums = np.bincount(codes.indices.to_numpy(), np.log(np.maximum(total, 1)))
            for name, own in zip(codes.dictionary.to_pylist(), sums, strict=False):
                logs[name] = logs.get(name, 0.0) + float(own)
            for name, survey in labels.items():
                survey.add(batch[name], split)
    mean_logs = {name: logs[name] / int(n.sum()) for name, n in experiments.n_of.items()}
    if n_read < n_cells:
        for survey in (experiments, *labels.values()):
            survey.scale(n_cells / n_read)
    return CellSurvey(n_cells, n_read, totals, genes, experiments, mean_logs, labels)


def _read_splits(column: pa.DictionaryArray) -> Numbers:
    """Places in `SPLITS`."""
    places = np.array([SPLITS.index(name) for name in column.dictionary.to_pylist()], np.int64)
    own: Numbers = places[column.indices.to_numpy()]
    return own
