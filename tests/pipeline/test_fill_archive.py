"""Experiments are drawn, fetched and archived until the cells are enough."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import anndata as ad
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scdiff_data import DownloadError, H5adFolder, Recipe, ScBaseCount, prepare
from scdiff_data.archive import write_archives
from scdiff_data.pipeline import make_archives
from support.cases import ATLAS_SETTINGS, digest_tree, pbmc_recipe
from support.h5ad import counts_of, write_source
from support.reading import read_shards


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cell_count=st.integers(1, 230))
def test_exactly_cell_count_cells_that_pass_quality_are_drawn(
    tmp_path_factory: pytest.TempPathFactory, atlas_bucket: Path, cell_count: int
) -> None:
    no_split = ATLAS_SETTINGS | {"split": {"by": "cell", "val": 0.0, "test": 0.0}}
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), cell_count=cell_count, **no_split)
    manifest = prepare(recipe, tmp_path_factory.mktemp("drawn"))
    assert sum(manifest.n_cells.values()) == cell_count
    assert len(read_shards(manifest.data_dir).cell_ids) == cell_count


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
    assert "by an earlier run" not in caplog.text

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
    with pytest.raises(ValueError, match=r"cell_count=290.*only \d+ pass QC.*at least 500 counts"):
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


def test_an_unknown_label_is_told_at_the_first_experiment_and_an_error_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"label 'celltype'.*'cell_type'"):
        prepare(pbmc_recipe(labels=("celltype", "tissue")), tmp_path)
    (warning,) = (r.getMessage() for r in caplog.records if "celltype" in r.getMessage())
    assert "name ['celltype'], which neither" in warning
    assert "'cell_type'" in warning


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        pytest.param({"cell_count": None}, [6], id="all"),
        pytest.param({"cell_count": 40}, [4], id="no more than the draw comes to"),
        pytest.param(
            {"cell_count": 30, "min_counts": 40}, [3, 2], id="as many more as are lacking"
        ),
    ],
)
def test_a_file_of_many_experiments_is_read_for_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], groups: list[int]
) -> None:
    source = write_source(tmp_path / "files.h5ad", sp.csr_matrix(counts_of()))
    cells = ad.read_h5ad(source)
    cells.obs["donor"] = [f"D{i % 6}" for i in range(60)]
    cells.write_h5ad(source)
    found: list[int] = []

    def spy(source: Path, targets: dict[str, Path], **settings: Any) -> Any:
        found.append(len(targets))
        return write_archives(source, targets, **settings)

    monkeypatch.setattr(make_archives, "write_archives", spy)
    usual = {"min_genes": None, "min_counts": None, "labels": (), "n_hvgs": None}
    usual["split"] = {"by": "cell", "val": 0, "test": 0}
    own = H5adFolder(str(source), experiment_key="donor")
    manifest = prepare(Recipe(source=own, **usual | changes), tmp_path / "data")
    assert found == groups
    assert sum(manifest.n_cells.values()) == (changes["cell_count"] or 60)
    prepare(Recipe(source=own, **usual | changes), tmp_path / "again", n_threads=1)
    assert digest_tree(tmp_path / "data") == digest_tree(tmp_path / "again")


def test_of_a_file_that_cannot_be_read_whole_each_experiment_is_tried_alone(
    tmp_path: Path,
) -> None:
    counts = counts_of()
    counts[59, 3] = 0.5
    source = write_source(tmp_path / "files.h5ad", sp.csr_matrix(counts))
    cells = ad.read_h5ad(source)
    cells.obs["donor"] = [f"D{i // 10}" for i in range(60)]
    cells.write_h5ad(source)
    own = H5adFolder(str(source), experiment_key="donor")
    usual = {"min_genes": None, "min_counts": None, "labels": (), "n_hvgs": None}
    usual |= {"split": {"by": "cell", "val": 0, "test": 0}, "max_failed_fraction": 0.2}
    manifest = prepare(Recipe(source=own, **usual), tmp_path / "data")
    assert sum(manifest.n_cells.values()) == 50


def test_a_record_is_written_once_its_archive_and_the_archives_name_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: set[Path] = set()
    flushed: set[Path] = set()
    kept: set[Path] = set()
    noted: list[tuple[Path, bool]] = []
    real_flush, real_replace = os.fsync, Path.replace

    def flush(descriptor: int) -> None:
        before = set(named)
        real_flush(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.add(path)
        kept.update(one for one in before if one.parent == path)

    def replace(path: Path, target: Path) -> Any:
        if target.suffix == ".json" and target.parent.name == "cells":
            archive = target.with_suffix(".h5ad")
            noted.append((archive, archive in flushed and archive in kept))
        done = real_replace(path, target)
        named.add(target)
        return done

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", replace)
    prepare(pbmc_recipe(), (tmp_path / "data").resolve(), n_threads=2)
    assert len(noted) > 2
    assert [archive for archive, is_there in noted if not is_there] == []


def test_an_archive_is_made_while_the_one_before_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third_is_begun, numbers = Event(), {"write_archives": 0, "flush_file": 0}

    def count(name: str, act: Callable[[int], None]) -> None:
        real = getattr(make_archives, name)

        def call(*arguments: Any, **settings: Any) -> Any:
            numbers[name] += 1
            act(numbers[name])
            return real(*arguments, **settings)

        monkeypatch.setattr(make_archives, name, call)

    count("write_archives", lambda number: third_is_begun.set() if number == 3 else None)
    # The first one is waited for: its genes are those of all that follow.
    count("flush_file", lambda number: number != 2 or in_time.append(third_is_begun.wait(60)))
    in_time: list[bool] = []
    prepare(pbmc_recipe(), tmp_path / "data")
    assert in_time == [True]
