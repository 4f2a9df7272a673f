"""Ranges of an archive's cells are what the whole frame has there."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdiff_data.archive.obs import ObsReader

N = 7
COLUMNS: dict[str, Any] = {
    "whole": np.arange(N, dtype=np.int32),
    "real": np.array([0.5, np.nan, 2, 3, 4, 5, 6]),
    "flag": np.arange(N) % 2 == 0,
    "text": [f"text {i}" for i in range(N)],
    "category": pd.Categorical.from_codes([0, 1, -1, 0, 1, 1, 0], ["b", "a"]),
    "number_category": pd.Categorical([3, 1, 3, 1, 3, 1, 3]),
    "nullable_whole": pd.array([1, None, 3, 4, 5, 6, 7], dtype="Int64"),
    "nullable_flag": pd.array([True, None, False, True, True, True, False], dtype="boolean"),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("obs") / "cells.h5ad"
    obs = pd.DataFrame(COLUMNS, index=[f"cell {i}" for i in range(N)])
    ad.AnnData(sp.csr_matrix((N, 2), dtype=np.float32), obs).write_h5ad(path)
    return path


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize(("start", "stop"), [(0, N), (1, 4), (6, 7), (3, 99)])
def test_a_range_is_what_the_frame_has_there(path: Path, name: str, start: int, stop: int) -> None:
    whole = ad.read_h5ad(path).obs[name].iloc[start:stop]
    with ObsReader(path) as obs:
        found = obs.read(name, start, stop)
    expected = [None if pd.isna(value) else value for value in whole.tolist()]
    assert [None if pd.isna(value) else value for value in found.tolist()] == expected


def test_ids_and_columns_are_those_of_the_frame(path: Path) -> None:
    with ObsReader(path) as obs:
        assert len(obs) == N
        assert obs.columns == list(COLUMNS)
        assert obs.read_ids(2, 5) == list(ad.read_h5ad(path).obs.index[2:5])
