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

_BINS_AN_OCTAVE = 64
"""Bins between a number and its double: a quantile is right within one percent."""

EDGES = 2 ** (np.arange(32 * _BINS_AN_OCTAVE + 1) / _BINS_AN_OCTAVE)
"""Of the bins of total counts and of genes a cell, float64 [n_bins + 1]."""

Numbers = NDArray[np.int64]
"""Cells of each split, int64 [3], or of each bin."""


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
    """

    n_missing: Numbers = field(default_factory=lambda: np.zeros(len(SPLITS), np.int64))
    n_of: dict[str, Numbers] = field(default_factory=dict)
    ends: tuple[float, float] | None = None

    def list_values(self) -> list[tuple[str, Numbers]]:
        """Values and their cells, the most frequent first."""
        return sorted(self.n_of.items(), key=lambda item: (-item[1].sum(), item[0]))


@dataclass(frozen=True)
class CellSurvey:
    """All cells of a prepared directory.

    Parameters
    ----------
    total_counts, n_genes
        Of each split, how many cells lie between two `EDGES`; int64 [3, n_bins].
    experiments
        Of each experiment, its cells of each split; int64 [3].
    mean_logs
        Of each experiment, the mean of log(total counts): its exponential is a typical depth.
    labels
        The labels.
    """

    total_counts: Numbers
    n_genes: Numbers
    experiments: Mapping[str, Numbers]
    mean_logs: Mapping[str, float]
    labels: Mapping[str, LabelSurvey]


def survey_cells(manifest: Manifest) -> CellSurvey:
    """Look at every cell of a directory once.

    Raises
    ------
    ManifestError
        If the table of cells is damaged.
    """
    path = manifest.directory.cells
    shape = (len(SPLITS), len(EDGES) - 1)
    totals, genes = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    experiments, logs = LabelSurvey(), dict[str, float]()
    with explain_damage(path), pq.ParquetFile(path, page_checksum_verification=True) as table:
        names = [name for name in manifest.recipe["labels"] if name in table.schema_arrow.names]
        labels = {name: LabelSurvey() for name in names}
        for batch in table.iter_batches(columns=list(dict.fromkeys([*_OWN, *names]))):
            split = _read_splits(batch["split"])
            total = batch["total_counts"].to_numpy()
            _add_bins(totals, split, total)
            _add_bins(genes, split, batch["n_genes"].to_numpy())
            _add_values(experiments, batch["experiment_id"], split)
            codes = batch["experiment_id"]
            sums = np.bincount(codes.indices.to_numpy(), np.log(np.maximum(total, 1)))
            for name, own in zip(codes.dictionary.to_pylist(), sums, strict=False):
                logs[name] = logs.get(name, 0.0) + float(own)
            for name, survey in labels.items():
                _add_values(survey, batch[name], split)
    n_cells = {name: int(n.sum()) for name, n in experiments.n_of.items()}
    mean_logs = {name: logs[name] / n for name, n in n_cells.items() if n}
    return CellSurvey(totals, genes, experiments.n_of, mean_logs, labels)


def find_quantiles(n_of_bin: Numbers, *fractions: float) -> list[float]:
    """Quantiles of values that were counted between `EDGES`; 0 where there are none."""
    ends = np.cumsum(n_of_bin)
    if not ends[-1]:
        return [0.0 for _ in fractions]
    bins = np.searchsorted(ends, np.array(fractions) * ends[-1]).clip(max=len(ends) - 1)
    return [float(value) for value in np.sqrt(EDGES[bins] * EDGES[bins + 1])]


def _read_splits(column: pa.DictionaryArray) -> NDArray[np.int64]:
    """Places in `SPLITS`."""
    places = np.array([SPLITS.index(name) for name in column.dictionary.to_pylist()], np.int64)
    own: NDArray[np.int64] = places[column.indices.to_numpy()]
    return own


def _add_bins(n_of_bin: Numbers, split: NDArray[np.int64], values: NDArray[Any]) -> None:
    octaves = np.log2(np.maximum(values, 1))
    bins = (octaves * _BINS_AN_OCTAVE).astype(np.int64).clip(max=n_of_bin.shape[1] - 1)
    np.add.at(n_of_bin, (split, bins), 1)


def _add_values(survey: LabelSurvey, column: pa.Array, split: NDArray[np.int64]) -> None:
    is_missing = column.is_null().to_numpy(zero_copy_only=False)
    survey.n_missing += np.bincount(split[is_missing], minlength=len(SPLITS))
    column, split = column.drop_null(), split[~is_missing]
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.to_numpy(zero_copy_only=False)
        if len(values):
            low, high = survey.ends or (np.inf, -np.inf)
            survey.ends = float(min(low, values.min())), float(max(high, values.max()))
        return
    if not pa.types.is_dictionary(kind):
        column = column.cast(pa.string()).dictionary_encode()
    n = np.zeros((len(column.dictionary), len(SPLITS)), np.int64)
    np.add.at(n, (column.indices.to_numpy(), split), 1)
    for value, own in zip(column.dictionary.to_pylist(), n, strict=True):
        if own.any():
            survey.n_of[value] = survey.n_of.get(value, 0) + own
