"""The Arc Institute's scBaseCount."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scdiff_data.sources.source import Bucket, read_checksum

_STALE = ("file_path",)
"""Columns of the metadata that went stale upstream, after a move of the bucket."""

SCBASECOUNT_URL = "gs://arc-institute-virtual-cell-atlas"
"""The Arc Institute's public bucket."""


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
            "checksum": pa.array([read_checksum(entry) for entry in entries], pa.string()),
        }
        skipped = {"srx_accession", "obs_count", *catalog}
        return pa.table(
            catalog
            | {name: metadata[name] for name in metadata.column_names if name not in skipped}
        )

    def folder(self, kind: str) -> str:
        """The folder of `metadata` or `h5ad` files, relative to the url."""
        return f"scbasecount/{self.release}/{kind}/{self.feature}/{self.organism}"
