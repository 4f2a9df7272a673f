"""The drawn cells: where each is in the archives, and which place it has in the shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DrawnCells:
    """The drawn cells, by their global rows: training cells first, then validation, then test.

    Parameters
    ----------
    path
        Their table, `cells.parquet`; a cell's global row is its row there.
    n_cells, n_experiments
        Cells of each split, in their order, and experiments that these are from.
    rows
        Of each experiment with drawn cells, in the order of their ids: of each of its archive's
        rows the global row, -1 if it was not drawn. int32 where that is enough.
    words
        Of each label that is texts, its words in the order of their codes.
    """

    path: Path
    n_cells: Mapping[str, int]
    n_experiments: Mapping[str, int]
    rows: Mapping[str, NDArray[np.integer[Any]]]
    words: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return sum(self.n_cells.values())

    def count_drawn(self, experiment_id: str) -> int:
        """Cells that were drawn from an experiment."""
        rows = self.rows.get(experiment_id)
        return 0 if rows is None else int((rows >= 0).sum())

    def splits_of(self, experiment_id: str) -> NDArray[np.int8]:
        """Of each of an archive's rows the split: 0 train, 1 val, 2 test, -1 not drawn."""
        rows = self.rows[experiment_id]
        ends = np.cumsum(list(self.n_cells.values()))
        splits = np.searchsorted(ends, rows, side="right").astype(np.int8)
        splits[rows < 0] = -1
        return splits
