"""The datasets of shards as columns, and what of them is copied for a batch."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import ask_for, expect_random, find_datasets, identify_file, map_file
from scdiff_data.errors import ManifestError
from scdiff_data.shards.formats import check_key, open_shard

COUNTS = "expression"
"""The column of counts, whatever the format."""

_IDS = ("cell_id", "experiment_id")
"""Columns that few batches look at."""

_KINDS = {"total_counts": "i", "cell_id": "S", "experiment_id": "S"}
"""Kinds of types, as numpy has them, of columns that every shard has."""

_MOST_KEPT = 64
"""Kinds of batches kept: a run asks for few, tests and notebooks for many."""


class Column(NamedTuple):
    """A dataset of the shards: its place among them, type, bytes a row, and shape of a row."""

    place: int
    dtype: np.dtype[Any]
    row_bytes: int
    shape: tuple[int, ...]


class MappedShard(NamedTuple):
    """A shard in memory: all of it, and where in it each column starts, and its bytes."""

    content: NDArray[np.uint8]
    spans: dict[int, tuple[int, int]]


class ShardColumns:
    """The columns that all shards of a data set have, as its first one says.

    Parameters
    ----------
    path
        The first shard.
    key
        Of all of them, see `stamp`.

    Attributes
    ----------
    layout
        The columns by the names under which they are gathered, `expression` whatever the format.
    narrow
        Of each narrow column that batches look at: place, bytes a row, entries beyond.
    categories
        Of each label of texts, what its codes stand for.

    Raises
    ------
    ManifestError
        If it is damaged, or another one.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._first, self._key = path, key
        with open_shard(path, key) as file:
            self.gene_ids: list[str] = [gene.decode() for gene in file["gene_ids"][:]]
            self.gene_symbols: list[str] = [gene.decode() for gene in file["gene_symbols"][:]]
            self.gene_indices: NDArray[np.int64] = file["gene_indices"][:].astype(np.int64)
            self.has_fallback = "fallback" in file
            self.is_compact = "packed" in file
            self.has_long_starts = self.is_compact and file["starts"].dtype == np.uint64
            self.categories: dict[str, list[str]] = {}
            paths = {"total_counts": "total_counts"}
            paths |= {"cell_id": "cell_ids", "experiment_id": "experiment_ids"}
            for name, label in file.get("labels", {}).items():
                is_text = isinstance(label, h5py.Group)
                paths[name] = f"labels/{name}/codes" if is_text else f"labels/{name}"
                if is_text:
                    self.categories[name] = [c.decode() for c in label["categories"][:]]
            counts = ("starts", "packed") if self.is_compact else (COUNTS,)
            self._places = {path: place for place, path in enumerate(counts)}
            self.layout: dict[str, Column] = {}
            for place, (name, path_there) in enumerate(paths.items(), start=3):
                self._places[path_there] = place
                dtype = file[path_there].dtype
                kinds = _KINDS.get(name, "iu" if name in self.categories else "iufb")
                if dtype.kind not in kinds:
                    raise ManifestError.damaged(path, f"{path_there} is of type {dtype}")
                self.layout[name] = Column(place, dtype, dtype.itemsize, ())
            narrow = [(c.place, c.row_bytes, 0) for n, c in self.layout.items() if n not in _IDS]
            if self.is_compact:
                narrow.append((0, file["starts"].dtype.itemsize, 1))
            self.narrow = np.array(narrow, np.int64)
        n_genes = len(self.gene_ids)
        self.layout[COUNTS] = Column(0, np.dtype(np.int16), 2 * n_genes, (n_genes,))
        self.labels = [name for name, path_there in paths.items() if "/" in path_there]
        self.n_places = 3 + len(paths)

    def map(self, path: Path, n_cells: int) -> MappedShard:
        """Map a shard of `n_cells`, once it is seen to be whole and one of this data set.

        Raises
        ------
        ManifestError
            If it is damaged, or another one.
        """
        try:
            before = identify_file(path)
            key, found = find_datasets(path, list(self._places), "key")
            content = map_file(path)
            if identify_file(path) != before:
                raise ManifestError.replaced(path)
        except FileNotFoundError as error:
            raise ManifestError.replaced(path) from error
        except ManifestError as error:
            with open_shard(path, self._key):  # one of other columns says so itself
                raise self._blame(path, str(error.__cause__ or error)) from error
        check_key(path, key, self._key)
        spans = dict(zip(self._places.values(), found, strict=True))
        for name, column in self.layout.items():
            if name == COUNTS and self.is_compact:
                n_wanted = (8 if self.has_long_starts else 4) * (n_cells + 1)
            else:
                n_wanted = column.row_bytes * n_cells
            if spans[column.place][1] != n_wanted:
                raise self._blame(
                    path, f"{name} has {spans[column.place][1]} bytes, not {n_wanted}"
                )
        # Rows are at random places; what is narrow is read by many batches, and fetched as a whole.
        # Before anything is read: a first read could fetch megabytes around it.
        expect_random(content)
        for place in self.narrow[:, 0]:
            first, n_bytes = spans[place]
            ask_for(content[first : first + n_bytes])
        for name, words in self.categories.items():
            first, n_bytes = spans[self.layout[name].place]
            codes = content[first : first + n_bytes].view(self.layout[name].dtype)
            if n_cells and not -1 <= codes.min() <= codes.max() < len(words):
                raise self._blame(path, f"a code of {name} stands for none of {len(words)} words")
        return MappedShard(content, spans)

    def _blame(self, path: Path, what: str) -> ManifestError:
        """That a shard is damaged, unless the first one is, which says what columns are like."""
        if path == self._first:
            return ManifestError.damaged(path, what)
        return ManifestError(
            f"{path} is damaged, or the first shard, {self._first}, is, to which it is compared "
            f"({what}): run 'scdiff-data check', which says which one and what to do"
        )


