"""Rows as tensors: datasets over a data directory.

Datasets are map-style and hold no open file, so they pickle, fork and spawn. Indexed with an array
of rows they gather a whole batch at once.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from scdiff_data.archive_map import ArchiveMap
from scdiff_data.draw import SPLITS
from scdiff_data.genes import GeneAxis
from scdiff_data.manifest import Manifest
from scdiff_data.shard_map import ShardMap
from scdiff_data.texts import Texts

_TEXTS = ("cell_id", "experiment_id")
Index = int | slice | Sequence[int] | NDArray[np.integer[Any]] | Tensor


class CellBatch(NamedTuple):
    """Cells as they come from a dataset.

    Parameters
    ----------
    expression
        Counts, int16 [b, g].
    metadata
        `cell_id` and `experiment_id`, `Texts` [b]; `total_counts`, int32 [b], of the whole cell
        over all its genes; and the labels asked for [b]: codes into the dataset's
        `categories`, int64, -1 where missing, or the numbers themselves. Where the data were
        prepared with `fallback_min_genes`, also `gene_ids`, int64 [b, g]: which gene each place
        holds, by its row in `metadata/genes.parquet`.
    """

    expression: Tensor
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
        manifest.check_files("processed/")
        self._rows = _split_rows(manifest, split)
        n_cells = sum(manifest.n_cells.values())
        self._shards = ShardMap(manifest.shards, shard_size=manifest.shard_size, n_cells=n_cells)
        stored = len(self._shards.gene_ids)
        if n_hvgs is not None and not 1 <= n_hvgs <= stored:
            raise ValueError(
                f"n_hvgs={n_hvgs}, but {manifest.data_dir} stores {stored} genes a cell: ask for "
                f"at most {stored}, or prepare with data.n_hvgs={n_hvgs}"
            )
        self.n_genes = n_hvgs or stored
        self.labels = _check_labels(labels, self._shards.labels, manifest)
        self._columns = ("total_counts", *self.labels)
        self.categories: dict[str, list[str]] = {
            name: names for name, names in self._shards.categories.items() if name in self.labels
        }
        """What the codes of each text label stand for."""

    @property
    def gene_ids(self) -> list[str]:
        """Ids of the genes in the order of the columns."""
        return self._shards.gene_ids[: self.n_genes]

    @property
    def gene_symbols(self) -> list[str]:
        """Symbols of the genes in the order of the columns."""
        return self._shards.gene_symbols[: self.n_genes]

    @property
    def gene_places(self) -> list[int] | None:
        """The genes' rows in `metadata/genes.parquet`, where places may hold others; else None."""
        places = self._shards.gene_indices[: self.n_genes].tolist()
        return places if self._shards.has_fallback else None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Index) -> CellBatch:
        """Gather cells; an int gives one cell, without the first dimension."""
        if isinstance(index, int | np.integer):
            return _first(self[[int(index)]])
        rows = _to_rows(index, len(self))
        expression, *columns = self._shards.gather(
            ("expression", *self._columns), rows, within=self._rows, width=self.n_genes
        )
        metadata = _make_metadata(self, rows, columns)
        if self._shards.has_fallback:
            rows = np.where(rows < 0, rows + len(self), rows) + self._rows.start
            gene_ids = self._shards.gather_gene_ids(rows, self.n_genes)
            metadata["gene_ids"] = torch.from_numpy(gene_ids)
        return CellBatch(torch.from_numpy(expression), metadata)

    def __getitems__(self, indices: Sequence[int]) -> CellBatch:
        """Gather a batch; a plain DataLoader calls this."""
        return self[indices]


