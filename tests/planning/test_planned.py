"""What a run would do is said beforehand, and comes true."""

import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiff_data import Bucket, Pbmc, Plan, Recipe, ScBaseCount, plan, prepare
from scdiff_data.pipeline import remaking
from scdiff_data.planning import make_plan, reach
from scdiff_data.planning import planned as planning
from scdiff_data.recipes import PrepareOptions
from scdiff_data.sources.catalog import filter_catalog
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.manifest import Manifest
from support.cases import ATLAS, ATLAS_SETTINGS, digest_tree, pbmc_recipe

CATALOG = pa.table(
    {
        "experiment_id": [f"E{i}" for i in range(40)],
        "path": [f"E{i}.h5ad" for i in range(40)],
        "n_cells": [100 * (i % 7 + 1) for i in range(40)],
        "size": [1_000_000 * (i % 7 + 1) for i in range(40)],
        "checksum": pa.nulls(40, pa.string()),
        "tissue": ["blood" if i % 2 else "lung" for i in range(40)],
        "age": [i % 10 for i in range(40)],
    }
)


def planned(folder: Path, keep_downloads: bool = False, **settings: Any) -> Plan:
    return make_plan(
        Recipe(source=Pbmc(), **settings),
        DataDirectory(folder),
        CATALOG,
        PrepareOptions(n_threads=2, keep_downloads=keep_downloads),
    )


def test_small_files_need_no_large_disk(tmp_path: Path) -> None:
    sizes = pa.array([1000 * n for n in CATALOG["n_cells"].to_pylist()])
    small = CATALOG.set_column(CATALOG.column_names.index("size"), "size", sizes)
    usual = planned(tmp_path).likely.end_bytes
    options = PrepareOptions(n_threads=2)
    made = make_plan(Recipe(source=Pbmc()), DataDirectory(tmp_path), small, options)
    n_less = int(CATALOG["n_cells"].to_numpy().sum() * (16_000 - 3 * 1000))
    assert made.likely.end_bytes == pytest.approx(usual - 0.72 * n_less, rel=0.01)


