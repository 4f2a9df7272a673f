"""What is counted of cells is what their table says, whatever kinds of labels there are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scdiff_data.errors import ManifestError
from scdiff_data.reporting.survey import Spread, survey_cells
from scdiff_data.store import Manifest


def of_table(path: Path, labels: list[str]) -> Any:
    """What the survey takes of a manifest."""
    return SimpleNamespace(directory=SimpleNamespace(cells=path), recipe={"labels": labels})


def test_every_cell_is_counted_once(atlas_dir: Path) -> None:
    survey = survey_cells(Manifest.read(atlas_dir))
    cells = pd.read_parquet(atlas_dir / "metadata" / "cells.parquet")
    assert survey.n_read == survey.n_cells == len(cells)
    edges = np.array([0, 2.0**31])
    of_split = [int((cells.split == name).sum()) for name in ("train", "val", "test")]
    assert survey.total_counts.histogram(edges)[:, 0].tolist() == of_split
    assert survey.n_genes.histogram(edges)[:, 0].tolist() == of_split
    by_experiment = cells.groupby(["experiment_id", "split"], observed=False).size().unstack()
    assert {name: n.tolist() for name, n in survey.experiments.n_of.items()} == {
        name: [row["train"], row["val"], row["test"]] for name, row in by_experiment.iterrows()
    }
    for name, log in survey.mean_logs.items():
        own = cells.loc[cells.experiment_id == name, "total_counts"]
        assert log == pytest.approx(np.log(own).mean())
    found = survey.labels["cell_type"]
    assert {value: int(n.sum()) for value, n in found.n_of.items()} == (
        cells.cell_type.value_counts().to_dict()
    )
    assert found.n_missing.sum() == cells.cell_type.isna().sum()


def test_quantiles_are_exact_and_of_large_numbers_within_a_part_in_5900(atlas_dir: Path) -> None:
    survey = survey_cells(Manifest.read(atlas_dir))
    cells = pd.read_parquet(atlas_dir / "metadata" / "cells.parquet")
    exact = cells.total_counts.quantile([0.1, 0.5, 1], interpolation="lower").tolist()
    assert [survey.total_counts.quantile(fraction) for fraction in (0.1, 0.5, 1)] == exact
    median = cells.total_counts[cells.split == "val"].quantile(0.5, interpolation="lower")
    assert survey.total_counts.quantile(0.5, split=1) == median
    spread = Spread()
    assert spread.quantile(0.5) == 0
    spread.add(np.array([3, 65_535, 65_536, 70_000, 1_000_000, 2**40]), np.zeros(6, np.int64))
    assert [spread.quantile(i / 6) for i in (1, 2, 3)] == [3, 65_535, 65_536]
    assert spread.quantile(4 / 6) == pytest.approx(70_000, rel=1 / 5_900)
    assert spread.quantile(5 / 6) == pytest.approx(1_000_000, rel=1 / 5_900)


def test_of_very_many_cells_a_part_is_read_and_scaled(tmp_path: Path) -> None:
    n = 20_000
    table = pa.table(
        {
            "experiment_id": pa.array([f"SRX{i % 10}" for i in range(n)]).dictionary_encode(),
            "split": pa.array(["train", "train", "val", "train"] * (n // 4)).dictionary_encode(),
            "total_counts": pa.array(range(n), pa.int64()),
            "n_genes": pa.array([i % 70_000 for i in range(n)], pa.int32()),
            "cell_type": pa.array(["B", "T", None, "T"] * (n // 4)),
        }
    )
    path = tmp_path / "cells.parquet"
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    whole = survey_cells(of_table(path, ["cell_type"]))
    part = survey_cells(of_table(path, ["cell_type"]), most=2_000)
    assert (part.n_read, part.n_cells) == (2_000, n)
    for survey in (whole, part):
        label = survey.labels["cell_type"]
        counted = {value: of_split.tolist() for value, of_split in label.n_of.items()}
        assert counted == {"T": [n // 2, 0, 0], "B": [n // 4, 0, 0]}
        assert label.n_missing.tolist() == [0, n // 4, 0]
        assert survey.experiments.n_of["SRX3"].sum() == n // 10
        assert survey.total_counts.quantile(0.5) == pytest.approx(n / 2, abs=n / 20)
        assert survey.mean_logs["SRX3"] == pytest.approx(np.log(n) - 1, abs=0.3)


def test_row_groups_may_name_their_values_in_another_order(tmp_path: Path) -> None:
    def rows(experiments: list[str], split: list[str], **labels: Any) -> pa.Table:
        def encode(values: list[str]) -> pa.Array:
            return pa.array(values).dictionary_encode()

        n = np.full(len(split), 100)
        own = {"experiment_id": encode(experiments), "split": encode(split)}
        return pa.table({**own, "total_counts": n, "n_genes": n // 2, **labels})

    parts = [
        rows(["a", "b"], ["train", "val"], age=pa.array([3.0, np.nan]), ill=[True, None]),
        rows(["b", "c"], ["val", "train"], age=pa.array([7.5, 1.0]), ill=[False, True]),
    ]
    path = tmp_path / "cells.parquet"
    with pq.ParquetWriter(path, parts[0].schema, write_page_checksum=True) as writer:
        for part in parts:
            writer.write_table(part)
    survey = survey_cells(of_table(path, ["age", "ill"]))
    counted = {name: n.tolist() for name, n in survey.experiments.n_of.items()}
    assert counted == {"a": [1, 0, 0], "b": [0, 2, 0], "c": [1, 0, 0]}
    age, ill = survey.labels["age"], survey.labels["ill"]
    assert (age.ends, age.n_missing.tolist()) == ((1.0, 7.5), [0, 1, 0])
    assert age.mean == pytest.approx((3 + 7.5 + 1) / 3)
    assert [(value, n.tolist()) for value, n in ill.list_values()] == [
        ("true", [2, 0, 0]),
        ("false", [0, 1, 0]),
    ]


def test_a_damaged_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "cells.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(ManifestError, match=r"cells\.parquet"):
        survey_cells(of_table(tmp_path / "cells.parquet", []))
