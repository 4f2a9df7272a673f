"""Atlases that say in tables of their own what their files hold."""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scdiff_data.reading import GeneAxis
from scdiff_data.sources.collection import H5adCollection, make_catalog, make_row
from scdiff_data.sources.own_files import name_experiment
from scdiff_data.sources.rows import CATALOG_COLUMNS
from scdiff_data.sources.scbasecount import SCBASECOUNT_URL
from scdiff_data.sources.source import Bucket, FileLayout

CENSUS_URL = "s3://cellxgene-census-public-us-west-2/cell-census"
"""CELLxGENE's public bucket."""


@dataclass(frozen=True)
class Tahoe100M(H5adCollection):
    """Tahoe-100M: 50 cancer cell lines under 1,100 treatments, 14 plates of about 7 M cells each.

    A sample of a plate is an experiment. The catalog comes from the atlas's own tables; a plate is
    fetched once, for all samples that are drawn from it.

    Zhang et al., bioRxiv, 2025, doi:10.1101/2025.02.20.639398.

    Parameters
    ----------
    name, url, files, counts, gene_ids, experiment_key, storage_options
        See `H5adCollection`.
    folder
        Where it lies below the url.
    """

    name: str = "tahoe100m"
    url: str = SCBASECOUNT_URL
    files: str = "tahoe100m/2025-02-25/h5ad/*.h5ad"
    gene_ids: str | None = "gene_id"
    experiment_key: str | None = "sample"
    folder: str = "tahoe100m/2025-02-25"

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Count the cells of each plate's samples in `obs_metadata`, join `sample_metadata`.

        Raises
        ------
        FileNotFoundError
            If a table or the plates are missing.
        ValueError
            If a plate has no file.
        """
        files = self.list_files(bucket)
        n_of: Counter[tuple[str, str]] = Counter()
        with self._open(bucket, "obs_metadata") as file, pq.ParquetFile(file) as table:
            for batch in table.iter_batches(columns=["sample", "plate"], batch_size=1 << 20):
                counts = batch.to_pandas().astype(str).value_counts()
                n_of.update({(str(s), str(p)): int(n) for (s, p), n in counts.items()})
        with self._open(bucket, "sample_metadata") as file:
            samples = pq.read_table(file).to_pandas().astype({"sample": str})
        columns = samples.drop_duplicates("sample").set_index("sample").to_dict("index")
        rows = []
        for (sample, plate), n in sorted(n_of.items()):
            path = _find_plate(files, plate)
            name = name_experiment(plate, sample)
            known = {k: v for k, v in columns.get(sample, {}).items() if k not in _OWN}
            row = make_row(name, path, n, files[path], unit=sample, problem=None)
            rows.append({**known, "sample": sample, "plate": plate, **row})
        return make_catalog(rows)

    def _open(self, bucket: Bucket, table: str) -> Any:
        path = f"{self.folder}/metadata/{table}.parquet"
        try:
            return bucket.open(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no table at {self.url}/{path}: check source.url and source.folder"
            ) from error


_OWN = (*CATALOG_COLUMNS, "unit", "problem")
"""Columns of a catalog that a table of the atlas does not replace."""


def _find_plate(files: Mapping[str, Any], plate: str) -> str:
    for path in files:
        if re.search(rf"(^|/){re.escape(plate)}(_[^/]*)?\.h5ad$", path):
            return path
    raise ValueError(f"no file of {plate!r} among {sorted(files)[:3]}: check source.files")


@dataclass(frozen=True)
class Census:
    """CELLxGENE Census: the h5ad files of its datasets, with raw counts in `raw.X`, else `X`.

    A dataset is an experiment. Cells are in several datasets: `cell_filters` on `is_primary_data`
    take each once. Genes are those of the Census. Reading its tables needs tiledb; its own bucket,
    s3fs: `pip install 'scdiff_data[census]'`.

    CZI Cell Science Program et al., Nucleic Acids Research 53:D886, 2025, doi:10.1093/nar/gkae1142.

    Parameters
    ----------
    release
        A long-term supported release.
    organism
        As the Census spells it; other organisms' datasets are left out once they are fetched.
    url
        The bucket, or any fsspec URL or folder laid out as it is.
    storage_options
        Options for the file system, see `Bucket`.
    """

    release: str = "2025-11-08"
    organism: str = "homo_sapiens"
    url: str = CENSUS_URL
    storage_options: Mapping[str, Any] = field(default_factory=lambda: {"anon": True})

    @property
    def layout(self) -> FileLayout:
        """How the files are read."""
        return FileLayout(counts="raw.X|X", gene_axis="source", max_failed_fraction=1.0)

    def settings(self) -> dict[str, Any]:
        """Release and organism; not the url, since a mirror holds the same data."""
        return {"source": "census", "release": self.release, "organism": self.organism}

    def open(self, workdir: Path) -> Bucket:
        """The files where they are; `workdir` is not used."""
        del workdir
        return Bucket(f"{self.url}/{self.release}", self.storage_options)

    def read_catalog(self, bucket: Bucket) -> pa.Table:
        """Read the table `census_info/datasets`, one row a dataset."""
        file_system, root = bucket.connect()
        table = _read_soma(bucket, "census_info/datasets")
        listed = {
            entry["name"].rsplit("/", 1)[-1]: entry
            for entry in file_system.ls(f"{root}/h5ads", detail=True)
        }
        rows: list[dict[str, Any]] = []
        for known in table.to_dict("records"):
            name = str(known.get("dataset_h5ad_path") or f"{known['dataset_id']}.h5ad")
            n_cells = int(known["dataset_total_cell_count"])
            row = make_row(str(known["dataset_id"]), f"h5ads/{name}", n_cells, listed.get(name, {}))
            rows.append({str(k): v for k, v in known.items() if k not in _OWN} | row)
        return make_catalog(rows)

    def read_gene_axis(self, bucket: Bucket) -> GeneAxis:
        """The Census's own genes, in their order."""
        var = _read_soma(bucket, f"census_data/{self.organism}/ms/RNA/var")
        return GeneAxis(tuple(map(str, var["feature_id"])), tuple(map(str, var["feature_name"])))


_READ = """
import sys, tiledb, pandas
with tiledb.open(sys.argv[1]) as array:
    values = array[:]
frame = pandas.DataFrame({name: values[name] for name in values})
for name in frame:
    if frame[name].map(lambda value: isinstance(value, bytes)).any():
        frame[name] = frame[name].map(bytes.decode)
frame.to_parquet(sys.argv[2])
"""
"""Reads a TileDB array and writes a Parquet table."""


def _read_soma(bucket: Bucket, table: str) -> pd.DataFrame:
    """A SOMA data frame, which is a TileDB array: copied, since it is small, and read."""
    if find_spec("tiledb") is None:
        raise ImportError("the Census's tables need tiledb: pip install 'scdiff_data[census]'")
    file_system, root = bucket.connect()
    place = f"{root}/soma/{table}"
    if not file_system.exists(place):
        raise FileNotFoundError(f"no table at {bucket.url}/soma/{table}: check source.release")
    with tempfile.TemporaryDirectory() as folder:
        file_system.get(place, f"{folder}/table", recursive=True)
        # TileDB's threads do not survive a fork, as data loaders' workers are made.
        read = [sys.executable, "-c", _READ, f"{folder}/table", f"{folder}/table.parquet"]
        subprocess.run(read, check=True)
        frame = pd.read_parquet(f"{folder}/table.parquet")
    order = "soma_joinid" if "soma_joinid" in frame else frame.columns[0]
    return frame.sort_values(order, ignore_index=True)
