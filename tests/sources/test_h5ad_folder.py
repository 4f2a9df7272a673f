"""A folder of the user's own files is a source."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scdiff_data import H5adFolder
from scdiff_data.errors import CountError
from scdiff_data.sources import assign_cells


def test_a_folder_of_h5ad_files_is_a_source(tmp_path: Path) -> None:
    for name, n_cells in (("b", 5), ("a", 3)):
        cells = ad.AnnData(np.ones((n_cells, 4), np.float32))
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    source = H5adFolder(str(tmp_path))
    catalog = source.read_catalog(source.open(tmp_path))
    assert catalog["experiment_id"].to_pylist() == ["a", "b"]
    assert catalog["n_cells"].to_pylist() == [3, 5]
    before = source.settings()
    (tmp_path / "b.h5ad").unlink()
    assert source.settings() != before  # a changed folder is another data set
    assert str(tmp_path) not in str(before)


def test_an_empty_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*\.h5ad file in .*set source\.path"):
        H5adFolder(str(tmp_path)).settings()


@pytest.mark.parametrize("nullable", [False, True], ids=["strings", "nullable-strings"])
def test_cells_are_counted_under_any_encoding_of_their_names(
    tmp_path: Path, nullable: bool
) -> None:
    cells = ad.AnnData(np.ones((7, 3), np.float32))
    if nullable:
        cells.obs.index = cells.obs.index.astype("string")
    with ad.settings.override(allow_write_nullable_strings=nullable):
        cells.write_h5ad(tmp_path / "a.h5ad")
    source = H5adFolder(str(tmp_path))
    assert source.read_catalog(source.open(tmp_path))["n_cells"].to_pylist() == [7]


def test_cells_without_the_column_of_experiments_are_refused_with_those_they_have() -> None:
    obs = pd.DataFrame({"batch": ["a", "b"]})
    with pytest.raises(CountError, match=r"'donor', which the file's cells do not have.*batch"):
        assign_cells(obs, units=["d1"], key="donor", filters={})
