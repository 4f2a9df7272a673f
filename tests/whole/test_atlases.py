"""Atlases laid out as the real ones, on a real server of their protocol, become data sets."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from omegaconf import OmegaConf

from scdiff_data import Census, H5adCollection, Recipe, Tahoe100M, prepare
from support.cases import TESTS, GcsServer
from support.h5ad import counts_of
from support.reading import read_shards

SETTINGS: dict[str, Any] = {
    "min_genes": None,
    "min_counts": None,
    "n_hvgs": None,
    "split": {"by": "cell", "val": 0, "test": 0},
}
IDS = [f"ENSG{i:011d}" for i in range(40)]
SYMBOLS = [f"GENE{i}" for i in range(40)]


WRITE = """
import sys, pandas, tiledb
frame = pandas.read_parquet(sys.argv[1])
tiledb.from_pandas(sys.argv[2], frame, sparse=True, index_dims=["soma_joinid"])
"""


def read_config(name: str) -> dict[str, Any]:
    """A preset's settings of its source, and its filters on cells."""
    path = TESTS.parent / "configs" / "data" / f"{name}.yaml"
    config: Any = OmegaConf.to_container(OmegaConf.load(path))
    return config


def write(path: Path, counts: np.ndarray, obs: dict[str, Any], var: pd.DataFrame) -> ad.AnnData:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(counts))])
    cells = ad.AnnData(sp.csr_matrix(counts), frame, var)
    cells.write_h5ad(path)
    return cells


