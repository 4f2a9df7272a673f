"""All genes of cells: what is damaged or was replaced is named, and never read as other counts."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scdiff_data import HVGDataset, Manifest, ManifestError, ScRNADataset, prepare
from scdiff_data.archive import rows as module
from scdiff_data.base import hash_file, read_sealed, write_sealed
from support.cases import pbmc_recipe


def first_archive(data_dir: Path) -> Path:
    return min((data_dir / "cells").glob("*.h5ad"))


def read_all(data_dir: Path, *, sparse: bool) -> Any:
    counts = ScRNADataset(data_dir, sparse=sparse)[:].expression
    return counts.to_dense() if sparse else counts


def set_value(name: str, place: int, value: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[f"X/{name}"][place] = value

    return change


def change_type(file: h5py.File) -> None:
    values = file["X/indices"][:].astype(np.int64)
    del file["X/indices"]
    file["X/indices"] = values


def change_shape(file: h5py.File) -> None:
    file["X"].attrs["shape"] = np.array([10, 765])


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((set_value("indices", 10, v), "has genes") for v in (2**31 - 1, 765, -1)),
        *((set_value("indptr", 5, v), "does not divide") for v in (2**31 - 1, -(2**31), 0)),
        *((set_value("indptr", p, 1), "does not divide") for p in (0, -1)),
        *((set_value("data", 3, v), r"row 0 has \d+ counts, not") for v in (999, 0, -3)),
        (change_type, "X has types <i4, <i8, <i2"),
        (change_shape, "into 10 rows"),
    ],
)
def test_a_damaged_archive_is_named(
    data_dir: Path, change: Callable[[h5py.File], None], message: str, sparse: bool
) -> None:
    path = first_archive(data_dir)
    size = path.stat().st_size
    with h5py.File(path, "r+") as file:
        change(file)
    if path.stat().st_size != size:
        content = read_sealed(data_dir / "config.json")
        for entry in content["files"]:
            if path.match(entry["path"]):
                entry["size"] = path.stat().st_size
        write_sealed(data_dir / "config.json", content)
    with pytest.raises(ManifestError, match=rf"{path.name} is damaged.*{message}"):
        read_all(data_dir, sparse=sparse)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_shard_whose_totals_are_damaged_is_named_and_no_archive(
    data_dir: Path, sparse: bool
) -> None:
    path = data_dir / "processed" / "batch_0001.h5"
    with h5py.File(path, "r+") as file:
        file["total_counts"][7] += 1
    for split in (None, "train"):
        cells = ScRNADataset(data_dir, split=split, sparse=sparse)
        with pytest.raises(ManifestError, match=rf"^{path} is damaged \(a cell's total_counts is"):
            cells[[3, 307]]


@pytest.mark.parametrize("change", [1, -1])
def test_a_count_that_changed_is_found_where_others_are_missing_from_the_archive(
    atlas_dir: Path, tmp_path: Path, change: int
) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(atlas_dir, data_dir)
    n_seen = 0
    for path in sorted((data_dir / "cells").glob("*.h5ad")):
        with h5py.File(path, "r+") as file:
            if "archived_counts" not in file["obs"]:
                continue
            row = np.argmax(file["obs/archived_counts"][:] < file["obs/total_counts"][:])
            place = file["X/indptr"][row]
            assert file["obs/archived_counts"][row] < file["obs/total_counts"][row]
            file["X/data"][place] += change
        for sparse in (True, False):
            with pytest.raises(ManifestError, match=rf"{path.name} is damaged.*row {row} has"):
                read_all(data_dir, sparse=sparse)
        with h5py.File(path, "r+") as file:
            file["X/data"][place] -= change
        n_seen += 1
    assert n_seen
    read_all(data_dir, sparse=True)


@pytest.mark.parametrize("row", [10**6, -1, 2**31 - 1])
def test_a_row_that_an_archive_has_not_is_refused(data_dir: Path, row: int) -> None:
    path = data_dir / "metadata" / "cells.parquet"
    table = pq.read_table(path)
    rows = table["archive_row"].to_numpy().copy()
    rows[7] = row
    place = table.column_names.index("archive_row")
    pq.write_table(table.set_column(place, "archive_row", pa.array(rows)), path)
    with pytest.raises(ManifestError, match=r"cells\.parquet has \d+ bytes"):
        read_all(data_dir, sparse=False)
    content = read_sealed(data_dir / "config.json")
    for entry in content["files"]:
        if entry["path"] == "metadata/cells.parquet":
            entry |= {"size": path.stat().st_size, "sha256": hash_file(path)}
    write_sealed(data_dir / "config.json", content)
    for sparse in (True, False):
        with pytest.raises(ManifestError, match=rf"has \d+ rows, row {row} is asked for"):
            read_all(data_dir, sparse=sparse)


def test_an_archive_that_another_run_replaced_is_refused(data_dir: Path) -> None:
    cells = ScRNADataset(data_dir)
    (before, _), late = cells[:], pickle.loads(pickle.dumps(ScRNADataset(data_dir)))
    prepare(pbmc_recipe(min_counts=800), data_dir, replace=True)
    assert np.array_equal(cells[:].expression, before)  # what is mapped stays
    with pytest.raises(ManifestError, match="was replaced by another run"):
        late[:]


def test_a_directory_that_is_replaced_while_it_is_opened_is_refused(data_dir: Path) -> None:
    find = module.ArchiveRows

    def meanwhile(*arguments: Any) -> Any:
        prepare(pbmc_recipe(seed=7), data_dir, replace=True)
        return find(*arguments)

    with (
        patch("scdiff_data.loading.split_view.ArchiveRows", meanwhile),
        pytest.raises(
            ManifestError, match="replaced by another run of prepare while it was opened"
        ),
    ):
        ScRNADataset(data_dir)


@pytest.mark.parametrize("is_late", [False, True], ids=["before a look", "after it"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (HVGDataset, "processed/batch_0000.h5"),
        *((ScRNADataset, f"metadata/{name}") for name in ("cells.parquet", "genes.parquet")),
        *((ScRNADataset, name) for name in ("metadata/experiments.json", "cells/*.h5ad")),
    ],
)
def test_what_another_run_takes_away_while_it_is_opened_is_no_damage(
    data_dir: Path, kind: Any, name: str, is_late: bool
) -> None:
    path, check = min(data_dir.glob(name)), Manifest.check_files

    def meanwhile(manifest: Manifest, *folders: Path, **how: Any) -> None:
        if is_late:
            check(manifest, *folders, **how)
        if path.parent in folders:
            (data_dir / "config.json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        if not is_late:
            check(manifest, *folders, **how)

    with (
        patch.object(Manifest, "check_files", meanwhile),
        pytest.raises(ManifestError, match="data was replaced by another run of prepare while it"),
    ):
        kind(data_dir)


@pytest.mark.parametrize("most", [1, 3])
def test_few_archives_mapped_at_a_time_are_enough(pbmc_dir: Path, most: int) -> None:
    whole, few = ScRNADataset(pbmc_dir), ScRNADataset(pbmc_dir)
    expected = whole[:].expression
    rng = np.random.default_rng(0)
    with patch.object(module, "_MOST_MAPS", most):
        for number in range(30):
            rows = rng.integers(0, 700, rng.integers(1, 20))
            few.watch.is_cold = number % 2 == 0
            assert np.array_equal(few[rows].expression, expected[rows])
