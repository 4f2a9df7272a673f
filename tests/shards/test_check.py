"""Damaged or foreign shards are found before the first step."""

import json
import shutil
from pathlib import Path

import h5py
import pytest

from scdiff_data import ManifestError, prepare
from scdiff_data.base import write_sealed
from scdiff_data.shards.contents import check_shards
from scdiff_data.store.manifest import Manifest
from support.cases import pbmc_recipe

PLACE = "processed/batch_0001.h5"


def check(data_dir: Path, *, full: bool = False) -> None:
    check_shards(Manifest.read(data_dir), full=full)


def test_whole_data_pass_both_checks(data_dir: Path) -> None:
    check(data_dir)
    check(data_dir, full=True)


def test_a_truncated_shard_is_found(data_dir: Path) -> None:
    whole = (data_dir / PLACE).read_bytes()
    (data_dir / PLACE).write_bytes(whole[:-1000])
    with pytest.raises(ManifestError, match=r"batch_0001.h5 has \d+ bytes.*prepare again"):
        check(data_dir)


def test_a_shard_without_its_header_is_found(data_dir: Path) -> None:
    size = (data_dir / PLACE).stat().st_size
    (data_dir / PLACE).write_bytes(bytes(size))
    with pytest.raises(ManifestError, match=r"batch_0001.h5 is damaged.*delete it and config.json"):
        check(data_dir)


def test_a_shard_of_another_run_is_found(data_dir: Path, tmp_path: Path) -> None:
    prepare(pbmc_recipe(seed=7), tmp_path / "other")
    foreign = tmp_path / "other" / PLACE
    assert foreign.stat().st_size == (data_dir / PLACE).stat().st_size
    shutil.copy(foreign, data_dir / PLACE)
    with pytest.raises(ManifestError, match=r"batch_0001.h5 is of another run: it has key"):
        check(data_dir)


def test_a_shard_in_anothers_place_is_found_by_its_length(data_dir: Path) -> None:
    last = data_dir / "processed" / "batch_0002.h5"
    shutil.copy(last, data_dir / PLACE)
    manifest = json.loads((data_dir / "config.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == PLACE:
            entry["size"] = last.stat().st_size
    write_sealed(data_dir / "config.json", manifest)
    with pytest.raises(ManifestError, match=r"\(100, 64\).*says .*\(300, 64\)"):
        check(data_dir)


def test_a_changed_byte_is_found_when_every_byte_is_compared(data_dir: Path) -> None:
    with h5py.File(data_dir / PLACE, "r+") as file:
        file["expression"][5, 5] += 1
    check(data_dir)
    with pytest.raises(ManifestError, match=r"batch_0001.h5 has another checksum"):
        check(data_dir, full=True)
