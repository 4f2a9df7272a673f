"""Cells are held out by hash or by value, and stay held out."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from scdiff_data import prepare
from scdiff_data.recipes import Split
from support.cases import pbmc_recipe
from support.reading import read_shards


def test_fractions_hold_in_expectation_and_for_ever() -> None:
    cells = [str(i) for i in range(20_000)]
    rule = Split(by="cell", val=0.1, test=0.2)
    splits = rule.assign_by_hash(cells, seed=3)
    shares = np.bincount(splits) / len(cells)
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    assert np.array_equal(rule.assign_by_hash(cells[500:700], seed=3), splits[500:700])


def test_named_values_decide_without_case() -> None:
    rule = Split.from_mapping({"by": "tissue", "test": ["Lung"]})
    assert rule.assign_by_value(["lung", " LUNG ", "blood", None]).tolist() == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "cell", "val": 1.0}, r"fractions that sum to less than 1, got 1\.0"),
        ({"by": "experiment", "val": 0.5, "test": 0.5}, "sum to less than 1"),
        ({"by": "cell", "val": ["a"]}, r"takes fractions, got val=\['a'\].*split\.by=<column>"),
        ({"by": "tissue", "val": 0.1}, r"lists values of the column 'tissue', got 0\.1"),
        ({"by": "tissue", "val": ["a"], "test": ["a"]}, "both name a value of tissue"),
        ({"bye": "cell"}, r"split has no setting \['bye'\]; it has by, val, test"),
    ],
)
def test_a_wrong_split_is_a_clear_error(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split.from_mapping(settings)


def test_a_split_by_named_values_follows_the_column(tmp_path: Path) -> None:
    recipe = pbmc_recipe(split={"by": "cell_type", "test": ["cd19+ b"], "val": "CD34+"})
    prepare(recipe, tmp_path)
    cells = pq.read_table(tmp_path / "metadata" / "cells.parquet").to_pandas()
    assert set(cells.query("split == 'test'")["cell_type"]) == {"CD19+ B"}
    assert set(cells.query("split == 'val'")["cell_type"]) == {"CD34+"}
    assert not {"CD19+ B", "CD34+"} & set(cells.query("split == 'train'")["cell_type"])


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
            found = set(read_shards(tmp_path, name).cell_ids)
            assert earlier <= found
            cells[name] = found
        assert not cells["train"] & (cells["val"] | cells["test"])
        assert len(set.union(*cells.values())) == cell_count


def test_named_experiments_are_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = {"by": "experiment_id", "val": ["PBMC01", "PBMC99"], "test": ["pbmc03"]}
    manifest = prepare(pbmc_recipe(split=split), tmp_path)
    for name, wanted in (("val", {"PBMC01"}), ("test", {"PBMC03"})):
        assert set(read_shards(tmp_path, name).experiment_ids) == wanted
    assert manifest.n_experiments == {"train": 5, "val": 1, "test": 1}
    assert "split.val names ['PBMC99'], which no cell has as experiment_id" in caplog.text


def test_a_columns_named_values_are_held_out(tmp_path: Path) -> None:
    split = {"by": "cell_type", "test": ["CD56+ NK"]}
    prepare(pbmc_recipe(split=split), tmp_path)
    held_out, trained = (read_shards(tmp_path, name).labels for name in ("test", "train"))
    assert set(held_out["cell_type"]) == {"CD56+ NK"}
    assert "CD56+ NK" not in trained["cell_type"]
