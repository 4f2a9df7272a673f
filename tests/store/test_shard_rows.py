"""Rows are gathered from shards; damaged or foreign shards are found before the first step."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data import ManifestError, Pbmc, ScRNADataModule, prepare
from scdiff_data.store.manifest import Manifest
from scdiff_data.store.shard_rows import ShardRows
from support.cases import PBMC_SETTINGS, pbmc_recipe


def open_shards(folder: Path) -> ShardRows:
    manifest = Manifest.read(folder)
    return ShardRows(manifest.shards, shard_size=300, n_cells=700)


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.integers(0, 699), min_size=1, max_size=50))
def test_gathered_rows_are_those_that_h5py_reads(pbmc_dir: Path, rows: list[int]) -> None:
    shards = open_shards(pbmc_dir)
    names = {"expression": "expression", "cell_id": "cell_ids", "total_counts": "total_counts"}
    for name, dataset in names.items():
        parts = []
        for path in Manifest.read(pbmc_dir).shards:
            with h5py.File(path) as shard:
                parts.append(shard[dataset][:])
        (found,) = shards.gather((name,), np.array(rows))
        assert np.array_equal(found, np.concatenate(parts)[rows])


def test_only_the_first_genes_are_gathered_when_asked(pbmc_dir: Path) -> None:
    shards = open_shards(pbmc_dir)
    rows = np.array([3, 650])
    (whole,) = shards.gather(("expression",), rows)
    (part,) = shards.gather(("expression",), rows, width=5)
    assert np.array_equal(part, whole[:, :5])


def test_no_rows_are_an_empty_array(pbmc_dir: Path) -> None:
    (nothing,) = open_shards(pbmc_dir).gather(("expression",), np.array([], np.int64))
    assert nothing.shape == (0, 64)


def test_a_pickled_map_is_small_and_gathers_the_same(pbmc_dir: Path) -> None:
    shards = open_shards(pbmc_dir)
    rows = np.arange(700)
    (whole,) = shards.gather(("expression",), rows)
    pickled = pickle.dumps(shards)
    assert len(pickled) < 20_000  # paths and names, no counts
    assert np.array_equal(pickle.loads(pickled).gather(("expression",), rows)[0], whole)


PLACE = "processed/batch_0001.h5"


def set_up(data_dir: Path, **how: Any) -> None:
    settings = PBMC_SETTINGS | {"batch_size": 32} | how
    ScRNADataModule(Pbmc(), data_dir, **settings).setup("fit")


def test_whole_data_pass_both_checks(data_dir: Path) -> None:
    set_up(data_dir)
    set_up(data_dir, verify="full")


def test_a_truncated_shard_is_found(data_dir: Path) -> None:
    whole = (data_dir / PLACE).read_bytes()
    (data_dir / PLACE).write_bytes(whole[:-1000])
    with pytest.raises(ManifestError, match=r"batch_0001.h5 has \d+ bytes.*prepare again"):
        set_up(data_dir)


def test_a_shard_without_its_header_is_found(data_dir: Path) -> None:
    size = (data_dir / PLACE).stat().st_size
    (data_dir / PLACE).write_bytes(bytes(size))
    with pytest.raises(ManifestError, match=r"batch_0001.h5 is damaged.*delete it and config.json"):
        set_up(data_dir)


def test_a_shard_of_another_run_is_found(data_dir: Path, tmp_path: Path) -> None:
    prepare(pbmc_recipe(seed=7), tmp_path / "other")
    foreign = tmp_path / "other" / PLACE
    assert foreign.stat().st_size == (data_dir / PLACE).stat().st_size
    shutil.copy(foreign, data_dir / PLACE)
    with pytest.raises(ManifestError, match=r"batch_0001.h5 is of another run: it has key"):
        set_up(data_dir)


def test_a_shard_in_anothers_place_is_found_by_its_length(data_dir: Path) -> None:
    last = data_dir / "processed" / "batch_0002.h5"
    shutil.copy(last, data_dir / PLACE)
    manifest = json.loads((data_dir / "config.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == PLACE:
            entry["size"] = last.stat().st_size
    (data_dir / "config.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"\(100, 64\).*says .*\(300, 64\)"):
        set_up(data_dir)


def test_a_changed_byte_is_found_when_every_byte_is_compared(data_dir: Path) -> None:
    with h5py.File(data_dir / PLACE, "r+") as file:
        file["expression"][5, 5] += 1
    set_up(data_dir)
    with pytest.raises(ManifestError, match=r"batch_0001.h5 has another checksum"):
        set_up(data_dir, verify="full")


def test_how_to_verify_is_one_of_two(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="verify must be headers or full, got 'all'"):
        set_up(data_dir, verify="all")
