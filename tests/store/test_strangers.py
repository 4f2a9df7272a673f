"""What somebody else wrote stays, and is named."""

import json
from pathlib import Path

import pytest

from scdiff_data import ManifestError, plan, prepare
from support.cases import digest_tree, pbmc_recipe

NAMES = [
    "config.json",
    "hvg_info.json",
    "cells/notes.txt",
    "downloads/thesis.pdf",
    "metadata/replaced.json",
    "processed/batch_effects.csv",
    "statistics/mine/data.npz",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_holds_other_files_of_our_names_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"precious": 1}')
    before = digest_tree(tmp_path)
    for action in (prepare, plan):
        with pytest.raises(ValueError, match=r"holds .*did not write.*set data_dir to an empty"):
            action(pbmc_recipe(), tmp_path)
    assert digest_tree(tmp_path) == before


def test_files_beside_ours_stay(data_dir: Path) -> None:
    mine = [data_dir / name for name in NAMES if not name.endswith(".json")]
    mine += [data_dir / "source" / "mine.txt", data_dir / "processed" / "batch_0001.csv"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    prepare(pbmc_recipe(n_hvgs=32), data_dir)
    assert {path.read_text() for path in mine} == {"mine"}


def test_a_manifest_that_another_program_wrote_is_not_replaced(data_dir: Path) -> None:
    (data_dir / "config.json").write_text(json.dumps({"learning_rate": 0.1}))
    with pytest.raises(ValueError, match=r"holds config\.json, which scdiff_data did not write"):
        prepare(pbmc_recipe(), data_dir)
    (data_dir / "config.json").write_text('{"schema_ver')  # damaged: it is made again
    prepare(pbmc_recipe(), data_dir)


def test_a_run_that_was_killed_at_its_first_file_goes_on(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "catalog.parquet.tmp").write_bytes(b"half")
    plan(pbmc_recipe(), tmp_path)
    assert not (tmp_path / "metadata" / "catalog.parquet.tmp").exists()


def test_a_catalog_with_a_name_that_is_no_utf_8_is_damaged_and_ours(data_dir: Path) -> None:
    catalog = data_dir / "metadata" / "catalog.parquet"
    catalog.write_bytes(catalog.read_bytes().replace(b"n_cells", b"n_\xabells"))
    (data_dir / "config.json").unlink()
    with pytest.raises(ManifestError, match=r"catalog\.parquet is damaged .*: delete it"):
        prepare(pbmc_recipe(n_hvgs=32), data_dir)