def test_samples_of_tahoes_plates_are_experiments(tmp_path: Path, gcs: GcsServer) -> None:
    config = read_config("tahoe100m")
    folder = tmp_path / "bucket" / config["source"]["folder"]
    var = pd.DataFrame({"gene_id": IDS}, index=SYMBOLS)
    obs_metadata = []
    for number in (1, 10):
        plate, n = f"plate{number}", 30
        obs = pd.DataFrame(
            {
                "sample": [f"smp_{number}_{i % 3}" for i in range(n)],
                "plate": plate,
                "pass_filter": ["full", "minimal"] * (n // 2),
                "drugname_drugconc": "[('DMSO_TF', 0.0, 'uM')]",
            }
        )
        counts = counts_of(number, n)
        write(
            folder / "h5ad" / f"{plate}_filt_Vevo_Tahoe100M_WServicesFrom_ParseGigalab.h5ad",
            counts,
            {k: list(obs[k]) for k in obs},
            var,
        )
        obs_metadata.append(obs)
    (folder / "metadata").mkdir()
    whole = pd.concat(obs_metadata)
    whole.to_parquet(folder / "metadata" / "obs_metadata.parquet")
    samples = whole[["sample", "plate"]].drop_duplicates()
    samples.assign(drug=[f"drug {i}" for i in range(6)]).to_parquet(
        folder / "metadata" / "sample_metadata.parquet"
    )
    gcs.put_folder("tahoe", tmp_path / "bucket")
    source = Tahoe100M(
        url="gs://tahoe",
        files=config["source"]["files"],
        folder=config["source"]["folder"],
        storage_options=gcs.storage_options,
    )
    recipe = Recipe(source=source, cell_filters=config["cell_filters"], labels=["drug"], **SETTINGS)
    manifest = prepare(recipe, tmp_path / "data")
    table = pd.read_parquet(tmp_path / "data" / "metadata" / "cells.parquet")
    assert table["experiment_id"].nunique() == 6
    assert manifest.dropped["cells_filtered"] == 30
    assert sorted(set(table["drug"])) == [f"drug {i}" for i in range(6)]
    cells = read_shards(tmp_path / "data")
    assert cells.gene_ids == IDS
    for cell_id, row in zip(cells.cell_ids, cells.counts, strict=True):
        plate, number = cell_id.split(".")[0], int(cell_id.rsplit("_cell", 1)[1])
        assert number % 2 == 0
        assert np.array_equal(row, counts_of(int(plate.removeprefix("plate")), 30)[number])


def test_the_censuss_datasets_are_experiments_over_its_genes(
    tmp_path: Path, gcs: GcsServer
) -> None:
    if find_spec("tiledb") is None:
        pytest.skip("tiledb is not installed")
    config = read_config("census")
    release = tmp_path / "bucket" / config["source"]["release"]
    normalised = pd.DataFrame({"feature_name": SYMBOLS}, index=IDS)
    primary = {"is_primary_data": [True, False] * 10, "cell_type": ["T cell", "B cell"] * 10}
    cells = write(release / "h5ads" / "one.h5ad", counts_of(1, 20), primary, normalised)
    logs = cells.copy()
    logs.X = sp.csr_matrix(np.log1p(cells.X.toarray()))
    logs.raw = cells  # X is normalised, the counts are in raw
    logs.write_h5ad(release / "h5ads" / "one.h5ad")
    write(release / "h5ads" / "two.h5ad", counts_of(2, 20)[:, :30], primary, normalised[:30])
    mouse = normalised.set_axis([f"ENSMUSG{i:011d}" for i in range(40)])
    write(release / "h5ads" / "mouse.h5ad", counts_of(3, 20), primary, mouse)
    tables = {
        "census_info/datasets": {
            "dataset_id": ["one", "two", "mouse"],
            "collection_doi": ["10.1/1", "10.1/2", "10.1/3"],
            "dataset_h5ad_path": ["one.h5ad", "two.h5ad", "mouse.h5ad"],
            "dataset_total_cell_count": [20, 20, 20],
        },
        "census_data/homo_sapiens/ms/RNA/var": {"feature_id": IDS, "feature_name": SYMBOLS},
    }
    for name, columns in tables.items():
        place = release / "soma" / name
        place.parent.mkdir(parents=True)
        frame = pd.DataFrame(columns)
        frame.insert(0, "soma_joinid", np.arange(len(frame)))
        frame.to_parquet(tmp_path / "table.parquet")
        # TileDB's threads do not survive the forks of later tests.
        write_table = [sys.executable, "-c", WRITE, str(tmp_path / "table.parquet"), str(place)]
        subprocess.run(write_table, check=True)
    gcs.put_folder("census", tmp_path / "bucket")
    source = Census(
        release=config["source"]["release"],
        url="gs://census",
        storage_options=gcs.storage_options,
    )
    recipe = Recipe(
        source=source, cell_filters=config["cell_filters"], labels=["cell_type"], **SETTINGS
    )
    manifest = prepare(recipe, tmp_path / "data")
    assert manifest.dropped["experiments_failed"] == 1  # of another organism
    found = read_shards(tmp_path / "data")
    assert found.gene_ids == IDS
    assert len(found.cell_ids) == 20
    for cell_id, row in zip(found.cell_ids, found.counts, strict=True):
        name, number = cell_id.split("_cell")
        expected = counts_of({"one": 1, "two": 2}[name], 20)[int(number)]
        n = 40 if name == "one" else 30
        assert np.array_equal(row, np.r_[expected[:n], np.zeros(40 - n)])


def test_batches_of_the_challenge_are_experiments(tmp_path: Path, gcs: GcsServer) -> None:
    config = read_config("vcc2025")["source"]
    del config["_target_"], config["storage_options"]
    obs = {
        "batch": [f"Flex_{i % 4}" for i in range(20)],
        "target_gene": ["A", "non-targeting"] * 10,
    }
    write(tmp_path / "bucket" / config["files"], counts_of(0, 20), obs, pd.DataFrame(index=SYMBOLS))
    gcs.put_folder("challenge", tmp_path / "bucket")
    source = H5adCollection(
        **(config | {"url": "gs://challenge"}), storage_options=gcs.storage_options
    )
    recipe = Recipe(source=source, labels=["target_gene"], cell_count=12, **SETTINGS)
    prepare(recipe, tmp_path / "data")
    cells = read_shards(tmp_path / "data")
    assert cells.gene_ids == SYMBOLS
    for cell_id, row in zip(cells.cell_ids, cells.counts, strict=True):
        assert np.array_equal(row, counts_of(0, 20)[int(cell_id.rsplit("_cell", 1)[1])])
    settings = source.settings()
    assert settings == H5adCollection(**(config | {"url": "elsewhere"})).settings()


def test_a_collection_without_files_says_what_to_check() -> None:
    source = H5adCollection("none", "memory://nowhere")
    with pytest.raises(FileNotFoundError, match=r"no file at memory://nowhere/\*\.h5ad: check"):
        source.read_catalog(source.open(Path()))
