"""Where cells come from: a source answers the question which experiments there are.

The answer is the *catalog*, a table of one row an experiment:

    experiment_id   string   letters, digits, '.', '_', '-'
    path            string   the experiment's h5ad file, relative to the source's url
    n_cells         int64    cells in that file
    size            int64    bytes of that file, null where the source does not say
    checksum        string   `md5:HEX` or `crc32c:HEX` of that file, null likewise
    …               every metadata column that the source has

Nothing after the catalog knows which source it was. Paths are relative, so a mirror can stand in
for the bucket without changing a byte of what is made from it.
"""

import os
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scdiff_data.files import digest

_TIMEOUT = 120
"""Seconds that one request to Google Cloud Storage may take."""

_STALE = ("file_path",)
SCBASECOUNT_URL = "gs://arc-institute-virtual-cell-atlas"


@dataclass(frozen=True)
class Bucket:
    """An fsspec root that a catalog's paths are relative to.

    Parameters
    ----------
    url
        Any fsspec URL or a local folder.
    storage_options
        What fsspec passes to the file system. A `gs://` bucket is read anonymously unless a token
        is named here, and no billing project is ever sent unless one is named here.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def connect(self) -> tuple[Any, str]:
        """The fsspec file system, and the root's path in it without a trailing slash."""
        import fsspec

        options = dict(self.storage_options)
        if self.url.startswith(("gs://", "gcs://")):
            # gcsfs otherwise asks a gRPC service about the bucket first, which needs credentials.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            options.setdefault("token", "anon")
            options.setdefault("requests_timeout", _TIMEOUT)  # gcsfs itself waits for ever
        file_system, root = fsspec.url_to_fs(self.url, **options)
        return file_system, str(root).rstrip("/")


class Source(Protocol):
    """What `prepare` needs of a source."""

    def settings(self) -> dict[str, Any]:
        """What identifies the data, as plain JSON values; changing it makes another data set."""
        ...

    def open(self, workdir: Path) -> Bucket:
        """Make the cells reachable; a source that makes its own files writes them in `workdir`."""
        ...

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read the catalog, one row an experiment."""
        ...


@dataclass(frozen=True)
class ScBaseCount:
    """The Arc Institute's scBaseCount: one h5ad an experiment, with raw counts.

    Youngblut et al., Cell 189(19):5932, 2026, doi:10.1016/j.cell.2026.08.025.

    Parameters
    ----------
    release
        `2026-01-12` (current) or `2025-02-25` (deprecated by its publisher).
    feature
        Which reads count for a gene: `Gene`, `GeneFull`, `GeneFull_Ex50pAS`,
        `GeneFull_ExonOverIntron`.
    organism
        With an underscore, e.g. `Homo_sapiens`.
    url
        The bucket, or any fsspec URL or folder laid out as it is: a mirror, an emulator, a copy.
    storage_options
        Options for the file system, see `Bucket`.
    """

    release: str = "2026-01-12"
    feature: str = "GeneFull_Ex50pAS"
    organism: str = "Homo_sapiens"
    url: str = SCBASECOUNT_URL
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Release, feature and organism; not the url, since a mirror holds the same data."""
        return {
            "source": "scbasecount",
            "release": self.release,
            "feature": self.feature,
            "organism": self.organism,
        }

    def open(self, workdir: Path) -> Bucket:
        """The bucket as it is; `workdir` is not used."""
        del workdir
        return Bucket(self.url, self.storage_options)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read `sample_metadata.parquet`; sizes and checksums are from one listing of the files.

        Raises
        ------
        FileNotFoundError
            If the bucket has no such release, feature or organism.
        """
        file_system, root = bucket.connect()
        metadata_path = f"{root}/{self.folder('metadata')}/sample_metadata.parquet"
        try:
            with file_system.open(metadata_path, "rb") as file, pq.ParquetFile(file) as parquet:
                # `file_path` has gone stale upstream after a move of the bucket: paths are rebuilt.
                # All else stays in the snapshot, since other filters may ask for it later.
                columns = [c for c in parquet.schema_arrow.names if c not in _STALE]
                metadata = parquet.read(columns=columns)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no catalog at {metadata_path}: check source.release ({self.release}), "
                f"source.feature ({self.feature}), source.organism ({self.organism}) and "
                f"source.url ({self.url})"
            ) from error
        for column in ("srx_accession", "obs_count"):
            if column not in metadata.column_names:
                raise ValueError(
                    f"{metadata_path} has no column '{column}'; it has {metadata.column_names}"
                )
        h5ad_folder = self.folder("h5ad")
        file_system.invalidate_cache()  # a listing from earlier in this process may be stale
        objects = {
            entry["name"].rsplit("/", 1)[-1]: entry
            for entry in file_system.ls(f"{root}/{h5ad_folder}", detail=True)
        }
        ids = metadata["srx_accession"].cast(pa.string()).to_pylist()
        entries = [objects.get(f"{accession}.h5ad", {}) for accession in ids]
        catalog = {
            "experiment_id": pa.array(ids, pa.string()),
            "path": pa.array([f"{h5ad_folder}/{accession}.h5ad" for accession in ids], pa.string()),
            "n_cells": pc.cast(metadata["obs_count"], pa.int64()),
            "size": pa.array([entry.get("size") for entry in entries], pa.int64()),
            "checksum": pa.array([_checksum(entry) for entry in entries], pa.string()),
        }
        skipped = {"srx_accession", "obs_count", *catalog}
        return pa.table(
            catalog
            | {name: metadata[name] for name in metadata.column_names if name not in skipped}
        )

    def folder(self, kind: str) -> str:
        """The folder of `metadata` or `h5ad` files, relative to the url."""
        return f"scbasecount/{self.release}/{kind}/{self.feature}/{self.organism}"


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
                obs = file["obs"]
                n_cells.append(
                    len(obs[obs.attrs["_index"]]) if isinstance(obs, h5py.Group) else len(obs)
                )
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


@dataclass(frozen=True)
class StoredSource:
    """A source known by its settings alone: of a directory whose cells are all there.

    Parameters
    ----------
    known
        What the source's `settings` gave.
    """

    known: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """The settings as they were."""
        return dict(self.known)

    def open(self, workdir: Path) -> Bucket:
        """Nothing to open: raises ValueError."""
        del workdir
        raise ValueError(f"the source {dict(self.known)} is known by its settings alone")

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Nothing to read: raises ValueError."""
        raise ValueError(f"{bucket} has no catalog of {dict(self.known)}")


def _checksum(entry: Mapping[str, Any]) -> str | None:
    """Checksum of a listed object: CRC32C where there is one, since MD5 costs 20 times the time."""
    for kind, key in (("crc32c", "crc32c"), ("md5", "md5Hash")):
        if entry.get(key):
            return f"{kind}:{b64decode(entry[key]).hex()}"
    return None
