"""Files' genes become one axis by the names that all of them have."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdiff_data import CountError
from scdiff_data.reading.gene_names import merge_axes, name_genes
from scdiff_data.reading.h5ad import H5adFile, read_gene_axis
from support.h5ad import write_source

IDS = [f"ENSG{i:011d}" for i in range(30)]
SYMBOLS = [f"GENE{i}" for i in range(30)]


def test_a_union_is_ordered_by_id_and_knows_symbols() -> None:
    files = {
        "b.h5ad": {"index": [f"{gene}.7" for gene in IDS[10:]], "gene_symbols": SYMBOLS[10:]},
        "a.h5ad": {"index": IDS[20:5:-1]},
    }
    axis = merge_axes(files, take_all=True)
    assert axis.ids == tuple(IDS[6:])
    assert axis.symbols == (*IDS[6:10], *SYMBOLS[10:])
    assert merge_axes(files, take_all=False).ids == tuple(IDS[10:21])


def test_ids_are_found_in_the_column_of_files_indexed_by_symbols() -> None:
    files = {"a": {"index": SYMBOLS, "gene_ids": IDS}, "b": {"index": IDS}}
    axis = merge_axes(files, take_all=True)
    assert axis.ids == tuple(IDS)
    assert axis.symbols == tuple(IDS)  # no column says that the index of `a` holds symbols


def test_without_ids_everywhere_symbols_serve() -> None:
    files = {"a": {"index": SYMBOLS[:20]}, "b": {"index": IDS, "feature_name": SYMBOLS}}
    assert merge_axes(files, take_all=True).ids == tuple(sorted(SYMBOLS))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (IDS, r"two ways: ids.h5ad has 'ENSG0.*' and words.h5ad has 'GENE0'"),
        ([f"gene-{i}" for i in range(30)], r"do not agree.*ids.h5ad.*'gene-0'.*'GENE0'"),
    ],
)
def test_files_that_do_not_agree_are_an_error_that_shows_both(
    other: list[str], message: str
) -> None:
    files = {"ids.h5ad": {"index": other}, "words.h5ad": {"index": SYMBOLS}}
    with pytest.raises(ValueError, match=message):
        merge_axes(files, take_all=True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"gene_ids": IDS}, "its column gene_ids holds ids: set source.gene_ids=gene_ids"),
        ({"name": SYMBOLS}, "its column name holds ids"),
        ({"mean": np.arange(30.0)}, "no column of var holds ids"),
    ],
)
def test_row_numbers_are_no_gene_ids(columns: dict[str, list[str]], message: str) -> None:
    var = pd.DataFrame(columns, index=[str(i) for i in range(30)])
    with pytest.raises(CountError, match=rf"x\.h5ad names its genes by the numbers.*{message}"):
        name_genes(var, "x.h5ad")


def test_a_column_can_hold_the_ids(tmp_path: Path) -> None:
    var = pd.DataFrame({"feature": IDS}, index=[str(i) for i in range(30)])
    cells = ad.AnnData(sp.csr_matrix(np.ones((3, 30), np.float32)), var=var)
    cells.write_h5ad(tmp_path / "x.h5ad")
    with H5adFile(tmp_path / "x.h5ad", gene_ids="feature") as file:
        assert file.read_genes()[0].ids == tuple(IDS)
    with (
        H5adFile(tmp_path / "x.h5ad", gene_ids="other") as file,
        pytest.raises(CountError, match=r"gene_ids=other names no column.*'feature'"),
    ):
        file.read_genes()


@pytest.mark.parametrize("name", ["", "nan", None])
def test_genes_without_a_name_are_no_gene(name: str | None) -> None:
    var = pd.DataFrame({"gid": [name, name, *IDS[2:]]}, index=IDS)
    with pytest.raises(CountError, match=r"2 genes without a name in the column gid"):
        name_genes(var, "x.h5ad", "gid")
    with pytest.raises(CountError, match=r"2 genes without a name in the index of var"):
        name_genes(var.set_index("gid"), "x.h5ad")


def test_a_column_of_names_that_are_lists_is_the_files_fault(tmp_path: Path) -> None:
    path = write_source(tmp_path / "lists.h5ad", np.ones((4, 2)))
    lists = np.empty(2, object)
    lists[:] = [np.arange(2), np.arange(3)]
    with h5py.File(path, "r+") as file:
        column = file["var"].create_dataset(
            "gene_symbols", data=lists, dtype=h5py.vlen_dtype(np.int64)
        )
        column.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        file["var"].attrs["column-order"] = ["gene_symbols"]
    with pytest.raises(CountError, match=r"lists\.h5ad cannot be read: var"):
        read_gene_axis(path)
