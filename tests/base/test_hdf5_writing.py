"""No error is lost in writing; anndata reads frames and matrices as they were."""

import errno
import os
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdiff_data.base.hdf5_writing import write_frame, write_hdf5, write_mappings, write_sparse

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


def fill(path: Path) -> None:
    """Write what our files are made of: attributes, texts, chunks, a large dataset."""
    with write_hdf5(path, alignment_threshold=1 << 12, alignment_interval=4096) as file:
        file.attrs["key"] = "value"
        texts = np.array(["some", "texts"], dtype=object)
        file.create_dataset("a/texts", data=texts, dtype=h5py.string_dtype())
        file.create_dataset("a/chunks", data=np.arange(5000), chunks=(1000,), compression="gzip")
        large = file.create_dataset("large", (4, 3000), np.int16)
        for row in range(4):
            large[row] = row + 1


@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
def test_no_error_is_lost_in_writing_hdf5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real, n_calls, failing = getattr(os, call), 0, -1

    def act(*args: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, act)
    fill(tmp_path / "whole")
    n_whole = n_calls
    assert n_whole
    for failing in range(1, n_whole + 1):
        n_calls = 0
        with pytest.raises(OSError, match="No space left"):
            fill(tmp_path / f"{failing}")
        assert n_calls == failing  # nothing is written after it
    with h5py.File(tmp_path / "whole") as file:
        assert file["large"][:, 0].tolist() == [1, 2, 3, 4]
        assert file["a/texts"].asstr()[:].tolist() == ["some", "texts"]


def test_an_hdf5_file_is_added_to(tmp_path: Path) -> None:
    fill(tmp_path / "file")
    with write_hdf5(tmp_path / "file") as file:
        file["more"] = [1, 2]
    with h5py.File(tmp_path / "file") as file:
        assert set(file) == {"a", "large", "more"}


def test_what_could_not_be_written_is_not_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def write_and_read() -> None:
        with write_hdf5(tmp_path / "file") as file:
            large = file.create_dataset("large", (4, 3000), np.int16)
            large[:] = 1
            found.append(large[:])

    found: list[Any] = []
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_and_read()
    assert not found  # the library would follow whatever its memory held
