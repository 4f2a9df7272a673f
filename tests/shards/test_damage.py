"""Shards that are damaged, or were replaced while they were open, are an error that names them."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scdiff_data import (
    ManifestError,
    choose_genes_again,
    convert_shards,
    prepare,
)
from scdiff_data.base import write_sealed
from scdiff_data.shards.rows import ShardRows
from scdiff_data.store.manifest import Manifest
from support.cases import pbmc_recipe

COLUMNS = ("expression", "total_counts", "cell_type")


def open_shards(folder: Path) -> ShardRows:
    return ShardRows(Manifest.read(folder))


def choose_other_genes(data_dir: Path) -> None:
    choose_genes_again(data_dir, replace=True, flavor="seurat")


def choose_fewer(data_dir: Path) -> None:
    choose_genes_again(data_dir, replace=True, n_hvgs=40)


def draw_others(data_dir: Path) -> None:
    prepare(pbmc_recipe(seed=7), data_dir, replace=True)


def make_compact(data_dir: Path) -> None:
    convert_shards(data_dir, "compact")


def draw_fewer(data_dir: Path) -> None:
    prepare(pbmc_recipe(cell_count=250), data_dir)  # of three shards one stays


@pytest.mark.parametrize("workers", [False, True])
@pytest.mark.parametrize(
    "change", [choose_other_genes, choose_fewer, draw_others, make_compact, draw_fewer]
)
def test_shards_that_another_run_replaced_are_refused_and_mapped_ones_stay(
    data_dir: Path, change: Callable[[Path], None], workers: bool
) -> None:
    shards = open_shards(data_dir)
    rows = np.arange(700)
    (before,) = shards.gather(("expression",), rows)
    late = open_shards(data_dir)
    if workers:
        late = pickle.loads(pickle.dumps(late))
    change(data_dir)
    with pytest.raises(ManifestError, match=r"batch_000\d\.h5 was replaced by another run"):
        late.gather(("expression",), rows)
    assert np.array_equal(shards.gather(("expression",), rows)[0], before)


def cut(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values = file[name][:-1]
        del file[name]
        file[name] = values

    return change


def point_beyond(file: h5py.File) -> None:
    codes = file["labels/cell_type/codes"]
    codes[5] = 100


def widen(file: h5py.File) -> None:
    values = file["expression"][:].astype(np.int32)
    del file["expression"]
    file["expression"] = values


def exchange(file: h5py.File) -> None:
    del file["labels/cell_type/codes"]
    file["labels/cell_type/codes"] = file["experiment_ids"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange, r"cell_type has \d+ bytes, not 300"),
        (cut("total_counts"), "total_counts has 1196 bytes, not 1200"),
        (cut("expression"), "expression has 38272 bytes, not 38400"),
        (cut("labels/cell_type/codes"), "cell_type has 299 bytes, not 300"),
        (widen, "expression has 76800 bytes"),
        (point_beyond, "a code of cell_type stands for none of 10 words"),
    ],
)
def test_columns_that_cannot_be_are_named(
    data_dir: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    path = data_dir / "processed" / "batch_0001.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(
        ManifestError, match=rf"batch_0001\.h5 is damaged, or .*batch_0000\.h5, is.*\({message}"
    ):
        open_shards(data_dir).gather(COLUMNS, np.array([400]))
    with h5py.File(data_dir / "processed" / "batch_0000.h5", "r+") as file:
        change(file)
    with pytest.raises(ManifestError, match=r"batch_0000\.h5"):  # whichever shard is asked for
        open_shards(data_dir).gather(COLUMNS, np.array([5, 600]))


def test_texts_of_a_shard_need_no_heap_whose_damage_could_hang_a_reader(data_dir: Path) -> None:
    for kind in ("dense", "compact"):
        convert_shards(data_dir, kind)
        for path in (data_dir / "processed").iterdir():
            assert b"GCOL" not in path.read_bytes()


def test_replaced_genes_of_places_that_are_not_there_are_refused(data_dir: Path) -> None:
    prepare(pbmc_recipe(fallback_min_genes=30), data_dir, replace=True)
    path = data_dir / "processed" / "batch_0000.h5"
    whole = path.read_bytes()
    # A place too large in `genes` is what only the table of genes could say.
    for name, value in [
        *(("indptr", -5), ("indptr", 10**6), ("slots", -5), ("slots", 10**6), ("genes", -5))
    ]:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            file[f"fallback/{name}"][7] = value
        shards = open_shards(data_dir)
        with pytest.raises(ManifestError, match=r"batch_0000\.h5 is damaged \(its fallback names"):
            shards.gather_gene_ids(np.arange(20), 64)


def set_train(n: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["cells"]["train"] = n

    return change


def set_shard_size(n: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["recipe"]["shard_size"] = n

    return change


def name_elsewhere(content: dict[str, Any]) -> None:
    entry = next(e for e in content["files"] if e["path"].startswith("processed/"))
    entry["path"] = "processed/../../other.h5"


@pytest.mark.parametrize(
    "change",
    [set_train(n) for n in (-5, 5600, 10, "560", 1.5)]
    + [set_shard_size(n) for n in (0, -1, 200, True)]
    + [name_elsewhere]
    + [lambda c, name=name: c.pop(name) for name in ("files", "cells", "recipe", "genes")],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_manifest_that_cannot_be_is_refused(
    data_dir: Path, change: Callable[[dict[str, Any]], None], sealed: bool
) -> None:
    path = data_dir / "config.json"
    content = json.loads(path.read_text())
    shutil.copy(data_dir / "processed" / "batch_0000.h5", data_dir.parent / "other.h5")
    change(content)
    if sealed:
        write_sealed(path, content)
    else:
        path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=r"config\.json is damaged"):
        open_shards(data_dir)
