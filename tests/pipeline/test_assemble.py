"""What a finished directory holds, and what is made again of it."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import scanpy as sc

from scdiff_data import ManifestError, prepare
from scdiff_data.store.manifest import Manifest
from support.cases import digest_tree, pbmc_recipe
from support.reading import read_shards


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
        label = shard["labels/cell_type"]
        words = label["categories"].asstr()[:][label["codes"][:]]
        experiment = shard["experiment_ids"].asstr()[0]
        cells = sc.read_h5ad(pbmc_dir / "cells" / f"{experiment}.h5ad")
        assert words[0] == cells.obs["cell_type"][shard["cell_ids"].asstr()[0]]
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


def test_other_hvgs_leave_the_archives_alone(data_dir: Path) -> None:
    archives = {path: path.stat().st_mtime_ns for path in (data_dir / "cells").iterdir()}
    statistics = {path: path.stat().st_mtime_ns for path in (data_dir / "statistics").iterdir()}
    manifest = prepare(pbmc_recipe(n_hvgs=32), data_dir)
    assert manifest.genes.n_chosen == 32
    assert len(read_shards(data_dir).gene_ids) == 32
    for path, then in (archives | statistics).items():
        assert path.stat().st_mtime_ns == then


def test_a_missing_or_shortened_file_is_made_again(data_dir: Path) -> None:
    whole = digest_tree(data_dir)
    (data_dir / "processed" / "batch_0001.h5").unlink()
    archive = data_dir / "cells" / "PBMC03.h5ad"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ManifestError, match=r"PBMC03\.h5ad has \d+ bytes.*prepare again"):
        Manifest.read(data_dir).check_files()
    prepare(pbmc_recipe(), data_dir)
    assert digest_tree(data_dir) == whole


def test_an_empty_split_is_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    recipe = pbmc_recipe(split={"by": "experiment", "val": 0.01, "test": 0.01})
    with pytest.raises(ValueError, match=r"the val split is empty.*split\.by=cell"):
        prepare(recipe, tmp_path)
