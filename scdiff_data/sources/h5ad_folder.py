"""The user's own files."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from scdiff_data.base import digest
from scdiff_data.errors import CountError
from scdiff_data.reading import H5adFile, check_place
from scdiff_data.sources.own_files import find_files
from scdiff_data.sources.source import Bucket, FileLayout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class H5adFolder:
    """The user's own files: each is an experiment named after its file.

    Parameters
    ----------
    path
        A file, a folder (looked through with its folders), a pattern with `*`, or a list of these;
        local, `~` being the home folder, or any fsspec URL. What begins with a dot is ignored.
    counts
        Where each file's raw counts lie: `X`, `raw.X`, `layers/NAME`, or `auto`, the first of these
        that holds whole numbers.
    gene_ids
        Column of `var` that holds gene ids; None takes its index.
    storage_options
        Options for the file system of a URL, see `Bucket`.

    Raises
    ------
    ValueError
        If `counts` names no place.
    """

    path: str | Sequence[str]
    counts: str = "X"
    gene_ids: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_place(self.counts)

    @property
    def layout(self) -> FileLayout:
        """How the files are read: their own genes count, and a file that cannot be read stops."""
        return FileLayout(
            counts=self.counts, gene_ids=self.gene_ids, gene_axis="union", max_failed_fraction=0.0
        )

    def settings(self) -> dict[str, Any]:
        """The files' names and what tells each from a changed one; not where they lie."""
        _, files, _ = find_files(self.path, dict(self.storage_options))
        listing = [(file.path, file.size, file.version) for file in files]
        own = {"counts": self.counts, "gene_ids": self.gene_ids}
        changed = {k: v for k, v in own.items() if v != H5adFolder.__dataclass_fields__[k].default}
        return {"source": "h5ad_folder", "files": digest(listing), **changed}

    def open(self, workdir: Path) -> Bucket:
        """The folder as it is; `workdir` is not used."""
        del workdir
        return find_files(self.path, dict(self.storage_options))[0]

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """List the files, and read each one's number of cells; one that cannot be read has none.

        Raises
        ------
        FileNotFoundError
            If there is no h5ad file.
        """
        _, files, others = find_files(self.path, dict(self.storage_options))
        if others:
            logger.warning(
                "%d files are left out, since they are no h5ad: %s", len(others), ", ".join(others)
            )
        counted = [_count_cells(bucket, file.path) for file in files]
        return pa.table(
            {
                "experiment_id": [file.experiment_id for file in files],
                "path": [file.path for file in files],
                "n_cells": pa.array([n for n, _ in counted], pa.int64()),
                "size": pa.array([file.size for file in files], pa.int64()),
                "checksum": pa.nulls(len(files), pa.string()),
                "version": [file.version for file in files],
                "problem": pa.array([problem for _, problem in counted], pa.string()),
            }
        )


def _count_cells(bucket: Bucket, path: str) -> tuple[int, str | None]:
    """A file's cells, or none and what is wrong with it."""
    try:
        with bucket.open(path) as stream, H5adFile(Path(path), stream=stream) as file:
            return len(file.obs), None
    except CountError as error:
        return 0, str(error)