def test_experiments_take_room_for_their_genes_which_an_unknown_number_does_not_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"cell_count": 3000, "split": {"by": "cell", "val": 0.1, "test": 0}}
    made = planned(tmp_path, **settings)
    each = 36_601 * (95 + 2 * 56)
    assert (made.likely.n_experiments * each) in [n_bytes for n_bytes, _ in made.likely.costs]
    assert made.best.new_bytes - made.best.least_bytes == made.best.n_experiments * each
    disk = SimpleNamespace(free=made.best.least_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    assert planned(tmp_path, **settings).lack_of_room is None


def test_it_says_what_matches_and_what_that_takes(tmp_path: Path) -> None:
    made = planned(tmp_path, filters={"tissue": "blood"}, cell_count=3000, n_hvgs=500)
    assert made.in_catalog == (40, sum(CATALOG["n_cells"].to_pylist()))
    assert made.matching == (20, sum(CATALOG["n_cells"].to_pylist()[1::2]))
    assert made.best.n_cells == made.likely.n_cells == 3000
    assert made.best.n_experiments < made.likely.n_experiments
    assert made.best.fetch_bytes < made.likely.fetch_bytes
    assert sum(made.likely.n_per_split.values()) == 3000
    assert made.likely.end_bytes >= 3000 * (16_000 + 2 * 500)
    assert list(made.likely.costs) == sorted(made.likely.costs, reverse=True)
    said = str(made)
    for text in (
        "40 experiments, 15,500 cells",
        "20 experiments, 7,700 cells",
        "3,000 cells of",
        "if 72% of the cells pass QC",
        " free",
        "cell_count=3000: the archive",
        "n_hvgs=500: the shards",
        "n_threads=2: source files",
    ):
        assert text in said


@pytest.mark.parametrize("shard_format", ["dense", "compact", "auto"])
def test_it_says_in_which_format_shards_come_and_both_sizes(
    tmp_path: Path, shard_format: str
) -> None:
    made = planned(tmp_path, cell_count=3000, n_hvgs=500, shard_format=shard_format)
    expected = "compact" if shard_format == "compact" else "dense"
    assert made.likely.shard_format == expected
    sizes = made.likely.shard_bytes
    assert sizes["dense"] == 3000 * (2 * 500 + 64)
    assert sizes["compact"] < sizes["dense"] / 2
    assert f"shards             {expected}, about" in str(made)
    # While shards are written, the cells on their way to them are on disk, too.
    others = planned(tmp_path, cell_count=3000, n_hvgs=500, shard_format="dense").likely.end_bytes
    assert made.likely.end_bytes == others - sizes["dense"] + sizes[expected]
    assert made.likely.peak_bytes >= made.likely.end_bytes + sizes["compact"]


def test_downloads_that_stay_cost_disk(tmp_path: Path) -> None:
    settings = {"cell_count": 3000, "n_hvgs": 500}
    gone, kept = planned(tmp_path, **settings), planned(tmp_path, keep_downloads=True, **settings)
    assert kept.best.end_bytes == gone.best.end_bytes + gone.best.fetch_bytes
    assert "keep_downloads=true" in str(kept)


def test_a_cap_that_leaves_most_of_a_file_is_named(tmp_path: Path) -> None:
    made = planned(tmp_path, cell_count=1000, max_cells_per_experiment=50, min_genes=None)
    assert made.best.n_experiments == 20
    assert "max_cells_per_experiment=50: fetched for cells over the cap" in str(made)


@given(
    cell_count=st.integers(1, 20_000),
    cap=st.none() | st.integers(1, 800),
    tissue=st.sampled_from([None, "blood", "lung"]),
)
def test_a_shortage_is_known_exactly(
    tmp_path_factory: pytest.TempPathFactory, cell_count: int, cap: int | None, tissue: str | None
) -> None:
    filters = {} if tissue is None else {"tissue": tissue}
    made = planned(
        tmp_path_factory.getbasetemp(),
        cell_count=cell_count,
        max_cells_per_experiment=cap,
        filters=filters,
    )
    there = sum(
        row["n_cells"] if cap is None else min(cap, row["n_cells"])
        for row in CATALOG.to_pylist()
        if tissue in (None, row["tissue"])
    )
    assert made.most_cells == there
    assert (made.shortage is None) == (there >= cell_count)
    assert made.best.n_cells == min(there, cell_count)


def test_a_shortage_names_what_binds(tmp_path: Path) -> None:
    made = planned(
        tmp_path,
        cell_count=9000,
        filters={"tissue": "blood"},
        exclude={"age": {"min": 5}},
        max_cells_per_experiment=400,
    )
    assert made.shortage is not None
    assert "hold at most" in made.shortage
    for name in ("filters.tissue", "exclude.age", "max_cells_per_experiment"):
        assert f" without {name}" in made.shortage
        assert made.without[name] > made.most_cells
    assert made.shortage in str(made)
    with pytest.raises(ValueError, match=r"cell_count=9000.*without filters\.tissue"):
        made.check()


def test_qc_that_will_probably_bind_is_foretold(tmp_path: Path) -> None:
    made = planned(tmp_path, cell_count=15_000)
    assert made.shortage is None
    assert "that is fewer than cell_count=15,000" in str(made)


def test_a_split_without_cells_is_foretold(tmp_path: Path) -> None:
    few = planned(tmp_path, cell_count=100)
    assert "the val split is empty" in str(few)
    assert "is empty" not in str(planned(tmp_path, cell_count=100, split={"by": "cell"}))


def test_the_plan_comes_true(tmp_path: Path, atlas_bucket: Path) -> None:
    settings = ATLAS_SETTINGS | {"split": {"by": "experiment", "val": 0.3, "test": 0.3}}
    settings |= {"min_genes": None, "min_counts": None}  # so that every cell passes
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), cell_count=130, **settings)
    before = plan(recipe, tmp_path)
    assert before.best == before.likely
    assert before.best.n_cells == 130
    assert not (tmp_path / "cells").exists()
    manifest = prepare(recipe, tmp_path)
    assert before.best.n_per_split == manifest.n_cells
    after = plan(recipe, tmp_path)
    assert after.best.fetch_bytes == 0
    assert after.best.n_experiments == before.best.n_experiments
    files = [path for name in ("*.h5*", "*.npz") for path in tmp_path.rglob(name)]
    on_disk = sum(path.stat().st_size for path in files)
    assert after.best.end_bytes == pytest.approx(on_disk, rel=0.2)
    fetched = [
        path.stat().st_size
        for path in atlas_bucket.rglob("*.h5ad")
        if (tmp_path / "cells" / f"{path.stem}.json").exists()
    ]
    assert before.best.fetch_bytes == sum(fetched)