class CopyJobs(NamedTuple):
    """What `copy_rows` copies for one kind of batch.

    Parameters
    ----------
    table
        One job a column, int64 [n_columns, 4], see the picture above it.
    layout
        Of each column the array it comes out as: shape, type, and where it starts in `narrow`, or
        -1 if it is wide.
    n_narrow_bytes
        Bytes of all narrow columns together.
    """

    table: NDArray[np.int64]
    layout: list[tuple[tuple[int, ...], np.dtype[Any], int]]
    n_narrow_bytes: int


class JobCache:
    """Copy jobs, kept, since working them out takes longer than copying.

    Parameters
    ----------
    columns
        The datasets by name.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._kept: dict[tuple[tuple[str, ...], int, int | None, bool], CopyJobs] = {}

    def take(
        self, names: tuple[str, ...], n_rows: int, width: int | None, *, is_copied: bool
    ) -> CopyJobs:
        """Jobs for `n_rows` of some columns; the wide one is none unless it `is_copied`."""
        key = (names, n_rows, width, is_copied)
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        jobs, layout, n_narrow_bytes = [], [], 0
        for name in names:
            place, dtype, row_bytes, shape = self._columns[name]
            if shape:
                shape = (width or shape[0],)
            n_bytes = math.prod(shape) * dtype.itemsize
            offset = -1 if shape else n_narrow_bytes
            if is_copied or not shape:
                jobs.append((place, row_bytes, n_bytes, offset))
            layout.append(((n_rows, *shape), dtype, offset))
            if not shape:
                n_narrow_bytes += -(-n_rows * n_bytes // 16) * 16  # each column starts aligned
        if len(self._kept) > _MOST_KEPT:
            self._kept.clear()
        table = np.array(jobs, np.int64).reshape(-1, 4)
        self._kept[key] = CopyJobs(table, layout, n_narrow_bytes)
        return self._kept[key]
