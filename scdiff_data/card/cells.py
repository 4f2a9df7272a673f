"""The table of cells, read once, some row groups at a time: what cells there are.

Cells stand in random order in each split, so of very many evenly spaced row groups tell as much.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scdiff_data.base import explain_damage

_EXACT = 1 << 16
"""Whole numbers below it are counted one by one, larger ones within a part in 5,900."""

_STEPS = 1 << 12
"""Steps that a doubling has above."""

_LARGEST = 31
"""A whole number is taken to be below two to the power of this."""


MOST_CELLS = 4_000_000
"""Cells that are read, about: some seconds' work. Of more, every second row group or fewer."""


class Spread:
    """How whole numbers are spread: a histogram fine enough to give any quantile."""

    def __init__(self) -> None:
        self._n_of = np.zeros(_EXACT + (_LARGEST - 16) * _STEPS + 1, np.int64)

    def add(self, values: NDArray[np.integer[Any]]) -> None:
        """Take in some values, from 0 on."""
        values = np.clip(values, 0, (1 << _LARGEST) - 1).astype(np.int64)
        is_large = values >= _EXACT
        places = values
        if is_large.any():
            steps = (np.log2(np.maximum(values, _EXACT)) - 16) * _STEPS
            places = np.where(is_large, _EXACT + steps.astype(np.int64), values)
        found = np.bincount(places)
        self._n_of[: len(found)] += found

    @property
    def n(self) -> int:
        """How many values there are."""
        return int(self._n_of.sum())

    def quantile(self, fraction: float) -> int:
        """The value that this fraction of the values does not exceed; 0 without any."""
        place = int(np.searchsorted(np.cumsum(self._n_of), max(fraction * self.n, 1)))
        return int(self._values(np.array([place]))[0]) if self.n else 0

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many values are between each two edges."""
        places = np.flatnonzero(self._n_of)
        weights = self._n_of[places]
        return np.histogram(self._values(places), edges, weights=weights)[0]

    def to_dict(self) -> dict[str, int]:
        """The least, the most and what is between."""
        named = {"least": 0.0, "tenth": 0.1, "median": 0.5, "nine_tenths": 0.9, "most": 1.0}
        return {name: self.quantile(fraction) for name, fraction in named.items()}

    @staticmethod
    def _values(places: NDArray[np.int64]) -> NDArray[np.int64]:
        large = np.exp2(16 + (places - _EXACT) / _STEPS)
        return np.where(places < _EXACT, places, large).astype(np.int64)


@dataclass
class Numbers:
    """A label that is numbers."""

    n: int = 0
    least: float = np.inf
    most: float = -np.inf
    total: float = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Take in some values, none of them missing."""
        if len(values):
            self.n += len(values)
            self.least = min(self.least, float(values.min()))
            self.most = max(self.most, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))


@dataclass
class Cells:
    """What the table of cells says.

    Parameters
    ----------
    n_cells
        Rows that were read.
    n_in_table
        Rows of the table.
    counts, genes
        Counts and genes a cell.
    experiments
        Cells of each experiment.
    values
        Of each label that is texts, cells of each value.
    numbers
        Of each label that is numbers, their range.
    """

    n_cells: int = 0
    n_in_table: int = 0
    counts: Spread = field(default_factory=Spread)
    genes: Spread = field(default_factory=Spread)
    experiments: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)

    def count_missing(self, label: str) -> int:
        """Cells without a value of a label, of all there are."""
        known = self.values.get(label)
        n = self.numbers[label].n if known is None else known.total()
        return self.scale(self.n_cells - n)

    def scale(self, n: int) -> int:
        """How many of all cells that so many of those read stand for."""
        return n if self.n_cells == self.n_in_table else round(n * self.n_in_table / self.n_cells)

    def rank(self, found: Counter[str]) -> dict[str, int]:
        """Values with their numbers of all cells, the most first."""
        return {name: self.scale(n) for name, n in found.most_common()}


def read_cells(path: Path, labels: Sequence[str]) -> Cells:
    """Read the columns that are needed of `cells.parquet`.

    Raises
    ------
    FileNotFoundError, ManifestError
        If it is missing or damaged.
    """
    cells = Cells()
    columns = ["experiment_id", "total_counts", "n_genes", *labels]
    with explain_damage(path), pq.ParquetFile(path) as table:
        kinds = _tell_kinds(table.schema_arrow, labels)
        for name, is_number in kinds.items():
            if is_number:
                cells.numbers[name] = Numbers()
            else:
                cells.values[name] = Counter()
        cells.n_in_table = table.metadata.num_rows
        step = -(-cells.n_in_table // MOST_CELLS)
        for number in range(0, table.num_row_groups, max(step, 1)):
            part = table.read_row_group(number, columns=columns)
            cells.n_cells += len(part)
            cells.counts.add(part["total_counts"].to_numpy())
            cells.genes.add(part["n_genes"].to_numpy())
            cells.experiments.update(_count(part["experiment_id"]))
            for name, is_number in kinds.items():
                if is_number:
                    known = part[name].cast(pa.float64()).drop_null().to_numpy()
                    cells.numbers[name].add(known[~np.isnan(known)])
                else:
                    cells.values[name].update(_count(part[name]))
    return cells


def _tell_kinds(schema: pa.Schema, labels: Sequence[str]) -> Mapping[str, bool]:
    """Of each label, whether it is numbers."""
    types = {name: schema.field(name).type for name in labels}
    return {n: pa.types.is_integer(t) or pa.types.is_floating(t) for n, t in types.items()}


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    """How many cells have each value; those without any are left out."""
    found: Counter[str] = Counter()
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            n_of = np.bincount(
                chunk.indices.drop_null().to_numpy(), minlength=len(chunk.dictionary)
            )
            words = chunk.dictionary.to_pylist()
            found.update({str(w): int(n) for w, n in zip(words, n_of, strict=True) if n})
            continue
        for entry in pc.value_counts(chunk).to_pylist():
            if entry["values"] is not None:
                found[str(entry["values"])] += entry["counts"]
    return found