def test_what_earlier_runs_know_of_qc_is_used(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path
) -> None:
    shutil.copytree(atlas_dir, tmp_path / "data")
    recipe = Recipe(
        source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS | {"cell_count": 299}
    )
    n_passing = sum(Manifest.read(atlas_dir).n_cells.values())
    made = plan(recipe, tmp_path / "data")
    assert made.most_cells == n_passing < 299
    before = digest_tree(tmp_path / "data")
    with pytest.raises(ValueError, match=rf"hold at most {n_passing} cells"):
        prepare(recipe, tmp_path / "data")
    assert digest_tree(tmp_path / "data") == before


def test_a_dry_run_and_the_run_see_the_same_catalog(tmp_path: Path) -> None:
    plan(pbmc_recipe(), tmp_path)
    snapshot = (tmp_path / "metadata" / "catalog.parquet").read_bytes()
    prepare(pbmc_recipe(), tmp_path)
    assert (tmp_path / "metadata" / "catalog.parquet").read_bytes() == snapshot
    assert str(plan(Recipe(source=ATLAS), tmp_path / "atlas")).startswith("source ")


def test_a_run_filters_the_catalog_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def count(*arguments: Any) -> pa.Table:
        calls.append(arguments)
        return filter_catalog(*arguments)

    for module in (planning, remaking):
        monkeypatch.setattr(module, "filter_catalog", count)
    prepare(pbmc_recipe(filters={"tissue": "blood"}, exclude={"experiment_id": "PBMC02"}), tmp_path)
    assert len(calls) == 1


def test_a_plan_is_the_same_however_many_experiments_are_summed_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[dict[str, Any]] = [
        {"max_cells_per_experiment": 300},
        {"cell_count": 2_000, "filters": {"tissue": "lung"}},
        {"keep_downloads": True, "split": {"by": "cell"}},
    ]
    expected = [planned(tmp_path, **way) for way in ways]
    for n in (1, 3, 39):
        monkeypatch.setattr(reach, "_AT_ONCE", n)
        for way, before in zip(ways, expected, strict=True):
            now = planned(tmp_path, **way)
            assert (now.best, now.likely) == (before.best, before.likely)
            assert now.most_cells == before.most_cells


class Many:
    """A source of many experiments, which it names in batches."""

    def __init__(self, n: int) -> None:
        self._n = n

    def settings(self) -> dict[str, Any]:
        return {"source": "many", "n": self._n}

    def open(self, workdir: Path) -> Bucket:
        return Bucket(str(workdir))

    def read_catalog(self, bucket: Bucket) -> pa.RecordBatchReader:
        n = 1_000
        batches = CATALOG.slice(0, 1).to_batches() * n
        like = pa.Table.from_batches(batches).combine_chunks()

        def make(start: int) -> pa.RecordBatch:
            ids = pa.array([f"E{i}" for i in range(start, start + n)])
            paths = pa.array([f"a folder/E{i}.h5ad" for i in range(start, start + n)])
            table = like.set_column(0, "experiment_id", ids).set_column(1, "path", paths)
            return table.to_batches()[0]

        return pa.RecordBatchReader.from_batches(like.schema, map(make, range(0, self._n, n)))


def test_a_plan_takes_some_bytes_of_an_experiment_and_makes_no_object_of_it(
    tmp_path: Path,
) -> None:
    def measure(n: int) -> int:
        """Bytes of Python's and numpy's at the most."""
        held = pa.total_allocated_bytes()
        tracemalloc.start()
        made = plan(Recipe(source=Many(n)), tmp_path / f"{n}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert made.matching == (n, 100 * n)
        assert pa.total_allocated_bytes() - held < 5_000_000
        return peak

    measure(1_000)
    few, many = measure(20_000), measure(80_000)
    assert many - few < 40 * 60_000
