"""scBaseCount's catalog, from the bucket and from a mirror."""

import os
from pathlib import Path

import anndata as ad
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scdiff_data import ScBaseCount
from scdiff_data.sources.source import Bucket
from support.cases import GcsServer


def catalog_of(source: ScBaseCount) -> pa.Table:
    return source.read_catalog(source.open(Path()))


def test_the_catalog_has_one_row_an_experiment_with_rebuilt_paths(atlas_bucket: Path) -> None:
    catalog = catalog_of(ScBaseCount(url=str(atlas_bucket)))
    assert catalog.column_names[:5] == ["experiment_id", "path", "n_cells", "size", "checksum"]
    assert "tissue" in catalog.column_names
    assert "file_path" not in catalog.column_names  # it is stale upstream
    for row in catalog.to_pylist():
        path = atlas_bucket / row["path"]
        assert path.stat().st_size == row["size"]
        assert ad.read_h5ad(path, backed="r").n_obs == row["n_cells"]


def test_a_bucket_and_its_mirror_give_the_same_catalog_but_for_checksums(
    gcs: GcsServer, atlas_bucket: Path
) -> None:
    gcs.put_folder("mirrored", atlas_bucket)
    bucket = ScBaseCount(url="gs://mirrored", storage_options=gcs.storage_options)
    remote, local = catalog_of(bucket), catalog_of(ScBaseCount(url=str(atlas_bucket)))
    assert remote.drop_columns("checksum") == local.drop_columns("checksum")
    assert remote["checksum"].null_count == 0
    assert local["checksum"].null_count == len(local)
    assert bucket.settings() == ScBaseCount().settings()  # where it lies is not what it is


def test_no_credentials_are_looked_for(
    gcs: GcsServer, atlas_bucket: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials.json").write_text("garbage")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    gcs.put_folder("anonymous", atlas_bucket)
    bucket = Bucket("gs://anonymous", gcs.storage_options)
    file_system, root = bucket.connect()
    assert file_system.ls(root)
    assert file_system.credentials.token == "anon"
    assert not file_system.requester_pays
    assert file_system.requests_timeout == 120
    assert os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] == "false"


def test_a_release_that_is_not_there_names_the_settings(gcs: GcsServer, atlas_bucket: Path) -> None:
    for source in (
        ScBaseCount(release="1999-01-01", url=str(atlas_bucket)),
        ScBaseCount(release="1999-01-01", url="gs://nowhere", storage_options=gcs.storage_options),
    ):
        with pytest.raises(FileNotFoundError, match=r"check source\.release \(1999-01-01\)"):
            catalog_of(source)


def test_an_older_schema_is_read_too(tmp_path: Path, atlas_bucket: Path) -> None:
    source = ScBaseCount(release="2025-02-25", url=str(tmp_path))
    metadata = tmp_path / source.folder("metadata")
    metadata.mkdir(parents=True)
    (tmp_path / source.folder("h5ad")).mkdir(parents=True)
    few = pa.table({"srx_accession": ["SRX1"], "obs_count": pa.array([7], pa.int32())})
    pq.write_table(few, metadata / "sample_metadata.parquet")
    row = catalog_of(source).to_pylist()[0]
    assert (row["experiment_id"], row["n_cells"], row["size"]) == ("SRX1", 7, None)
    pq.write_table(few.drop_columns("obs_count"), metadata / "sample_metadata.parquet")
    with pytest.raises(ValueError, match="has no column 'obs_count'; it has"):
        catalog_of(source)
