"""The frames of old files are read, and files that are no h5ad are named."""

from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from scdiff_data import CountError
from scdiff_data.reading.h5ad import read_gene_axis
from support.h5ad import GENES, LAYOUTS, archive, counts_of, write_source


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


def as_bytes(path: Path) -> None:
    """Rewrite all text attributes with a fixed length, as Julia and R do."""

    def rewrite(_: str, element: h5py.Group | h5py.Dataset) -> None:
        for name, value in list(element.attrs.items()):
            if isinstance(value, str):
                element.attrs[name] = (
                    np.array([value.encode()]) if name == "_index" else (np.bytes_(value))
                )
            elif name == "column-order" and len(value):
                element.attrs[name] = np.array([text.encode() for text in value])

    with h5py.File(path, "r+") as file:
        file.visititems(rewrite)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attributes_of_any_string_type_are_understood(tmp_path: Path, layout: str) -> None:
    counts = counts_of()[:40]  # square: a matrix taken for its transpose would fit
    source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](counts))
    as_bytes(source)
    archive(source, tmp_path / "a.h5ad")
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(cells.X.toarray(), counts)
    assert cells.obs["cell_type"].tolist()[0] == "B cell"


@pytest.mark.parametrize("words", [["B cell", "T cell"], "B cell"], ids=["words", "one-word"])
def test_words_of_old_codes_lie_in_uns(tmp_path: Path, words: list[str] | str) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    as_anndata_0_6(source)
    n_words = len(np.atleast_1d(words))
    with h5py.File(source, "r+") as file:
        index = file["obs"]["index"]
        table = np.empty(len(index), [("index", h5py.string_dtype()), ("cell_type", "i1")])
        table["index"], table["cell_type"] = index, np.arange(len(index)) % n_words
        table["cell_type"][5] = -1
        del file["obs"]
        file["obs"] = table
        file["uns/cell_type_categories"] = words
    archive(source, tmp_path / "a.h5ad")
    found = ad.read_h5ad(tmp_path / "a.h5ad").obs["cell_type"]
    assert found.tolist()[:4] == [np.atleast_1d(words)[i % n_words] for i in range(4)]
    assert found.isna().sum() == 1


def test_a_column_that_cannot_be_read_is_left_out_unless_it_is_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    with h5py.File(source, "r+") as file:
        del file["obs/age"]
        file["obs"].create_dataset("age", data=np.zeros(60, [("a", "f4"), ("b", "i4")]))
    archive(source, tmp_path / "a.h5ad")
    assert "age" not in ad.read_h5ad(tmp_path / "a.h5ad").obs
    assert "a column is left out: s.h5ad cannot be read: obs/age" in caplog.text
    with pytest.raises(CountError, match="obs/age"):
        archive(source, tmp_path / "b.h5ad", needed=["age"])


def test_a_column_of_another_length_is_damage(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    with h5py.File(source, "r+") as file:
        del file["obs/age"]
        file["obs/age"] = np.zeros(59)
    with pytest.raises(CountError, match=r"s\.h5ad is damaged: obs/age has shape \(59,\)"):
        archive(source, tmp_path / "a.h5ad")


@pytest.mark.parametrize(
    "value", [ad.AnnData(counts_of()[:, :2]), sp.csr_matrix(counts_of()), {"a": 1}], ids=type
)
def test_a_column_that_is_something_else_of_anndata_is_named(tmp_path: Path, value: Any) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    with h5py.File(source, "r+") as file:
        del file["obs/age"]
        ad.io.write_elem(file["obs"], "age", value)
    with pytest.raises(CountError, match=r"^s\.h5ad (is damaged|cannot be read): obs/age"):
        archive(source, tmp_path / "a.h5ad")


@pytest.mark.parametrize("name", ["cell_id", "split", "experiment_id", "total_counts", "a.b c"])
def test_columns_of_any_name_leave_the_archive_whole(tmp_path: Path, name: str) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    cells = ad.read_h5ad(source)
    cells.obs[name] = "mine"
    cells.write_h5ad(source)
    archive(source, tmp_path / "a.h5ad")
    found = ad.read_h5ad(tmp_path / "a.h5ad")
    assert found.obs_names[7] == "SRX1_BARCODE7"
    assert np.array_equal(found.X.toarray(), counts_of())


@pytest.mark.parametrize(("frame", "name"), [("var", "the index of var"), ("obs", "cell_type")])
def test_what_is_said_to_be_texts_and_is_numbers_is_refused_as_anndata_does(
    tmp_path: Path, frame: str, name: str
) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    with h5py.File(source, "r+") as file:
        place = "var/_index" if frame == "var" else "obs/cell_type/categories"
        n = len(counts_of()) if frame == "obs" else len(GENES)
        del file[place]
        file[place] = np.zeros(n, np.int32)
        file[place].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    with pytest.raises(TypeError):
        ad.read_h5ad(source)
    if frame == "var":
        with pytest.raises(CountError, match=f"{name}: ValueError: it is said to hold texts"):
            archive(source, tmp_path / "a.h5ad")
        return
    archive(source, tmp_path / "a.h5ad")  # a label that cannot be read is left out
    assert "cell_type" not in ad.read_h5ad(tmp_path / "a.h5ad").obs


def test_attributes_with_damaged_names_are_an_error_of_the_file(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    with h5py.File(source) as file:
        address = h5py.h5o.get_info(file["X"].id).addr
    content = bytearray(source.read_bytes())
    content[content.index(b"encoding-type\0", address) + 8] = 0
    source.write_bytes(content)
    with pytest.raises(CountError, match=r"^s\.h5ad cannot be read: X: RuntimeError: "):
        archive(source, tmp_path / "a.h5ad")
