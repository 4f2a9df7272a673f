"""Cells as tokens, which are looked up while cells are gathered."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from scdiff_data.base import DiskWatch
from scdiff_data.loading.batches import TokenBatch, take_first
from scdiff_data.loading.dataset import HVGDataset
from scdiff_data.loading.split_view import Index


class TokenDataset(Dataset[TokenBatch]):
    """The same cells as tokens, a sixth of the work where shards are compact.

    Parameters
    ----------
    cells
        The cells.
    count_table
        What each count 0 … 32,767 becomes, uint8 or int16 [32768]: a tokenizer's `count_table`.
    """

    def __init__(self, cells: HVGDataset, count_table: NDArray[Any]) -> None:
        self._cells = cells
        self._count_table = count_table
        self.n_genes, self.is_compact = cells.n_genes, cells.is_compact
        self.ask_for, self.ask_for_runs = cells.ask_for, cells.ask_for_runs
        self.ask_for_columns, self.follow = cells.ask_for_columns, cells.follow
        self.cells_key = cells.cells_key

    def __repr__(self) -> str:
        return f"TokenDataset({self._cells!r})"

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: Index) -> TokenBatch:
        """Gather cells; an int gives one cell, without the first dimension."""
        batch: TokenBatch = next(self._cells.read_batches([index], self._count_table))
        return take_first(batch) if isinstance(index, int | np.integer) else batch

    def __getitems__(self, indices: Sequence[int]) -> list[TokenBatch]:
        """Gather a batch, as a list of one; a plain DataLoader calls this, see `collate`."""
        return [self[indices]]

    @property
    def watch(self) -> DiskWatch:
        """Whether rows come from the disk."""
        return self._cells.watch


def read_batches(dataset: Dataset[Any], batches: Iterable[NDArray[np.int64]]) -> Iterator[Any]:
    """A dataset's batches one after another, in the least time where it is one of these.

    A class that is made from these may do more with a batch: it is asked for each.
    """
    cells, table = dataset, None
    if type(dataset) is TokenDataset:
        cells, table = dataset._cells, dataset._count_table
    if type(cells) is HVGDataset:
        return cells.read_batches(batches, table)
    return map(dataset.__getitem__, batches)
