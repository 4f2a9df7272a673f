"""Rows as tensors: datasets over a data directory.

Datasets are map-style and hold no open file. With an array of rows they gather a whole batch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from scdiff_data.base import DiskWatch
from scdiff_data.loading.split_view import SplitView, open_archives
from scdiff_data.reading import GeneAxis
from scdiff_data.store import Manifest

Index = int | slice | Sequence[int] | NDArray[np.integer[Any]] | Tensor
"""What datasets are indexed with: a cell, or rows of a batch."""


class CellBatch(NamedTuple):
    """Cells as they come from a dataset.

    Parameters
    ----------
    expression
        Counts, int16 [b, g].
    metadata
        `cell_id` and `experiment_id`, `LazyStrings` [b]; `total_counts`, int32 [b], of the whole
        cell over all its genes; and the labels asked for [b]: codes into the dataset's
        `categories`, int64, -1 where missing, or the numbers themselves. Where the data were
        prepared with `fallback_min_genes`, also `gene_ids`, int64 [b, g]: which gene each place
        holds, by its row in `metadata/genes.parquet`.
    """

    expression: Tensor
    metadata: dict[str, Any]


class TokenBatch(NamedTuple):
    """Cells as tokens.

    Parameters
    ----------
    tokens
        [b, g]: int64 from a DataModule, on the batch's device; uint8 or int16 on the way there.
    metadata
        As in a `CellBatch`. `counts` are what the tokens stand for, [b, g]: in validation and test
        batches of a DataModule, and in training with `train_counts`.
    """

    tokens: Tensor
    metadata: dict[str, Any]


class HVGDataset(Dataset[CellBatch]):
    """The chosen genes of every drawn cell, from the shards.

    Parameters
    ----------
    folder
        A data directory, or its `processed` folder.
    split
        `train`, `val` or `test`; None takes all cells.
    n_hvgs
        The best so many of the stored genes; None takes all of them.
    labels
        Labels to carry in the metadata; None takes all that are stored.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If a file of it is missing or damaged.
    ValueError
        If there are fewer genes, or no such split or label.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        split: str | None = None,
        n_hvgs: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        manifest = Manifest.read(folder)
        manifest.check_files(manifest.directory.shards)
        self._cells = SplitView(manifest, split, labels)
        stored = len(self._cells.shards.gene_ids)
        if n_hvgs is not None and not 1 <= n_hvgs <= stored:
            raise ValueError(
                f"n_hvgs={n_hvgs}, but {manifest.data_dir} stores {stored} genes a cell: ask for "
                f"at most {stored}, or prepare with data.n_hvgs={n_hvgs}"
            )
        self.n_genes = n_hvgs or stored
        self.labels = self._cells.labels
        self.categories = self._cells.categories

    @property
    def gene_ids(self) -> list[str]:
        """Ids of the genes in the order of the columns."""
        return self._cells.shards.gene_ids[: self.n_genes]

    @property
    def gene_symbols(self) -> list[str]:
        """Symbols of the genes in the order of the columns."""
        return self._cells.shards.gene_symbols[: self.n_genes]

    @property
    def gene_places(self) -> list[int] | None:
        """The genes' rows in `metadata/genes.parquet`, where places may hold others; else None."""
        shards = self._cells.shards
        return shards.gene_indices[: self.n_genes].tolist() if shards.has_fallback else None

    def __repr__(self) -> str:
        return self._cells.describe(type(self).__name__, self.n_genes)

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def cells_key(self) -> int:
        """A number that other cells, or another order of them, would not have."""
        return self._cells.key

    def read_ids(self, name: str = "cell_id") -> NDArray[np.str_]:
        """Every cell's id, or `experiment_id`, in the order of the rows."""
        return self._cells.read_ids(name)

    def __getitem__(self, index: Index) -> CellBatch:
        """Gather cells; an int gives one cell, without the first dimension."""
        if isinstance(index, int | np.integer):
            return _first(self[[int(index)]])
        expression, metadata = self._cells.read_counts(_to_rows(index, len(self)), self.n_genes)
        return CellBatch(torch.from_numpy(expression), metadata)

    @property
    def is_compact(self) -> bool:
        """Whether shards hold only counts above 0."""
        return self._cells.shards.is_compact

    def read_tokens(self, index: Index, count_table: NDArray[Any]) -> TokenBatch:
        """Gather cells as `count_table[counts]`, which never stand in memory; see `BinTokens`."""
        rows = _to_rows([index] if isinstance(index, int) else index, len(self))
        tokens, metadata = self._cells.read_counts(rows, self.n_genes, count_table)
        return TokenBatch(torch.from_numpy(tokens), metadata)

    def read_classes(self, name: str) -> NDArray[np.integer[Any]]:
        """Each cell's value of a label or `experiment_id`, numbered from 0, as `balance` takes it.

        Raises
        ------
        ValueError
            If there is no such label.
        """
        return self._cells.read_classes(name)

    def __getitems__(self, indices: Sequence[int]) -> list[CellBatch]:
        """Gather a batch, as a list of one; a plain DataLoader calls this, see `collate`."""
        return [self[indices]]

    @property
    def watch(self) -> DiskWatch:
        """Whether rows come from the disk."""
        return self._cells.shards.watch

    def ask_for(self, rows: NDArray[np.int64]) -> None:
        """Start to fetch the counts of rows that will be gathered."""
        self._cells.shards.ask_for(rows, within=self._cells.rows)

    def ask_for_runs(self, runs: NDArray[np.int64]) -> None:
        """The same of runs of rows: the first of each, and the one after its last, int64 [n, 2]."""
        self._cells.shards.ask_for_runs(runs, within=self._cells.rows)

    def ask_for_columns(self, runs: NDArray[np.int64]) -> None:
        """Start to fetch what else batches hold of runs, and where their counts lie."""
        self._cells.shards.ask_for_columns(runs, within=self._cells.rows)


