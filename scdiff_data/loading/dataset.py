"""Rows as tensors: datasets over a data directory.

Datasets are map-style and hold no open file. With an array of rows they gather a whole batch.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from torch.utils.data import Dataset

from scdiff_data.base import DiskWatch
from scdiff_data.fetching import Plan
from scdiff_data.loading.batches import CellBatch, TokenBatch, make_anndata, take_counts, take_first
from scdiff_data.loading.split_view import Index, SplitView, open_archives
from scdiff_data.reading import GeneAxis
from scdiff_data.store import Manifest

if TYPE_CHECKING:
    from anndata import AnnData

_DENSE_ROWS = 4096
"""Rows that are dense at a time on their way into an AnnData."""


class CellDataset(Dataset[CellBatch]):
    """The cells of a split, or all; which genes of theirs, a kind of dataset says.

    Parameters
    ----------
    manifest
        Of the data directory.
    split, labels
        As `HVGDataset`.

    Attributes
    ----------
    n_genes, gene_ids, gene_symbols
        The genes in the order of the columns.
    gene_places
        Their rows in `metadata/genes.parquet`, where places may hold others; else None.
    labels, categories
        The labels that batches carry, and what the codes of each text label stand for.
    """

    n_genes: int
    gene_ids: list[str]
    gene_symbols: list[str]
    gene_places: list[int] | None = None

    def __init__(self, manifest: Manifest, split: str | None, labels: Sequence[str] | None) -> None:
        with manifest.opening():
            manifest.check_files(manifest.directory.shards)
            self._cells = SplitView(manifest, split, labels)
        self.labels = self._cells.labels
        self.categories = self._cells.categories

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

    def read_classes(self, name: str) -> NDArray[np.integer[Any]]:
        """Each cell's value of a label or `experiment_id`, numbered from 0, as `balance` takes it.

        Raises
        ------
        ValueError
            If there is no such label.
        """
        return self._cells.read_classes(name)

    def find_values(self, name: str) -> NDArray[Any]:
        """The distinct values of a label or `experiment_id`, as they are stored, ascending."""
        return self._cells.find_values(name)

    def __getitem__(self, index: Index) -> CellBatch:
        """Gather cells; an int gives one cell, without the first dimension (dense only)."""
        batch = self._gather(self._cells.to_rows(index))
        return take_first(batch) if isinstance(index, int | np.integer) else batch

    def __getitems__(self, indices: Sequence[int]) -> list[CellBatch]:
        """Gather a batch, as a list of one; a plain DataLoader calls this, see `collate`."""
        return [self[indices]]

    def to_anndata(self, cells: Index | CellBatch | TokenBatch | None = None) -> "AnnData":
        """Cells as an AnnData, in the order asked for.

        `X` has the counts as int16 CSR, the type in which they are stored. `obs` has
        `experiment_id`, `total_counts` of the whole cell, and the labels, missing ones as NaN;
        its names are the cells' ids. `var` has `gene_symbols`; its names are the genes' ids. Where
        another gene took a place (`fallback_min_genes`), the count is 0: a column is one gene's.

        Parameters
        ----------
        cells
            Rows or a mask, as the dataset is indexed, or a batch that a loader of this dataset, or
            a DataModule, gave; a `TokenBatch` must carry counts. None takes all cells.

        Raises
        ------
        ValueError
            If a batch has no counts, or those of other genes.
        IndexError
            If there is no such row.
        """
        if isinstance(cells, CellBatch | TokenBatch):
            counts, metadata = take_counts(cells, self.n_genes, self.gene_places), cells.metadata
        else:
            rows = self._cells.to_rows(slice(None) if cells is None else cells)
            counts, metadata = self._read_csr(rows), self._cells.read_metadata(rows)
        genes = self.gene_ids, self.gene_symbols
        return make_anndata(counts, metadata, genes, self.labels, self.categories)

    @abstractmethod
    def _gather(self, rows: NDArray[np.int64]) -> CellBatch:
        """Cells as a batch."""

    @abstractmethod
    def _read_csr(self, rows: NDArray[np.int64]) -> csr_matrix:
        """Counts of cells' own genes, [n, n_genes]."""


