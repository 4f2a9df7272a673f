"""The stages together: exact counts, resuming after kills, skipping what is done."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import scanpy as sc
from cases import ATLAS, GcsServer, pbmc_recipe
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_configs import compose

from scdiff_data import (
    DownloadError,
    H5adFolder,
    HVGDataset,
    ManifestError,
    Recipe,
    ScBaseCount,
    ScRNADataset,
    prepare,
)
from scdiff_data.store.manifest import Manifest

ATLAS_SETTINGS = {
    "min_genes": 50,
    "min_counts": 500,
    "n_hvgs": 100,
    "split": {"by": "cell"},
    "shard_size": 64,
}


def digest_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the lock."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def source_counts(bucket: Path) -> dict[str, dict[str, int]]:
    """Every cell's counts by gene id, read from the bucket's files by anndata alone."""
    cells = {}
    for path in bucket.rglob("*.h5ad"):
        experiment = ad.read_h5ad(path)
        genes = [gene.split(".")[0] for gene in experiment.var_names]
        for barcode, counts in zip(experiment.obs_names, experiment.X.toarray(), strict=True):
            cells[f"{path.stem}_{barcode}"] = dict(zip(genes, counts.astype(int), strict=True))
    return cells


def test_every_count_arrives_through_a_gs_bucket(
    tmp_path: Path, gcs: GcsServer, atlas_bucket: Path
) -> None:
    gcs.put_folder("every-count", atlas_bucket)
    config = compose(
        tmp_path / "run",
        "data=scbasecount",
        "data.source.url=gs://every-count",
        f"+data.source.storage_options.endpoint_url={gcs.url}",
        f"data.data_dir={tmp_path}",
        "data.cell_count=null",
        "data.labels=[cell_type]",
        *(f"data.{name}={ATLAS_SETTINGS[name]}" for name in ("min_genes", "n_hvgs", "shard_size")),
        "data.split.by=cell",
    )
    datamodule = instantiate(config.data)
    datamodule.prepare_data()
    manifest = Manifest.read(tmp_path)
    expected = source_counts(atlas_bucket)
    whole, chosen = ScRNADataset(tmp_path), HVGDataset(tmp_path)
    for dataset in (whole, chosen):
        expression, metadata = dataset[:]
        for cell, counts in zip(metadata["cell_id"], expression.numpy(), strict=True):
            wanted = [min(expected[cell][gene], 32_767) for gene in dataset.gene_ids]
            assert counts.tolist() == wanted
    totals = whole[:].metadata["total_counts"].tolist()
    assert totals == [sum(expected[cell].values()) for cell in whole[:].metadata["cell_id"]]
    passing = {cell for cell, counts in expected.items() if sum(counts.values()) >= 500}
    assert set(whole[:].metadata["cell_id"]) == passing
    assert manifest.dropped["counts_saturated"] >= 1
    catalog = pq.read_table(tmp_path / "metadata" / "catalog.parquet")
    assert all(checksum.startswith("crc32c:") for checksum in catalog["checksum"].to_pylist())


def test_files_on_disk_are_as_the_format_says(pbmc_dir: Path) -> None:
    for path in (pbmc_dir / "cells").glob("*.h5ad"):
        cells = sc.read_h5ad(path)
        assert cells.X.dtype == np.int16
        assert cells.obs_names[0].startswith(f"{path.stem}_")
    with h5py.File(pbmc_dir / "processed" / "batch_0000.h5") as shard:
        assert shard["expression"].dtype == np.int16
        assert shard["expression"].shape == (300, 64)
        assert shard["expression"].chunks is None
        assert shard["cell_ids"].shape == shard["experiment_ids"].shape == (300,)
        assert shard["total_counts"].dtype == np.int32
        labels = ad.io.read_elem(shard["labels/cell_type"])
        assert "CD19+ B" in labels.categories
    hvg_info = json.loads((pbmc_dir / "hvg_info.json").read_text())
    assert {"hvg_indices", "hvg_names", "gene_to_hvg_idx", "statistics"} <= set(hvg_info)
    assert hvg_info["gene_to_hvg_idx"][hvg_info["hvg_names"][5]] == 5
    cells = pq.read_table(pbmc_dir / "metadata" / "cells.parquet")
    assert {"cell_id", "experiment_id", "split", "shard", "row", "cell_type"} <= set(
        cells.column_names
    )
    experiments = json.loads((pbmc_dir / "metadata" / "experiments.json").read_text())
    assert [entry["status"] for entry in experiments] == ["drawn"] * 7
    assert (pbmc_dir / "hvg_analysis.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((pbmc_dir / "config.json").read_text())
    for entry in manifest["files"]:
        path = pbmc_dir / entry["path"]
        assert path.stat().st_size == entry["size"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


def test_nothing_on_disk_holds_an_absolute_path_or_a_time(pbmc_dir: Path, tmp_path: Path) -> None:
    prepare(pbmc_recipe(), tmp_path / "elsewhere")
    assert digest_tree(tmp_path / "elsewhere") == digest_tree(pbmc_dir)


def test_asking_twice_does_nothing(pbmc_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pbmc_dir.rglob("*") if path.name != ".lock"}
    prepare(pbmc_recipe(), pbmc_dir)
    after = {path: path.stat().st_mtime_ns for path in pbmc_dir.rglob("*") if path.name != ".lock"}
    assert after == before


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cell_count=st.integers(1, 230))
def test_exactly_cell_count_cells_that_pass_quality_are_drawn(
    tmp_path_factory: pytest.TempPathFactory, atlas_bucket: Path, cell_count: int
) -> None:
    no_split = ATLAS_SETTINGS | {"split": {"by": "cell", "val": 0.0, "test": 0.0}}
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), cell_count=cell_count, **no_split)
    manifest = prepare(recipe, tmp_path_factory.mktemp("drawn"))
    assert sum(manifest.n_cells.values()) == cell_count
    assert len(HVGDataset(manifest.data_dir)) == cell_count


def test_a_larger_cell_count_keeps_all_cells_and_fetches_only_what_is_missing(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), cell_count=100, **ATLAS_SETTINGS)
    prepare(recipe, tmp_path)
    small = cells_by_split(tmp_path)
    archives = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.h5ad")}
    larger = Recipe(source=ScBaseCount(url=str(atlas_bucket)), cell_count=200, **ATLAS_SETTINGS)
    prepare(larger, tmp_path)
    large = cells_by_split(tmp_path)
    for split in ("train", "val", "test"):
        assert small[split] <= large[split]
    assert all(path.stat().st_mtime_ns == then for path, then in archives.items())


def cells_by_split(folder: Path) -> dict[str, set[str]]:
    cells = pq.read_table(folder / "metadata" / "cells.parquet").to_pandas()
    return {
        str(name): set(group["cell_id"]) for name, group in cells.groupby("split", observed=True)
    }


def test_other_hvgs_leave_the_archives_alone(tmp_path: Path) -> None:
    prepare(pbmc_recipe(), tmp_path)
    archives = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    statistics = {path: path.stat().st_mtime_ns for path in (tmp_path / "statistics").iterdir()}
    manifest = prepare(pbmc_recipe(n_hvgs=32), tmp_path)
    assert manifest.genes.n_chosen == 32
    assert len(HVGDataset(tmp_path).gene_ids) == 32
    for path, then in (archives | statistics).items():
        assert path.stat().st_mtime_ns == then


def test_the_same_directory_serves_another_source_as_a_new_one_would(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS)
    prepare(pbmc_recipe(), tmp_path / "reused")
    reused = prepare(recipe, tmp_path / "reused")
    fresh = prepare(recipe, tmp_path / "fresh")
    assert replace(reused, data_dir=fresh.data_dir) == fresh


def test_a_missing_or_shortened_file_is_made_again(tmp_path: Path) -> None:
    prepare(pbmc_recipe(), tmp_path)
    whole = digest_tree(tmp_path)
    (tmp_path / "processed" / "batch_0001.h5").unlink()
    archive = tmp_path / "cells" / "PBMC03.h5ad"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ManifestError, match=r"PBMC03\.h5ad has \d+ bytes.*prepare again"):
        Manifest.read(tmp_path).check_files()
    prepare(pbmc_recipe(), tmp_path)
    assert digest_tree(tmp_path) == whole


def test_a_broken_experiment_is_recorded_and_the_draw_goes_on(
    tmp_path: Path, atlas_bucket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = tmp_path / "bucket"
    for path in atlas_bucket.rglob("*"):
        if path.is_file():
            copy = bucket / path.relative_to(atlas_bucket)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    victim = sorted(bucket.rglob("*.h5ad"))[1]
    victim.write_bytes(b"not an h5ad file")
    recipe = Recipe(source=ScBaseCount(url=str(bucket)), cell_count=150, **ATLAS_SETTINGS)
    manifest = prepare(recipe, tmp_path / "data")
    experiments = json.loads((tmp_path / "data/metadata/experiments.json").read_text())
    failed = [entry for entry in experiments if entry["status"] == "failed"]
    assert [entry["experiment_id"] for entry in failed] == [victim.stem]
    assert "not a readable h5ad file" in failed[0]["reason"]
    assert sum(manifest.n_cells.values()) == 150
    assert "left out for good" in caplog.text

    whole = next(path for path in atlas_bucket.rglob("*.h5ad") if path.name == victim.name)
    victim.write_bytes(whole.read_bytes())
    again = prepare(recipe, tmp_path / "data")  # it stays skipped …
    assert again.dropped["experiments_failed"] == 1
    retried = prepare(recipe, tmp_path / "data", refresh_catalog=True, retry_failed=True)
    assert retried.dropped["experiments_failed"] == 0  # … until it is asked for


def test_too_few_cells_is_an_error_that_says_what_there_is(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    source = ScBaseCount(url=str(atlas_bucket))
    with pytest.raises(ValueError, match=r"cell_count=5000.*hold at most 300 cells.*lower"):
        prepare(Recipe(source=source, cell_count=5000, **ATLAS_SETTINGS), tmp_path / "a")
    assert not list((tmp_path / "a").glob("cells/*"))  # found before any download
    with pytest.raises(ValueError, match=r"cell_count=290.*only \d+ pass QC.*min_counts=500"):
        prepare(Recipe(source=source, cell_count=290, **ATLAS_SETTINGS), tmp_path / "b")


def test_an_unreachable_bucket_stops_the_run_and_fails_no_experiment(
    tmp_path: Path, atlas_bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS)
    real = ScBaseCount.open

    def open_then_forbid(source: ScBaseCount, workdir: Path) -> object:
        bucket = real(source, workdir)
        file_system, _ = bucket.connect()
        monkeypatch.setattr(type(file_system), "cat_file", forbid)
        return bucket

    def forbid(*_: object, **__: object) -> bytes:
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(ScBaseCount, "open", open_then_forbid)
    with pytest.raises(DownloadError, match=r"403.*storage_options"):
        prepare(recipe, tmp_path)
    assert not list((tmp_path / "cells").glob("*.json"))


def test_an_empty_split_is_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    recipe = pbmc_recipe(split={"by": "experiment", "val": 0.01, "test": 0.01})
    with pytest.raises(ValueError, match=r"the val split is empty.*split\.by=cell"):
        prepare(recipe, tmp_path)


def test_a_split_by_named_values_follows_the_column(tmp_path: Path) -> None:
    recipe = pbmc_recipe(split={"by": "cell_type", "test": ["cd19+ b"], "val": "CD34+"})
    prepare(recipe, tmp_path)
    cells = pq.read_table(tmp_path / "metadata" / "cells.parquet").to_pandas()
    assert set(cells.query("split == 'test'")["cell_type"]) == {"CD19+ B"}
    assert set(cells.query("split == 'val'")["cell_type"]) == {"CD34+"}
    assert not {"CD19+ B", "CD34+"} & set(cells.query("split == 'train'")["cell_type"])


def test_an_unknown_label_is_told_at_the_first_experiment_and_an_error_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"label 'celltype'.*'cell_type'"):
        prepare(pbmc_recipe(labels=("celltype", "tissue")), tmp_path)
    (warning,) = (r.getMessage() for r in caplog.records if "celltype" in r.getMessage())
    assert "name ['celltype'], which neither" in warning
    assert "'cell_type'" in warning


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
    dataset = HVGDataset(tmp_path / "data")
    assert len(dataset) == 100
    assert dataset.gene_ids == [f"gene{i}" for i in range(30)]


KILL_SCRIPT = """
import os, signal, sys
import scdiff_data.{module} as room
from cases import ATLAS
from scdiff_data import Recipe, ScBaseCount, prepare
from test_prepare import ATLAS_SETTINGS

