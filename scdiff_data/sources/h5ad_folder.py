"""A folder of the user's own h5ad files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pyarrow as pa

from scdiff_data.base import digest
from scdiff_data.sources.source import Bucket


@dataclass(frozen=True)
class H5adFolder:
    """The user's own files: every `*.h5ad` in a folder is an experiment named after its file.

    Parameters
    ----------
    path
        A local folder. Each file's `X` holds raw counts, sparse or dense; its `var` index holds
        gene ids.
    """

    path: str

    def settings(self) -> dict[str, Any]:
        """The files' names and sizes, so that a changed folder is noticed; not where it lies."""
        listing = [(path.name, path.stat().st_size) for path in self._files()]
        return {"source": "h5ad_folder", "files": digest(listing)}

    def open(self, workdir: Path) -> Bucket:
        """The folder as it is; `workdir` is not used."""
        del workdir
        return Bucket(str(Path(self.path).absolute()))

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """List the folder, and read each file's number of cells.

        Raises
        ------
        FileNotFoundError
            If there is no h5ad file in the folder.
        """
        del bucket
        files = self._files()
        n_cells = []
        for path in files:
            with h5py.File(path) as file:
                n_cells.append(_count_cells(file))
        return pa.table(
            {
                "experiment_id": [path.stem for path in files],
                "path": [path.name for path in files],
                "n_cells": pa.array(n_cells, pa.int64()),
                "size": pa.array([path.stat().st_size for path in files], pa.int64()),
                "checksum": pa.nulls(len(files), pa.string()),
            }
        )

    def _files(self) -> list[Path]:
        files = sorted(Path(self.path).glob("*.h5ad"))
        if not files:
            raise FileNotFoundError(
                f"no *.h5ad file in {self.path}: set source.path to a folder that has some"
            )
        return files


def _count_cells(file: h5py.File) -> int:
    """Rows of `obs`, whatever its index is encoded as."""
    obs = file["obs"]
    if isinstance(obs, h5py.Dataset):  # as anndata wrote frames before 0.7
        return len(obs)
    index = obs[obs.attrs["_index"]]
    # Nullable strings are a group of values and of a mask.
    return len(index["values"] if isinstance(index, h5py.Group) else index)
