"""A published collection of h5ad files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.base import digest
from scdiff_data.errors import CountError
from scdiff_data.reading import H5adFile, check_place
from scdiff_data.sources.catalog import Condition, match_cells, read_named
from scdiff_data.sources.own_files import MOST_LETTERS, name_experiment
from scdiff_data.sources.source import Bucket, FileLayout, read_checksum


@dataclass(frozen=True)
class H5adCollection:
    """h5ad files of one kind below a URL, over the same genes.

    Parameters
    ----------
    name
        What it is called: with `files` it identifies the data, wherever a mirror lies.
    url
        An fsspec URL or folder.
    files
        Pattern of the files below it.
    counts, gene_ids, experiment_key
        See `H5adFolder`.
    storage_options
        Options for the file system, see `Bucket`.

    Raises
    ------
    ValueError
        If `counts` names no place.
    """

    name: str
    url: str
    files: str = "*.h5ad"
    counts: str = "X"
    gene_ids: str | None = None
    experiment_key: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_place(self.counts)

    @property
    def layout(self) -> FileLayout:
        """How the files are read."""
        return FileLayout(
            counts=self.counts, gene_ids=self.gene_ids, experiment_key=self.experiment_key
        )

    def settings(self) -> dict[str, Any]:
        """Name, files and how they are read; not the url, since a mirror holds the same data."""
        names = ("name", "files", "counts", "gene_ids", "experiment_key")
        return {"source": "collection"} | {name: getattr(self, name) for name in names}

    def open(self, workdir: Path) -> Bucket:
        """The files where they are; `workdir` is not used."""
        del workdir
        return Bucket(self.url, self.storage_options)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """List the files, and read of each how many cells it has, or each of its experiments.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        rows = []
        for path, entry in self.list_files(bucket).items():
            for unit, n, problem in count_cells(bucket, path, self.experiment_key):
                name = name_experiment(Path(path).stem, unit)
                row = make_row(name, path, n, entry, unit=unit, problem=problem)
                rows.append(name_unit(row, self.experiment_key))
        return make_catalog(rows)

    def list_files(self, bucket: Bucket) -> dict[str, Mapping[str, Any]]:
        """What the file system says of each file, by its path below the url."""
        file_system, root = bucket.connect()
        file_system.invalidate_cache()  # a listing from earlier in this process may be stale
        found = file_system.glob(f"{root}/{self.files}", detail=True)
        if not found:
            raise FileNotFoundError(
                f"no file at {self.url}/{self.files}: check source.url and source.files"
            )
        return {path[len(root) :].lstrip("/"): entry for path, entry in sorted(found.items())}


def read_units(column: pd.Series) -> tuple[NDArray[np.integer[Any]], list[str]]:
    """The experiments that cells are of: each cell's place among their names, -1 for none; these.

    Parameters
    ----------
    column
        Of each cell, its experiment, as text, number or category.
    """
    column = column.astype("category")
    texts = pd.Series(column.cat.categories).astype("string").str.strip()
    places, names = pd.factorize(texts.where(texts != ""))
    codes = column.cat.codes.to_numpy()
    return np.append(places, -1).astype(np.int32)[codes], [str(name) for name in names]


def assign_cells(
    obs: pd.DataFrame,
    *,
    units: Sequence[str | None],
    key: str | None,
    filters: Mapping[str, Condition],
) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
    """Which of some experiments of a file each cell is of, -1 for none; whether it is looked at.

    Parameters
    ----------
    obs
        The file's cells.
    units
        The experiments' values of the column `key`; only None where the file is one experiment.
    key
        The `experiment_key`.
    filters
        The `cell_filters`.

    Raises
    ------
    CountError
        If the cells lack a column that is named.
    """
    of_cell: NDArray[np.integer[Any]] = np.zeros(len(obs), np.int8)
    if list(units) != [None]:
        places, names = read_units(read_named(obs, key, "experiment_key names"))
        place_of = {unit: place for place, unit in enumerate(units)}
        found = [*(place_of.get(name, -1) for name in names), -1]
        of_cell = np.array(found, np.int32)[places]
    return of_cell, match_cells(obs, filters)


def count_cells(
    bucket: Bucket, path: str, experiment_key: str | None
) -> list[tuple[str | None, int, str | None]]:
    """Of a file or each of its experiments: value, cells, and what is wrong with it."""
    try:
        with bucket.open(path) as stream, H5adFile(Path(path), stream=stream) as cells:
            if experiment_key is None:
                return [(None, len(cells.obs), None)]
            if experiment_key not in cells.obs.columns:
                have = sorted(cells.obs.columns)
                named = f"{path}: experiment_key names {experiment_key!r}, which its cells lack"
                return [(None, 0, f"{named}; they have {have}")]
            places, names = read_units(cells.obs.read(experiment_key))
            n_without, *n_of = np.bincount(places + 1, minlength=len(names) + 1).tolist()
            found: list[tuple[str | None, int, str | None]] = [
                (unit, n, None) for unit, n in sorted(zip(names, n_of, strict=True)) if n
            ]
            if n_without:
                problem = f"{path}: {n_without} cells have no {experiment_key}, the experiment_key"
                found.append(("without", n_without, problem))
            return found
    except CountError as error:
        return [(None, 0, str(error))]
    except FileNotFoundError:  # a link to nowhere
        return [(None, 0, f"{path} is not there: it may be a broken link")]


def make_row(
    experiment_id: str,
    path: str,
    n_cells: int,
    entry: Mapping[str, Any],
    **columns: Any,
) -> dict[str, Any]:
    """A row of a catalog; `entry` is what the file system says of the file."""
    own = {"experiment_id": experiment_id, "path": path, "n_cells": n_cells}
    return own | {"size": entry.get("size"), "checksum": read_checksum(entry)} | columns


def name_unit(row: dict[str, Any], experiment_key: str | None) -> dict[str, Any]:
    """A row with its experiment's value also under the column's own name, for filters."""
    if experiment_key is None or experiment_key in row:
        return row
    return {**row, experiment_key: row["unit"]}


def make_catalog(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table whose own columns have the types that a catalog's have.

    Ids that repeat or are too long for a file's name are told apart by a digest.
    """
    n_of = Counter(row["experiment_id"] for row in rows)
    for row in rows:
        name = row["experiment_id"]
        if n_of[name] > 1 or len(name) > MOST_LETTERS:
            known = digest([row["path"], row.get("unit"), name])[:8]
            row["experiment_id"] = f"{name[:MOST_LETTERS]}-{known}"
    table = pa.Table.from_pylist(rows)
    types = {"n_cells": pa.int64(), "size": pa.int64()}
    types |= dict.fromkeys(("experiment_id", "path", "checksum", "unit", "problem"), pa.string())
    fields = [pa.field(f.name, types.get(f.name, f.type)) for f in table.schema]
    return table.cast(pa.schema(fields))