real = room.{function}
calls = 0

def kill_at(*args, **kwargs):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

room.{function} = kill_at
import scdiff_data.sources.downloads
scdiff_data.sources.downloads.RANGE_BYTES = 4096
prepare(Recipe(source=ScBaseCount(url=sys.argv[1]), **ATLAS_SETTINGS), sys.argv[2], n_threads=2)
"""


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        pytest.param("sources.downloads", "_verify", 3, id="mid-download"),
        pytest.param("archive.convert", "transpose", 2, id="mid-archive"),
        pytest.param("store.shards", "_write_expression", 3, id="mid-shards"),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path, module: str, function: str, call: int
) -> None:
    script = KILL_SCRIPT.format(module=module, function=function, call=call)
    killed = subprocess.run(
        [sys.executable, "-c", script, str(atlas_bucket), str(tmp_path / "killed")],
        cwd=Path(__file__).parent,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "config.json").exists()
    left_behind = digest_tree(tmp_path / "killed")
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS)
    prepare(recipe, tmp_path / "killed")
    prepare(recipe, tmp_path / "undisturbed")
    assert digest_tree(tmp_path / "killed") == digest_tree(tmp_path / "undisturbed")
    assert left_behind, "the kill came before anything was written"


def test_runs_killed_at_any_time_go_on_to_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    command = [
        *(sys.executable, "-c"),
        KILL_SCRIPT.format(module="download", function="_verify", call=10**9),
        *(str(atlas_bucket), str(tmp_path / "killed")),
    ]
    wait, kills = 0.2, 0
    while True:
        process = subprocess.Popen(command, cwd=Path(__file__).parent)
        started = tmp_path / "killed" / ".lock"
        while process.poll() is None and not started.exists():
            time.sleep(0.01)  # importing takes longer than preparing: count from the first file
        try:
            process.wait(wait)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, wait = kills + 1, wait * 3
    assert process.returncode == 0
    assert kills > 0
    prepare(
        Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS),
        tmp_path / "undisturbed",
    )
    assert digest_tree(tmp_path / "killed") == digest_tree(tmp_path / "undisturbed")


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


@pytest.mark.parametrize(
    "split",
    [{"by": "experiment", "val": 0.2, "test": 0}, {"by": "cell", "val": 0.2, "test": 0.2}],
)
def test_however_far_the_draw_grows_no_held_out_cell_is_ever_trained_on(
    tmp_path: Path, split: dict[str, Any]
) -> None:
    cells: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for cell_count in (300, 450, 700):
        prepare(pbmc_recipe(cell_count=cell_count, split=split, seed=6), tmp_path)
        for name, earlier in cells.items():
            found = set(HVGDataset(tmp_path, split=name)[:].metadata["cell_id"].tolist())
            assert earlier <= found
            cells[name] = found
        assert not cells["train"] & (cells["val"] | cells["test"])
        assert len(set.union(*cells.values())) == cell_count


def test_named_experiments_are_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = {"by": "experiment_id", "val": ["PBMC01", "PBMC99"], "test": ["pbmc03"]}
    manifest = prepare(pbmc_recipe(split=split), tmp_path)
    for name, wanted in (("val", {"PBMC01"}), ("test", {"PBMC03"})):
        found = HVGDataset(tmp_path, split=name)[:].metadata["experiment_id"]
        assert set(found) == wanted
    assert manifest.n_experiments == {"train": 5, "val": 1, "test": 1}
    assert "split.val names ['PBMC99'], which no cell has as experiment_id" in caplog.text


def test_a_columns_named_values_are_held_out(tmp_path: Path) -> None:
    split = {"by": "cell_type", "test": ["CD56+ NK"]}
    prepare(pbmc_recipe(split=split), tmp_path)
    held_out, trained = (HVGDataset(tmp_path, split=name) for name in ("test", "train"))
    code = held_out.categories["cell_type"].index("CD56+ NK")
    assert set(held_out[:].metadata["cell_type"].tolist()) == {code}
    assert code not in trained[:].metadata["cell_type"].tolist()
