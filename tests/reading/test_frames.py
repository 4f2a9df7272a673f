"""The frames of old files are read, and files that are no h5ad are named."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from scdiff_data import CountError
from scdiff_data.reading.h5ad import read_gene_axis
from support.h5ad import GENES, archive, counts_of, write_source


def as_anndata_0_6(path: Path) -> None:
    """Rewrite a file's frames and X as anndata wrote them before 0.7."""
    with h5py.File(path, "r+") as file:
        for name, column in (("obs", "cell_type"), ("var", None)):
            index = ad.io.read_elem(file[name]).index.to_numpy(object)
            fields = [("index", h5py.string_dtype())]
            if column:
                fields.append((column, h5py.string_dtype()))
            table = np.empty(len(index), fields)
            table["index"] = index
            if column:
                table[column] = ad.io.read_elem(file[f"{name}/{column}"]).astype(str)
            del file[name]
            file.create_dataset(name, data=table)
        x = file["X"]
        shape = x.attrs["shape"]
        x.attrs["h5sparse_format"], x.attrs["h5sparse_shape"] = "csc", shape
        for old in ("encoding-type", "encoding-version", "shape"):
            del x.attrs[old]
        for old in ("encoding-type", "encoding-version"):
            del file.attrs[old]


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_files_of_anndata_0_6_arrive_as_the_same_counts(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    as_anndata_0_6(source)
    archive(source, tmp_path / "a.h5ad")
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(cells.X.toarray(), counts_of())
    assert cells.obs["cell_type"].cat.categories.tolist() == ["B cell"]
    assert list(cells.var_names) == GENES
    assert cells.obs_names[7] == "SRX1_BARCODE7"


@pytest.mark.parametrize("n_bytes", [0, 100, 20_000])
def test_a_truncated_file_is_a_clear_error(tmp_path: Path, n_bytes: int) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    axis = read_gene_axis(source)
    source.write_bytes(source.read_bytes()[:n_bytes])
    with pytest.raises(CountError, match=r"s\.h5ad is not a readable h5ad file"):
        archive(source, tmp_path / "a.h5ad", axis=axis)
