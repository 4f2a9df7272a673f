"""A matrix arrives as the same counts, whatever its layout, type, chunks and compression."""

import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from scdiff_data import CountError
from scdiff_data.reading.h5ad import read_gene_axis
from support.h5ad import LAYOUTS, archive, counts_of, write_source


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_type_arrives_as_the_same_counts(
    tmp_path: Path, layout: str, dtype: str, compression: str | None
) -> None:
    counts = counts_of()
    matrix = LAYOUTS[layout](counts.astype(dtype))
    source = write_source(tmp_path / "source.h5ad", matrix, compression=compression)
    archive(source, tmp_path / "SRX1.h5ad")
    cells = ad.read_h5ad(tmp_path / "SRX1.h5ad")
    assert np.array_equal(cells.X.toarray(), counts)
    assert cells.X.has_sorted_indices
    assert (cells.X.data > 0).all()
    assert (cells.X.dtype, cells.X.indices.dtype, cells.X.indptr.dtype) == (np.int16, "i4", "i4")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("filter_name", ["Blosc", "Blosc2", "Zstd"])
def test_plug_in_compression_arrives_as_the_same_counts(
    tmp_path: Path, layout: str, filter_name: str
) -> None:
    import hdf5plugin

    source = write_source(tmp_path / "source.h5ad", LAYOUTS[layout](counts_of()))
    compression = dict(getattr(hdf5plugin, filter_name)())
    with h5py.File(source, "r+") as file:  # texts cannot be stored with Blosc
        for name in ["X"] if layout == "dense" else ["X/indices", "X/data"]:
            values, attributes = file[name][:], dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=values, **compression).attrs.update(attributes)
    archive(source, tmp_path / "a.h5ad")
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts_of())


def test_a_missing_plug_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source(tmp_path / "source.h5ad", sp.csc_matrix(counts_of()))
    axis = read_gene_axis(source)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(ImportError, match=r"HDF5 filter 1: pip install hdf5plugin"):
        archive(source, tmp_path / "a.h5ad", axis=axis)


@pytest.mark.parametrize("layout", ["csc", "csr"])
def test_64_bit_indices_and_pointers_arrive_as_the_same_counts(tmp_path: Path, layout: str) -> None:
    source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](counts_of()))
    with h5py.File(source, "r+") as file:
        for name in ("indices", "indptr"):
            values = file[f"X/{name}"][:].astype(np.int64)
            del file[f"X/{name}"]
            file[f"X/{name}"] = values
    archive(source, tmp_path / "a.h5ad")
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts_of())


def test_chunks_of_unequal_lengths_meet_their_values(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    with h5py.File(source, "r+") as file:
        for name, chunk in (("indices", 37), ("data", 101)):
            values = file[f"X/{name}"][:]
            del file[f"X/{name}"]
            file["X"].create_dataset(name, data=values, compression="gzip", chunks=(chunk,))
    archive(source, tmp_path / "a.h5ad", max_memory=2000, n_threads=2)
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts_of())


def test_shuffled_chunks_are_put_in_order(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    with h5py.File(source, "r+") as file:
        for name in ("data", "indices"):
            values = file[f"X/{name}"][:]
            del file[f"X/{name}"]
            file["X"].create_dataset(
                name, data=values, compression="gzip", shuffle=True, chunks=(100,)
            )
    archive(source, tmp_path / "a.h5ad", max_memory=5000)
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts_of())


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_value_that_is_no_count_is_named(tmp_path: Path, layout: str, value: float) -> None:
    counts = counts_of()
    counts[7, 11] = value
    source = write_source(tmp_path / "bad.h5ad", LAYOUTS[layout](counts))
    with pytest.raises(
        CountError, match=rf"bad\.h5ad.*cell BARCODE7, gene ENSG011 is {value}; counts are finite"
    ):
        archive(source, tmp_path / "a.h5ad")
    assert not (tmp_path / "a.h5ad").exists()


def break_pointers(file: h5py.File) -> None:
    file["X/indptr"][-1] = 10**6


def break_indices(file: h5py.File) -> None:
    file["X/indices"][3] = 10**6


def break_order(file: h5py.File) -> None:
    file["X/indptr"][5] = 0


def remove_x(file: h5py.File) -> None:
    del file["X"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_pointers, "is damaged"),
        (break_indices, "an index of X is outside 0 … 59"),
        (break_order, "is damaged"),
        (remove_x, "no AnnData file with counts in X"),
    ],
)
def test_a_damaged_file_is_a_clear_error(
    tmp_path: Path, damage: Callable[[h5py.File], None], message: str
) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    axis = read_gene_axis(source)
    with h5py.File(source, "r+") as file:
        damage(file)
    with pytest.raises(CountError, match=message):
        archive(source, tmp_path / "a.h5ad", axis=axis)


def test_damaged_compressed_bytes_are_a_clear_error(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    axis = read_gene_axis(source)
    with h5py.File(source) as file:
        place = file["X/indices"].id.get_chunk_info(0).byte_offset
    content = bytearray(source.read_bytes())
    content[place + 40 : place + 60] = b"\xff" * 20
    source.write_bytes(content)
    with pytest.raises(CountError, match=r"s\.h5ad is damaged: .*/X/indices does not inflate"):
        archive(source, tmp_path / "a.h5ad", axis=axis)