class HVGDataset(CellDataset):
    """The chosen genes of every drawn cell, from the shards.

    Parameters
    ----------
    folder
        A data directory, or its `processed` folder, or the manifest that was read of it.
    split
        `train`, `val` or `test`; None takes all cells.
    n_hvgs
        The best so many of the stored genes; None takes all of them.
    labels
        Labels to carry in the metadata; None takes all that are stored.

    Raises
    ------
    FileNotFoundError, ManifestError
        If the directory was not prepared, or a file of it is missing or damaged.
    ValueError
        If there are fewer genes, or no such split or label.
    """

    def __init__(
        self,
        folder: str | Path | Manifest,
        *,
        split: str | None = None,
        n_hvgs: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        manifest = folder if isinstance(folder, Manifest) else Manifest.read(folder)
        super().__init__(manifest, split, labels)
        shards = self._cells.shards
        stored = len(shards.gene_ids)
        if n_hvgs is not None and not 1 <= n_hvgs <= stored:
            found = f"n_hvgs={n_hvgs}, but {manifest.data_dir} stores {stored} genes a cell"
            way_out = f"ask for at most {stored}, or prepare with data.n_hvgs={n_hvgs}"
            raise ValueError(f"{found}: {way_out}")
        self.n_genes = n_hvgs or stored
        self.gene_ids = shards.gene_ids[: self.n_genes]
        self.gene_symbols = shards.gene_symbols[: self.n_genes]
        if shards.has_fallback:
            self.gene_places = shards.gene_indices[: self.n_genes].tolist()

    def _gather(self, rows: NDArray[np.int64]) -> CellBatch:
        expression, metadata = self._cells.read_counts(rows, self.n_genes)
        return CellBatch(torch.from_numpy(expression), metadata)

    def _read_csr(self, rows: NDArray[np.int64]) -> csr_matrix:
        starts = range(0, max(len(rows), 1), _DENSE_ROWS)
        parts = (self._gather(rows[start : start + _DENSE_ROWS]) for start in starts)
        return vstack([take_counts(part, self.n_genes, self.gene_places) for part in parts], "csr")

    @property
    def is_compact(self) -> bool:
        """Whether shards hold only counts above 0."""
        return self._cells.shards.is_compact

    def read_batches(
        self, batches: Iterable[Index], count_table: NDArray[Any] | None = None
    ) -> Iterator[Any]:
        """Gather one `CellBatch` after another, or a `TokenBatch` of `count_table[counts]`."""
        kind = CellBatch if count_table is None else TokenBatch
        rows = map(self._cells.to_rows, batches)
        for values, metadata in self._cells.read_batches(rows, self.n_genes, count_table):
            yield kind(torch.from_numpy(values), metadata)

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

    def follow(self, stretches: Iterator[NDArray[np.int64]]) -> Plan | None:
        """Of a local copy, start to bring shards of stretches of rows; else None."""
        return self._cells.shards.follow(stretches, within=self._cells.rows)


class ScRNADataset(CellDataset):
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
        super().__init__(manifest, split, labels)
        self._sparse = sparse
        with manifest.opening():
            found = open_archives(manifest, self._cells.rows)
            axis = GeneAxis.read(manifest.directory.genes)
        manifest.check_unchanged()  # archives and tables carry no key
        self._archives, self._archive, self._archive_row = found
        self.gene_ids, self.gene_symbols = list(axis.ids), list(axis.symbols)
        self.n_genes = len(axis)

    def _gather(self, rows: NDArray[np.int64]) -> CellBatch:
        metadata = self._cells.read_metadata(rows)
        if self._sparse:
            parts = self._read(self._archives.gather, rows, metadata)
            crow, column, values = map(torch.from_numpy, parts)
            expression = torch.sparse_csr_tensor(
                crow, column, values, (len(rows), self.n_genes), check_invariants=False
            )
        else:
            dense = self._read(self._archives.gather_dense, rows, metadata, self.n_genes)
            expression = torch.from_numpy(dense)
        return CellBatch(expression, metadata)

    def _read_csr(self, rows: NDArray[np.int64]) -> csr_matrix:
        metadata = self._cells.read_metadata(rows)
        crow, column, values = self._read(self._archives.gather, rows, metadata)
        return csr_matrix((values, column, crow), (len(rows), self.n_genes))

    def _read(
        self, gather: Callable[..., Any], rows: NDArray[np.int64], metadata: Any, *width: int
    ) -> Any:
        """Cells' counts, as `gather` of the archives gives them."""
        totals = metadata["total_counts"].numpy()
        with self._cells.explain_totals(rows):
            return gather(self._archive[rows], self._archive_row[rows], totals, *width)

    @property
    def watch(self) -> DiskWatch:
        """Whether rows come from the disk."""
        return self._archives.watch

    def ask_for(self, rows: NDArray[np.int64]) -> None:
        """Start to fetch the counts of rows that will be gathered."""
        self._archives.ask_for(self._archive[rows], self._archive_row[rows])