class ScRNADataset(Dataset[CellBatch]):
    """All genes of every drawn cell, from the archive, in the same order as `HVGDataset`.

    Parameters
    ----------
    folder
        A data directory, or its `processed` folder.
    split
        `train`, `val` or `test`; None takes all cells.
    sparse
        Whether `expression` is a sparse CSR tensor; else it is dense.
    labels
        Labels to carry in the metadata; None takes all that are stored.

    Raises
    ------
    FileNotFoundError, ManifestError, ValueError
        As `HVGDataset`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        split: str | None = None,
        sparse: bool = False,
        labels: Sequence[str] | None = None,
    ) -> None:
        manifest = Manifest.read(folder)
        directory = manifest.directory
        manifest.check_files(directory.shards)
        self._cells = SplitView(manifest, split, labels)
        self._sparse = sparse
        self.labels = self._cells.labels
        self.categories = self._cells.categories
        found = open_archives(manifest, self._cells.rows)
        self._archives, self._archive, self._archive_row = found
        axis = GeneAxis.read(directory.genes)
        self.gene_ids = list(axis.ids)
        self.gene_symbols = list(axis.symbols)
        self.n_genes = len(axis)

    def __repr__(self) -> str:
        return self._cells.describe(type(self).__name__, self.n_genes)

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def cells_key(self) -> int:
        """A number that other cells, or another order of them, would not have."""
        return self._cells.key

    def read_ids(self, name: str = "cell_id") -> NDArray[np.str_]:
        """Every cell's id, or `experiment_id`, in the order of the rows."""
        return self._cells.read_ids(name)

    def __getitem__(self, index: Index) -> CellBatch:
        """Gather cells; an int gives one cell, without the first dimension (dense only)."""
        if isinstance(index, int | np.integer):
            return _first(self[[int(index)]])
        rows = _to_rows(index, len(self))
        metadata = self._cells.read_metadata(rows)
        totals = metadata["total_counts"].numpy()
        places = self._archive[rows], self._archive_row[rows], totals
        shape = (len(rows), self.n_genes)
        if self._sparse:
            crow, column, values = map(torch.from_numpy, self._archives.gather(*places))
            expression = torch.sparse_csr_tensor(
                crow, column, values, shape, check_invariants=False
            )
        else:
            expression = torch.from_numpy(self._archives.gather_dense(*places, self.n_genes))
        return CellBatch(expression, metadata)

    def read_classes(self, name: str) -> NDArray[np.integer[Any]]:
        """Each cell's value of a label or `experiment_id`, numbered from 0, as `balance` takes it.

        Raises
        ------
        ValueError
            If there is no such label.
        """
        return self._cells.read_classes(name)

    def __getitems__(self, indices: Sequence[int]) -> list[CellBatch]:
        """Gather a batch, as a list of one; a plain DataLoader calls this, see `collate`."""
        return [self[indices]]

    @property
    def watch(self) -> DiskWatch:
        """Whether rows come from the disk."""
        return self._archives.watch

    def ask_for(self, rows: NDArray[np.int64]) -> None:
        """Start to fetch the counts of rows that will be gathered."""
        self._archives.ask_for(self._archive[rows], self._archive_row[rows])


def _to_rows(index: slice | Sequence[int] | NDArray[Any] | Tensor, n: int) -> NDArray[np.int64]:
    """Row numbers; negative ones count from the end."""
    return np.asarray(np.arange(*index.indices(n)) if isinstance(index, slice) else index, np.int64)


def _first(batch: CellBatch) -> CellBatch:
    return CellBatch(batch.expression[0], {name: c[0] for name, c in batch.metadata.items()})
