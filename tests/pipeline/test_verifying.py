"""What an earlier run left is compared with what was written down before anything is made of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from scdiff_data import (
    Manifest,
    ManifestError,
    SimulatedAtlas,
    check_data_dir,
    choose_genes_again,
    prepare,
)
from scdiff_data.cli import main
from scdiff_data.pipeline import find_problems
from scdiff_data.recipes.recipe import Recipe
from support.cases import digest_tree, pbmc_recipe


def change_a_count(data_dir: Path) -> Path:
    """One count of an archive, at the same size."""
    path = min((data_dir / "cells").glob("*.h5ad"))
    with h5py.File(path, "r+") as file:
        file["X/data"][3] += 7
    return path


def test_whole_data_have_no_problems(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_data_dir(data_dir) == []
    assert main(["check", str(data_dir)]) == 0
    assert "all as they were written" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "hvg_info.json", "cells/*.json", "cells/*.h5ad", "statistics/*.npz"),
        *("metadata/cells.parquet", "metadata/experiments.json", "processed/*.h5"),
    ],
)
def test_a_changed_byte_of_any_file_is_found_and_what_to_do_is_said(
    data_dir: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = min(data_dir.glob(name))
    content = bytearray(path.read_bytes())
    place = content.index(b"0", len(content) // 3) if path.suffix == ".json" else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)
    assert main(["check", str(data_dir)]) == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert "delete" in said


def test_what_another_run_takes_away_meanwhile_is_not_called_damaged(data_dir: Path) -> None:
    manifest = Manifest.read(data_dir)
    (data_dir / "config.json").unlink()
    manifest.shards[0].unlink()
    with pytest.raises(ManifestError, match="was replaced by another run of prepare"):
        find_problems(manifest)


@pytest.mark.parametrize("finished", [True, False])
def test_no_shards_are_made_of_a_damaged_archive(
    data_dir: Path, pbmc_dir: Path, caplog: pytest.LogCaptureFixture, finished: bool
) -> None:
    path = change_a_count(data_dir)
    if finished:  # another choice of genes
        with pytest.raises(ManifestError, match=rf"{path.name} has other bytes than its record"):
            choose_genes_again(data_dir, replace=True, n_hvgs=32)
    (data_dir / "config.json").unlink()
    (data_dir / "processed" / "batch_0000.h5").unlink()
    prepare(pbmc_recipe(), data_dir)
    assert f"{path} has other bytes than its record says: it is made again" in caplog.text
    assert digest_tree(data_dir) == digest_tree(pbmc_dir)


@pytest.mark.parametrize("damage", ["flip", "cut", "swap"])
def test_damaged_statistics_are_summed_again(data_dir: Path, pbmc_dir: Path, damage: str) -> None:
    path = min((data_dir / "statistics").glob("*.npz"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "flip":
        content[middle] ^= 255
    elif damage == "cut":
        del content[middle:]
    else:
        content[middle : middle + 9] = content[-9:]
    path.write_bytes(content)
    (data_dir / "config.json").unlink()
    prepare(pbmc_recipe(), data_dir)
    assert digest_tree(data_dir) == digest_tree(pbmc_dir)


@pytest.mark.parametrize("change", [{"seed": 7}, {"shard_size": 200}, {"labels": ()}])
def test_finished_data_of_other_settings_are_not_replaced_unasked(
    data_dir: Path, change: dict[str, object]
) -> None:
    before = digest_tree(data_dir)
    (name,) = change
    with pytest.raises(ValueError, match=rf"other settings \({name}: .*replace_data=true"):
        prepare(pbmc_recipe(**change), data_dir)
    assert digest_tree(data_dir) == before
    manifest = prepare(pbmc_recipe(**change), data_dir, replace=True)
    assert pbmc_recipe(**change).makes_what(manifest.recipe)


@pytest.mark.parametrize("change", [{"cell_count": 300}, {"n_hvgs": 32}, {"flavor": "seurat"}])
def test_other_genes_and_sample_sizes_take_what_is_there_and_say_so(
    data_dir: Path, caplog: pytest.LogCaptureFixture, change: dict[str, object]
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (data_dir / "cells").glob("*.h5ad")}
    prepare(pbmc_recipe(**change), data_dir)
    (name,) = change
    assert f"holds data of other settings ({name}: " in caplog.text
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


def use_elsewhere(content: dict[str, object]) -> None:
    content["file"]["path"] = "../alien.h5ad"  # type: ignore[index]


def use_another(content: dict[str, object]) -> None:
    content["experiment_id"] = "../alien"


@pytest.mark.parametrize("change", [use_elsewhere, use_another])
def test_a_record_that_names_another_place_is_not_believed(
    tmp_path: Path, change: Callable[[dict[str, object]], None]
) -> None:
    source = SimulatedAtlas(n_experiments=2, n_cells=40, n_genes=300, seed=1)
    settings = {"min_genes": 20, "min_counts": 50, "n_hvgs": 32, "split": {"by": "cell"}}
    recipe = Recipe(source=source, **settings)
    data_dir = tmp_path / "data"
    prepare(recipe, data_dir)
    before = digest_tree(data_dir)
    path = next(p for p in (data_dir / "cells").glob("*.json") if "file" in p.read_text())
    archive = path.with_suffix(".h5ad")
    shutil.move(archive, tmp_path / "alien.h5ad")
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    path.write_text(json.dumps(content))
    (data_dir / "config.json").unlink()
    prepare(recipe, data_dir)
    assert digest_tree(data_dir) == before


def test_a_changed_digit_of_a_record_is_not_believed(data_dir: Path, pbmc_dir: Path) -> None:
    path = min((data_dir / "cells").glob("*.json"))
    content = json.loads(path.read_text())
    content["n_cells"] += 1
    path.write_text(json.dumps(content))
    (data_dir / "config.json").unlink()
    prepare(pbmc_recipe(), data_dir)
    assert digest_tree(data_dir) == digest_tree(pbmc_dir)


@pytest.mark.parametrize("n_bytes", [0, 100, 8174])
def test_a_shard_that_was_cut_short_is_written_again(
    data_dir: Path, pbmc_dir: Path, n_bytes: int
) -> None:
    path = data_dir / "processed" / "batch_0001.h5"
    path.write_bytes(path.read_bytes()[:n_bytes])
    prepare(pbmc_recipe(), data_dir)
    assert digest_tree(data_dir) == digest_tree(pbmc_dir)


def test_a_fresh_run_speaks_of_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare(pbmc_recipe(gene_axis="union"), tmp_path / "data")
    assert "damaged" not in caplog.text
