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
from scdiff_data.reading.values import DenseRows
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


def replace_x(path: Path, x: object) -> None:
    """Put another matrix into a file, whose frames stay."""
    with h5py.File(path, "r+") as file:
        del file["X"]
        ad.io.write_elem(file, "X", x)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c[:-3], id="fewer-rows"),
        pytest.param(lambda c: np.vstack([c, c]), id="more-rows"),
        pytest.param(lambda c: c[:, 2:], id="fewer-columns"),
        pytest.param(lambda c: np.hstack([c, c]), id="more-columns"),
        pytest.param(lambda c: c.T, id="transposed"),
        pytest.param(np.ravel, id="one-dimensional"),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_matrix_of_another_shape_than_the_frames_is_damage(
    tmp_path: Path, layout: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    source = write_source(tmp_path / "s.h5ad", counts_of())
    changed = change(counts_of())
    replace_x(source, LAYOUTS[layout](changed) if changed.ndim > 1 else changed)
    with pytest.raises(CountError, match=r"s\.h5ad is damaged: X is .*obs and var say 60 x 40"):
        archive(source, tmp_path / "a.h5ad")


@pytest.mark.parametrize("dtype", ["f2", ">f4", ">i4", ">f8", "u1", "i8", "?"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_of_any_type_arrive_as_the_same_counts(
    tmp_path: Path, layout: str, dtype: str
) -> None:
    counts = np.minimum(counts_of(), 1 if dtype == "?" else 200)
    source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](counts))
    names = ["X"] if layout == "dense" else ["X/data"]
    with h5py.File(source, "r+") as file:
        for name in names:
            values, attributes = file[name][:].astype(dtype), dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=values).attrs.update(attributes)
        for name in [] if layout == "dense" else ["X/indices", "X/indptr"]:
            values = file[name][:].astype(">i4")
            del file[name]
            file[name] = values
    archive(source, tmp_path / "a.h5ad")
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts)


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_a_gene_that_a_cell_has_twice_counts_once(tmp_path: Path, layout: str) -> None:
    genes, cells = np.array([0, 0, 0, 5, 3, 3, 1]), np.array([0, 0, 1, 1, 2, 2, 2])
    values = np.array([1, 2, 4, 1, 0, 7, 1], np.float32)
    matrix = sp.coo_matrix((values, (cells, genes)), (4, 40))
    source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](np.zeros((4, 40), np.float32)))
    order = np.lexsort([cells, genes] if layout == "csc" else [genes, cells])
    majors, minors = (genes, cells) if layout == "csc" else (cells, genes)
    n_majors = 40 if layout == "csc" else 4
    with h5py.File(source, "r+") as file:
        for name, part in (
            ("data", values[order]),
            ("indices", minors[order].astype(np.int32)),
            ("indptr", np.r_[0, np.cumsum(np.bincount(majors, minlength=n_majors))]),
        ):
            del file[f"X/{name}"]
            file[f"X/{name}"] = part
    archive(source, tmp_path / "a.h5ad")
    found = ad.read_h5ad(tmp_path / "a.h5ad")
    dense = matrix.toarray()
    assert np.array_equal(found.X.toarray(), dense)
    assert found.obs["n_genes"].tolist() == (dense > 0).sum(axis=1).tolist()
    assert found.obs["total_counts"].tolist() == dense.sum(axis=1).tolist()


@pytest.mark.parametrize("chunks", [(60, 40), (7, 40), (60, 3), (11, 9)])
def test_dense_rows_arrive_from_chunks_of_any_shape(
    tmp_path: Path, chunks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdiff_data.reading.source_matrix._DENSE_AT_ONCE", 4 * 40)
    counts = counts_of()
    counts[17] = 0  # a piece of rows without a value
    counts[20:29] = 0
    source = write_source(tmp_path / "s.h5ad", counts)
    with h5py.File(source, "r+") as file:
        del file["X"]
        file.create_dataset("X", data=counts, chunks=chunks, compression="gzip")
    archive(source, tmp_path / "a.h5ad")
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts)


def test_a_chunk_of_many_rows_is_read_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        x = file.create_dataset("x", data=counts_of(), chunks=(30, 40))

        class Counting(h5py.Dataset):
            n_reads = 0

            def __getitem__(self, rows: slice) -> np.ndarray:
                self.n_reads += 1
                return super().__getitem__(rows)

        counting = Counting(x.id)
        rows = DenseRows(counting, 3 * 40)
        pieces = [values for start in (0, 13, 47) for _, values in rows.read(start, start + 13)]
    assert np.array_equal(np.vstack(pieces[:10]), counts_of()[:26])
    assert counting.n_reads == 2  # there are two chunks


@pytest.mark.parametrize("place", [0, 7, -1])
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_pointers_that_leave_values_out_are_damage(tmp_path: Path, layout: str, place: int) -> None:
    source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](counts_of()))
    axis = read_gene_axis(source)
    with h5py.File(source, "r+") as file:
        n_values = len(file["X/data"])
        file["X/indptr"][place] = {0: 3, 7: n_values + 9, -1: n_values - 1}[place]
    with pytest.raises(CountError, match=r"s\.h5ad is damaged: X has .* pointers over"):
        archive(source, tmp_path / "a.h5ad", axis=axis)


@pytest.mark.parametrize("shuffle", [False, True], ids=["plain", "shuffled"])
@pytest.mark.parametrize("n_chunks", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_chunks_are_inflated_little_by_little(
    tmp_path: Path, layout: str, n_chunks: int, shuffle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdiff_data.base.hdf5_chunks.LARGE_CHUNK", 0)
    monkeypatch.setattr("scdiff_data.base.hdf5_chunks._FEWEST_AT_ONCE", 100)
    monkeypatch.setattr("scdiff_data.base.hdf5_chunks._AT_ONCE", 77)
    monkeypatch.setattr("scdiff_data.reading.source_matrix._DENSE_AT_ONCE", 7 * 40)
    counts = counts_of(0, 200)
    source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](counts))
    with h5py.File(source, "r+") as file:
        for name in ["X"] if layout == "dense" else ["X/indices", "X/data"]:
            values, attributes = file[name][:], dict(file[name].attrs)
            del file[name]
            chunks = (-(-len(values) // n_chunks), *values.shape[1:])
            how = {"chunks": chunks, "compression": "gzip", "shuffle": shuffle}
            file.create_dataset(name, data=values, **how).attrs.update(attributes)
    archive(source, tmp_path / "a.h5ad", max_memory=30_000, n_threads=2)
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts)
    with h5py.File(source, "r+") as file:
        dataset = file["X" if layout == "dense" else "X/data"]
        place = dataset.id.get_chunk_info(0).byte_offset
    with source.open("r+b") as raw:
        raw.seek(place + 30)
        raw.write(bytes(200))
    with pytest.raises(CountError, match=r"s\.h5ad"):
        archive(source, tmp_path / "b.h5ad", max_memory=30_000)
