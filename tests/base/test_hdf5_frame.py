"""Frames and matrices are written in the format of anndata, which reads them as they were."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdiff_data.base.hdf5_frame import write_frame, write_mappings, write_sparse

FRAME = pd.DataFrame(
    {
        "label": pd.Categorical(["b", None, "a"]),
        "empty": pd.Categorical([None, None, None]),
        "text": ["ä", "", "x y"],
        "count": np.array([1, 2, 3], np.int32),
        "share": np.array([0.5, np.nan, 1.5], np.float32),
        "is_kept": [True, False, True],
    },
    index=pd.Index(["c1", "c2", "c3"], name="cell_id"),
)


def test_anndata_reads_a_frame_as_it_was(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_frame(file, "obs", FRAME)
        read = ad.io.read_elem(file["obs"])
        assert file["obs/cell_id"].attrs["encoding-type"] == "string-array"
        assert file["obs/label/categories"].attrs["encoding-type"] == "string-array"
    assert list(read.columns) == list(FRAME.columns)
    assert read.index.tolist() == FRAME.index.tolist()
    assert read.index.name == "cell_id"
    for name in FRAME:
        wanted = FRAME[name].astype(object).where(FRAME[name].notna(), None).tolist()
        found = read[name].astype(object).where(read[name].notna(), None).tolist()
        assert found == wanted, name
    assert read["label"].cat.categories.tolist() == ["a", "b"]
    numbers = ["count", "share", "is_kept"]
    assert read[numbers].dtypes.tolist() == FRAME[numbers].dtypes.tolist()


def test_a_whole_file_opens_as_an_anndata(tmp_path: Path) -> None:
    matrix = sp.csc_matrix(np.array([[0, 2], [3, 0], [0, 0]], np.float32))
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_sparse(file, "X", matrix, compression="gzip")
        write_frame(file, "obs", FRAME, compression="gzip")
        write_frame(file, "var", pd.DataFrame(index=["g1", "g2"]))
        write_mappings(file, ("obsm", "varm", "obsp", "varp", "layers", "uns"))
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(cells.X.toarray(), matrix.toarray())
    assert cells.obs_names.tolist() == ["c1", "c2", "c3"]
    assert cells.var_names.tolist() == ["g1", "g2"]


def test_a_column_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"], index=["c"])
    with h5py.File(tmp_path / "a.h5", "w") as file, pytest.raises(ValueError, match="'a' twice"):
        write_frame(file, "obs", twice)