class ScRNADataset(Dataset[CellBatch]):
    """All genes of every drawn cell, from the archive, in the same order of cells as `HVGDataset`.

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
        manifest.check_files("cells/", "metadata/", "processed/")
        metadata = manifest.data_dir / "metadata"
        self._rows, self._sparse = _split_rows(manifest, split), sparse
        n_cells = sum(manifest.n_cells.values())
        self._shards = ShardMap(manifest.shards, shard_size=manifest.shard_size, n_cells=n_cells)
        axis = GeneAxis.read(metadata / "genes.parquet")
        self.gene_ids, self.gene_symbols = list(axis.ids), list(axis.symbols)
        self.n_genes = len(axis)
        self.labels = _check_labels(labels, self._shards.labels, manifest)
        self._columns = ("total_counts", *self.labels)
        self.categories: dict[str, list[str]] = {
            name: names for name, names in self._shards.categories.items() if name in self.labels
        }
        """What the codes of each text label stand for."""
        columns = ["experiment_id", "archive_row"]
        cells = pq.read_table(metadata / "cells.parquet", columns=columns).combine_chunks()
        experiments = cells["experiment_id"].chunk(0)
        own = slice(self._rows.start, self._rows.stop)
        self._experiment = experiments.indices.to_numpy()[own].astype(np.int32)
        self._archive_row = cells["archive_row"].to_numpy()[own].astype(np.int32)
        names = experiments.dictionary.to_pylist()
        self._archives = ArchiveMap(
            [manifest.data_dir / "cells" / f"{name}.h5ad" for name in names]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Index) -> CellBatch:
        """Gather cells; an int gives one cell, without the first dimension (dense only)."""
        if isinstance(index, int | np.integer):
            return _first(self[[int(index)]])
        rows = _to_rows(index, len(self))
        metadata = self._shards.gather(self._columns, rows, within=self._rows)
        places = self._experiment[rows], self._archive_row[rows]
        shape = (len(rows), self.n_genes)
        if self._sparse:
            crow, column, values = map(torch.from_numpy, self._archives.gather(*places))
            expression = torch.sparse_csr_tensor(
                crow, column, values, shape, check_invariants=False
            )
        else:
            expression = torch.from_numpy(self._archives.gather_dense(*places, self.n_genes))
        return CellBatch(expression, _make_metadata(self, rows, metadata))

    def __getitems__(self, indices: Sequence[int]) -> CellBatch:
        """Gather a batch; a plain DataLoader calls this."""
        return self[indices]


def _split_rows(manifest: Manifest, split: str | None) -> range:
    """Global row numbers of a split: each is one run of them."""
    if split is None:
        return range(sum(manifest.n_cells.values()))
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS} or None, got {split!r}")
    start = 0
    for name in SPLITS:
        if name == split:
            break
        start += manifest.n_cells[name]
    return range(start, start + manifest.n_cells[split])


def _check_labels(
    wanted: Sequence[str] | None, stored: Sequence[str], manifest: Manifest
) -> list[str]:
    if wanted is None:
        return list(stored)
    if missing := set(wanted) - set(stored):
        raise ValueError(
            f"{manifest.data_dir} keeps no label {sorted(missing)}, it has {list(stored)}: prepare "
            f"with data.labels=[{','.join([*stored, *sorted(missing)])}]"
        )
    return list(wanted)


def _to_rows(index: slice | Sequence[int] | NDArray[Any] | Tensor, n: int) -> NDArray[np.int64]:
    """Row numbers; negative ones count from the end."""
    return np.asarray(np.arange(*index.indices(n)) if isinstance(index, slice) else index, np.int64)


def _make_metadata(
    dataset: HVGDataset | ScRNADataset, rows: NDArray[np.int64], columns: Sequence[NDArray[Any]]
) -> dict[str, Any]:
    """Ids as texts, codes as int64 tensors, numbers as tensors."""
    metadata: dict[str, Any] = {
        name: Texts(len(rows), partial(_read_texts, dataset, name, rows)) for name in _TEXTS
    }
    for name, values in zip(dataset._columns, columns, strict=True):
        if name in dataset.categories:
            values = values.astype(np.int64)
        metadata[name] = torch.from_numpy(values)
    return metadata


def _read_texts(
    dataset: HVGDataset | ScRNADataset, name: str, rows: NDArray[np.int64]
) -> NDArray[np.bytes_]:
    (texts,) = dataset._shards.gather((name,), rows, within=dataset._rows)
    return texts


def _first(batch: CellBatch) -> CellBatch:
    return CellBatch(
        batch.expression[0], {name: column[0] for name, column in batch.metadata.items()}
    )
