"""The cells of a split: their rows in the shards, and what is known of each beside its counts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdiff_data.archive import ArchiveRows, OtherTotal
from scdiff_data.base import explain_damage
from scdiff_data.constants import SPLITS
from scdiff_data.errors import ManifestError
from scdiff_data.loading.lazy_strings import LazyStrings
from scdiff_data.sampling import divide_rows, find_distinct
from scdiff_data.shards import ShardRows
from scdiff_data.store import Manifest, list_exact, read_experiments

Index = int | slice | Sequence[int] | NDArray[np.integer[Any] | np.bool_] | Tensor
"""What datasets are indexed with: a cell, or the rows of a batch, or a mask over all cells."""

_ID_COLUMNS = ("cell_id", "experiment_id")
"""Columns that come out as `LazyStrings`."""

_BATCHES_AT_ONCE = 4
"""Batches whose narrow columns are read together."""


class SplitView:
    """A view of the shards: the cells of one split, or all.

    Parameters
    ----------
    manifest
        Of the data directory.
    split
        `train`, `val` or `test`; None takes all cells.
    labels
        Labels to read; None takes all that are stored.

    Attributes
    ----------
    shards
        The rows of all shards.
    rows
        The contiguous range of these rows that the split is.
    key
        A number that other cells, or another order of them, would not have.
    labels, categories
        The labels to read, and what the codes of each text label stand for.

    Raises
    ------
    ValueError
        If there is no such split or label.
    """

    def __init__(self, manifest: Manifest, split: str | None, labels: Sequence[str] | None) -> None:
        sizes = manifest.n_cells
        self._split, self._data_dir = split, manifest.data_dir
        self._table = manifest.directory.cells
        if split is not None and split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS} or None, got {split!r}")
        first = 0 if split is None else sum(sizes[name] for name in SPLITS[: SPLITS.index(split)])
        n_cells = sum(sizes.values())
        self.rows = range(first, first + (n_cells if split is None else sizes[split]))
        self.key = _digest_cells(manifest, self.rows)
        self.shards = ShardRows(manifest)
        stored = self.shards.labels
        if missing := set(labels or ()) - set(stored):
            raise ValueError(
                f"{manifest.data_dir} keeps no label {sorted(missing)}, it has {stored}: prepare "
                f"with data.labels=[{','.join([*stored, *sorted(missing)])}]"
            )
        self.labels = stored if labels is None else list(labels)
        self.categories = {k: v for k, v in self.shards.categories.items() if k in self.labels}
        self._columns = ("total_counts", *self.labels)

    def __len__(self) -> int:
        return len(self.rows)

    def to_rows(self, index: Index) -> NDArray[np.int64]:
        """Row numbers, of a mask those that it names; negative ones count from the end."""
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        try:
            rows = np.asarray(index)
        except (TypeError, ValueError):  # its parts are no numbers, or of several lengths
            rows = np.array(None)
        if rows.dtype == np.bool_:
            if rows.shape != (len(self),):
                found = list(rows.shape)
                raise IndexError(f"a mask must be [{len(self)}], one value a cell, got {found}")
            return np.flatnonzero(rows)
        if rows.ndim > 1 or (rows.dtype.kind not in "iu" and rows.size):
            what = "" if rows.dtype == np.object_ else f" of {rows.dtype} {list(rows.shape)}"
            raise ValueError(
                f"cells are row numbers, a slice or a mask, got {type(index).__name__}{what}; a "
                "batch that to_anndata takes is a CellBatch or TokenBatch, as loaders give it"
            )
        return np.atleast_1d(rows).astype(np.int64, copy=False)

    def describe(self, kind: str, n_genes: int) -> str:
        """A line for `repr` of a dataset of these cells."""
        cells = f"{len(self):,} {self._split or 'of all'} cells x {n_genes:,} genes"
        return f"{kind}({cells}, labels {self.labels}, {str(self._data_dir)!r})"

    def read_metadata(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Ids as `LazyStrings`, total counts and labels as tensors."""
        return self._to_metadata(rows, self._gather(self._columns, rows))

    @contextmanager
    def explain_totals(self, rows: NDArray[np.int64]) -> Iterator[None]:
        """Let a total of these rows that is not the archive's be an error that names the shard."""
        try:
            yield
        except OtherTotal as error:
            row = self.rows[int(rows[error.place])]
            raise ManifestError.damaged(self.shards.locate(row), str(error)) from error

    def read_counts(
        self, rows: NDArray[np.int64], n_genes: int, table: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Counts of the first genes, or `table[counts]`, [n, n_genes], and the metadata."""
        return next(self.read_batches([rows], n_genes, table))

    def read_batches(
        self,
        batches: Iterable[NDArray[np.int64]],
        n_genes: int,
        table: NDArray[Any] | None = None,
    ) -> Iterator[tuple[NDArray[Any], dict[str, Any]]]:
        """The same of one batch after another.

        What is narrow is read of some batches together: a call costs more than its rows. Counts
        are not: what they go into would leave the caches before anybody looks at it.
        """
        batches = iter(batches)
        while some := list(islice(batches, _BATCHES_AT_ONCE)):
            columns = self._gather(self._columns, np.concatenate(some))
            start = 0
            for rows in some:
                (counts,) = self._gather(("expression",), rows, width=n_genes, table=table)
                own = slice(start, start + len(rows))
                metadata = self._to_metadata(rows, [column[own] for column in columns])
                if self.shards.has_fallback:
                    places = np.where(rows < 0, rows + len(self), rows) + self.rows.start
                    gene_ids = self.shards.gather_gene_ids(places, n_genes)
                    metadata["gene_ids"] = torch.from_numpy(gene_ids)
                start = own.stop
                yield counts, metadata

    def read_ids(self, name: str) -> NDArray[np.str_]:
        """Every cell's id, or `experiment_id`, in the order of the rows."""
        if self.shards.is_copy:
            encoded = [values for _, values in self._read_chunks(name)]
            return np.char.decode(np.concatenate(encoded or [np.empty(0, "S1")]), "utf-8")
        return np.char.decode(self._read_texts(name, np.arange(len(self))), "utf-8")

    def read_classes(self, name: str) -> NDArray[np.integer[Any]]:
        """Each cell's value of a label or `experiment_id`, numbered from 0; a missing one, too.

        In the narrowest type, and without more memory than that.

        Raises
        ------
        ValueError
            If there is no such label.
        """
        known = [*self.shards.labels, "experiment_id"]
        if name not in known:
            raise ValueError(f"balance={name}: the shards keep no such label; they have {known}")
        distinct = self.find_values(name)
        classes = np.empty(len(self), np.min_scalar_type(max(len(distinct) - 1, 0)))
        for chunk, values in self._read_chunks(name):
            classes[chunk] = np.searchsorted(distinct, values)
        return classes

    def find_values(self, name: str) -> NDArray[Any]:
        """The distinct values of a label or `experiment_id`, as they are stored, ascending."""
        return find_distinct(values for _, values in self._read_chunks(name))

    def _read_chunks(self, name: str) -> Iterator[tuple[slice, NDArray[Any]]]:
        if not self.shards.is_copy:
            for chunk in divide_rows(len(self)):
                yield chunk, self._read(name, np.arange(chunk.start, chunk.stop))
            return
        # Of a local copy, every shard would have to come: the table of cells says the same.
        first = 0
        with explain_damage(self._table), pq.ParquetFile(self._table) as file:
            for batch in file.iter_batches(columns=[name]):
                own = slice(max(self.rows.start - first, 0), max(self.rows.stop - first, 0))
                at, first = max(first - self.rows.start, 0), first + len(batch)
                values = self._encode(name, batch[name][own])
                if len(values):
                    yield slice(at, at + len(values)), values

    def _encode(self, name: str, values: pa.Array) -> NDArray[Any]:
        """A column of the table of cells as shards have it."""
        dtype = self.shards.dtypes[name]
        if name in self.shards.categories:
            words = pa.array(self.shards.categories[name], pa.string())
            codes = pc.index_in(values.cast(pa.string()), words).fill_null(-1)
            return np.asarray(codes).astype(dtype)
        if name in _ID_COLUMNS:
            return np.char.encode(np.array(values.to_pylist(), np.str_), "utf-8").astype(dtype)
        return np.asarray(values.to_numpy(zero_copy_only=False)).astype(dtype)

    def _read(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self._gather((name,), rows)[0]

    def _gather(
        self, names: tuple[str, ...], rows: NDArray[np.int64], **options: Any
    ) -> list[NDArray[Any]]:
        return self.shards.gather(names, rows, within=self.rows, **options)

    def _read_texts(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """Ids of cells as UTF-8, once they are seen to be that."""
        encoded = self._read(name, rows)
        if encoded.view(np.uint8).max(initial=0) > 127:  # else ASCII, as most are
            for row, text in zip(rows, encoded.tolist(), strict=True):
                try:
                    text.decode()
                except UnicodeDecodeError as error:
                    shard = self.shards.locate(self.rows[int(row)])
                    raise ManifestError.damaged(shard, f"{name}: {error}") from error
        return encoded

    def _to_metadata(
        self, rows: NDArray[np.int64], columns: Sequence[NDArray[Any]]
    ) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            name: LazyStrings(len(rows), partial(self._read_texts, name, rows))
            for name in _ID_COLUMNS
        }
        for name, values in zip(self._columns, columns, strict=True):
            # A copy: of a batch alone, whatever was read with it.
            dtype = np.int64 if name in self.categories else values.dtype
            metadata[name] = torch.from_numpy(values.astype(dtype))
        return metadata


def _digest_cells(manifest: Manifest, rows: range) -> int:
    """CRC32 of the table of cells, which holds each cell's row, and of the rows."""
    path = manifest.directory.cells.relative_to(manifest.data_dir).as_posix()
    tables = [entry.sha256 for entry in manifest.files if entry.path == path]
    return crc32(f"{tables} {rows}".encode())


def open_archives(
    manifest: Manifest, rows: range
) -> tuple[ArchiveRows, NDArray[np.int32], NDArray[np.int32]]:
    """The archives of some rows of the table of cells; each cell's archive, and its row there.

    Raises
    ------
    FileNotFoundError, ManifestError
        If a file is missing or damaged.
    """
    directory = manifest.directory
    if directory.bucket.exists():
        found = f"{directory.path} is a local copy of a bucket, which holds no archives"
        raise FileNotFoundError(f"{found}: all genes are where the data were prepared")
    manifest.check_files(directory.archives)
    manifest.check_files(directory.metadata, full=True)  # read as a whole anyway
    names, archive, archive_row = _find_in_archives(directory.cells, rows)
    paths = [directory.archive(name) for name in names]
    exact = list_exact(read_experiments(directory.experiments))
    archives = ArchiveRows(paths, np.array([name in exact for name in names], np.bool_))
    return archives, archive, archive_row


def _find_in_archives(
    path: Path, rows: range
) -> tuple[list[str], NDArray[np.int32], NDArray[np.int32]]:
    """Experiments of the table of cells; each cell's place among them, and its archive's row."""
    with pq.ParquetFile(path) as table:
        # Each row group may have a dictionary of its own.
        names: dict[str, int] = {}
        experiment, archive_row = np.empty((2, len(rows)), np.int32)
        start = 0
        for batch in table.iter_batches(columns=["experiment_id", "archive_row"]):
            found = batch["experiment_id"]
            codes = [names.setdefault(name, len(names)) for name in found.dictionary.to_pylist()]
            own = slice(max(rows.start - start, 0), max(rows.stop - start, 0))
            at = max(start - rows.start, 0)
            codes_here = np.array(codes, np.int32)[found.indices.to_numpy()[own]]
            experiment[at : at + len(codes_here)] = codes_here
            archive_row[at : at + len(codes_here)] = batch["archive_row"].to_numpy()[own]
            start += len(batch)
    return list(names), experiment, archive_row
