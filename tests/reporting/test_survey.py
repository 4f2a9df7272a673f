"""What is counted of all cells is what their table says, whatever kinds of labels there are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scdiff_data.errors import ManifestError
from scdiff_data.reporting.survey import find_quantiles, survey_cells
from scdiff_data.store import Manifest


def of_table(path: Path, labels: list[str]) -> Any:
    """What the survey takes of a manifest."""
    return SimpleNamespace(directory=SimpleNamespace(cells=path), recipe={"labels": labels})


def test_every_cell_is_counted_once(atlas_dir: Path) -> None:
    survey = survey_cells(Manifest.read(atlas_dir))
    cells = pd.read_parquet(atlas_dir / "metadata" / "cells.parquet")
    assert survey.total_counts.sum(1).tolist() == survey.n_genes.sum(1).tolist()
    assert survey.total_counts.sum() == len(cells)
    by_experiment = cells.groupby(["experiment_id", "split"], observed=False).size().unstack()
    assert {name: n.tolist() for name, n in survey.experiments.items()} == {
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


def test_quantiles_are_right_within_a_percent(atlas_dir: Path) -> None:
    survey = survey_cells(Manifest.read(atlas_dir))
    cells = pd.read_parquet(atlas_dir / "metadata" / "cells.parquet")
    found = find_quantiles(survey.total_counts.sum(0), 0.1, 0.5)
    exact = cells.total_counts.quantile([0.1, 0.5], interpolation="lower")
    assert found == pytest.approx(exact.tolist(), rel=0.011)
    assert find_quantiles(np.zeros(4, np.int64), 0.5) == [0.0]


def test_row_groups_may_name_their_values_in_another_order(tmp_path: Path) -> None:
    def rows(experiments: list[str], split: list[str], **labels: Any) -> pa.Table:
        def encode(values: list[str]) -> pa.Array:
            return pa.array(values).dictionary_encode()

        n = np.full(len(split), 100)
        own = {"experiment_id": encode(experiments), "split": encode(split)}
        return pa.table({**own, "total_counts": n, "n_genes": n // 2, **labels})

    parts = [
        rows(["a", "b"], ["train", "val"], age=pa.array([3.0, None]), ill=[True, None]),
        rows(["b", "c"], ["val", "train"], age=pa.array([7.5, 1.0]), ill=[False, True]),
    ]
    path = tmp_path / "cells.parquet"
    with pq.ParquetWriter(path, parts[0].schema, write_page_checksum=True) as writer:
        for part in parts:
            writer.write_table(part)
    survey = survey_cells(of_table(path, ["age", "ill"]))
    counted = {name: n.tolist() for name, n in survey.experiments.items()}
    assert counted == {"a": [1, 0, 0], "b": [0, 2, 0], "c": [1, 0, 0]}
    age, ill = survey.labels["age"], survey.labels["ill"]
    assert (age.ends, age.n_missing.tolist()) == ((1.0, 7.5), [0, 1, 0])
    assert [(value, n.tolist()) for value, n in ill.list_values()] == [
        ("true", [2, 0, 0]),
        ("false", [0, 1, 0]),
    ]


def test_a_damaged_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "cells.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(ManifestError, match=r"cells\.parquet"):
        survey_cells(of_table(tmp_path / "cells.parquet", []))
