"""The stages together: exact counts from any source, and nothing done twice."""

import threading
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pyarrow.parquet as pq

from scdiff_data import H5adFolder, Recipe, ScBaseCount, prepare
from scdiff_data.store.manifest import Manifest
from support.cases import ATLAS, ATLAS_SETTINGS, GcsServer, pbmc_recipe
from support.reading import read_archives, read_shards, read_table, source_counts


def test_every_count_arrives_through_a_gs_bucket(
    tmp_path: Path, gcs: GcsServer, atlas_bucket: Path
) -> None:
    gcs.put_folder("every-count", atlas_bucket)
    source = ScBaseCount(url="gs://every-count", storage_options=gcs.storage_options)
    manifest = prepare(Recipe(source=source, **ATLAS_SETTINGS), tmp_path)
    expected = source_counts(atlas_bucket)
    whole, chosen = read_archives(tmp_path), read_shards(tmp_path)
    for cells in (whole, chosen):
        for cell, counts in zip(cells.cell_ids, cells.counts, strict=True):
            wanted = [min(expected[cell][gene], 32_767) for gene in cells.gene_ids]
            assert counts.tolist() == wanted
    totals = read_table(tmp_path)["total_counts"].tolist()
    assert totals == [sum(expected[cell].values()) for cell in whole.cell_ids]
    passing = {cell for cell, counts in expected.items() if sum(counts.values()) >= 500}
    assert set(whole.cell_ids) == passing
    assert manifest.dropped["counts_saturated"] >= 1
    catalog = pq.read_table(tmp_path / "metadata" / "catalog.parquet")
    assert all(checksum.startswith("crc32c:") for checksum in catalog["checksum"].to_pylist())


def test_asking_twice_does_nothing(pbmc_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pbmc_dir.rglob("*") if path.name != ".lock"}
    prepare(pbmc_recipe(), pbmc_dir)
    after = {path: path.stat().st_mtime_ns for path in pbmc_dir.rglob("*") if path.name != ".lock"}
    assert after == before


def test_the_same_directory_serves_another_source_as_a_new_one_would(
    data_dir: Path, atlas_bucket: Path, atlas_dir: Path
) -> None:
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS)
    reused = prepare(recipe, data_dir, replace=True)
    assert replace(reused, data_dir=atlas_dir) == Manifest.read(atlas_dir)


def test_own_h5ad_files_become_a_data_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("mine", "yours"):
        counts = rng.poisson(1.0, (50, 30)).astype(np.float32)
        cells = ad.AnnData(counts)
        cells.var_names = [f"gene{i}" for i in range(30)]
        cells.obs_names = [f"cell{i}" for i in range(50)]
        (tmp_path / "files").mkdir(exist_ok=True)
        cells.write_h5ad(tmp_path / "files" / f"{name}.h5ad")
    recipe = Recipe(
        source=H5adFolder(str(tmp_path / "files")),
        min_genes=None,
        min_counts=None,
        labels=(),
        n_hvgs=None,
        split={"by": "cell"},
    )
    prepare(recipe, tmp_path / "data")
    cells = read_shards(tmp_path / "data")
    assert len(cells.cell_ids) == 100
    assert cells.gene_ids == sorted(f"gene{i}" for i in range(30))


def test_two_runs_on_one_directory_wait_for_each_other(tmp_path: Path) -> None:
    manifests: list[Manifest] = []
    threads = [
        threading.Thread(target=lambda: manifests.append(prepare(pbmc_recipe(), tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(manifests) == 2
    assert manifests[0] == manifests[1]


def test_the_simulated_atlas_prepares_itself(tmp_path: Path) -> None:
    manifest = prepare(Recipe(source=ATLAS, **ATLAS_SETTINGS), tmp_path)
    assert manifest.dropped["experiments_skipped"] == 2  # the empty one and the junk
