import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data import CountError
from scdiff_data.archive.convert import ArchiveReport, QualityFilter, write_archive
from scdiff_data.archive.gene_axis import GeneAxis
from scdiff_data.archive.h5ad import read_gene_axis

GENES = [f"ENSG{i:03d}" for i in range(40)]


def counts_of(seed: int = 0, n_cells: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.3, 4, (n_cells, len(GENES)))).astype(np.float32)


def write_source(path: Path, matrix: Any, genes: list[str] | None = None, **settings: Any) -> Path:
    cells = ad.AnnData(
        matrix,
        obs=pd.DataFrame(
            {"cell_type": ["B cell", ""] * (matrix.shape[0] // 2), "age": 3.5},
            index=[f"BARCODE{i}" for i in range(matrix.shape[0])],
        ),
        var=pd.DataFrame(index=genes or GENES[: matrix.shape[1]]),
    )
    cells.write_h5ad(path, **({"compression": "gzip"} | settings))
    return path


def archive(source: Path, target: Path, **changes: Any) -> ArchiveReport:
    settings: dict[str, Any] = {
        "experiment_id": "SRX1",
        "axis": read_gene_axis(source),
        "quality": QualityFilter(),
        "max_cells": None,
        "seed": 0,
        "max_memory": 1 << 30,
    }
    return write_archive(source, target, **(settings | changes))


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "csc": sp.csc_matrix,
    "csr": sp.csr_matrix,
    "dense": np.asarray,
}


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


def test_more_cells_than_16_bits_count_arrive_as_the_same_counts(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(0.3, (70_000, 8)).astype(np.float32)
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts))
    report = archive(source, tmp_path / "a.h5ad", quality=QualityFilter(min_genes=1), n_threads=2)
    kept = counts.sum(axis=1) > 0
    assert report.n_cells == kept.sum()
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts[kept])


def as_anndata_0_6(path: Path) -> None:
    """Rewrite a file's frames and X as anndata wrote them before 0.7."""
    with h5py.File(path, "r+") as file:
        for name, column in (("obs", "cell_type"), ("var", None)):
            index = file[name][file[name].attrs["_index"]].asstr()[:]
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


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    layout=st.sampled_from(list(LAYOUTS)),
    shuffled=st.booleans(),
    max_memory=st.integers(1, 4000),
)
def test_little_memory_gives_the_same_bytes_as_much(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    layout: str,
    shuffled: bool,
    max_memory: int,
) -> None:
    folder = tmp_path_factory.mktemp("memory")
    order = np.random.default_rng(seed).permutation(40) if shuffled else np.arange(40)
    matrix = LAYOUTS[layout](counts_of(seed, n_cells=20)[:, order])
    source = write_source(folder / "source.h5ad", matrix, [GENES[i] for i in order])
    axis = GeneAxis(tuple(GENES), tuple(GENES))
    archive(source, folder / "much.h5ad", axis=axis)
    archive(source, folder / "little.h5ad", axis=axis, max_memory=max_memory)
    assert (folder / "much.h5ad").read_bytes() == (folder / "little.h5ad").read_bytes()
    assert np.array_equal(ad.read_h5ad(folder / "much.h5ad").X.toarray(), counts_of(seed, 20))
    assert not list(folder.glob("*.tmp*"))


def test_unknown_missing_and_repeated_genes_are_placed_and_counted(tmp_path: Path) -> None:
    source = write_source(
        tmp_path / "s.h5ad",
        sp.csc_matrix(np.array([[1, 2, 4, 8], [0, 1, 0, 1]], np.float32)),
        ["ENSG002.7", "OTHER", "ENSG000.1", "ENSG002.1"],
    )
    report = archive(source, tmp_path / "a.h5ad", axis=GeneAxis(tuple(GENES[:4]), ("",) * 4))
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert cells.X.toarray().tolist() == [[4, 0, 9, 0], [0, 0, 1, 0]]
    assert cells.obs["total_counts"].tolist() == [15, 2]  # of the source, unknown genes too
    assert cells.obs["n_genes"].tolist() == [4, 2]
    counted = (report.n_genes_unknown, report.n_genes_missing, report.n_genes_duplicated)
    assert counted == (1, 2, 1)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_counts_above_int16_saturate_and_are_counted(tmp_path: Path) -> None:
    matrix = sp.csc_matrix(np.array([[40_000, 32_767, 20_000, 20_000]], np.float32))
    matrix = sp.vstack([matrix, matrix * 0]).tocsc()
    source = write_source(tmp_path / "s.h5ad", matrix, ["ENSG000", "ENSG001", "ENSG002", "ENSG002"])
    report = archive(source, tmp_path / "a.h5ad", axis=GeneAxis(tuple(GENES[:3]), ("",) * 3))
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert cells.X.toarray()[0].tolist() == [32_767] * 3
    assert cells.obs["total_counts"].iloc[0] == 112_767
    assert report.n_saturated == 2


def test_explicit_zeros_are_no_expression(tmp_path: Path) -> None:
    matrix = sp.csc_matrix(np.ones((2, 3), np.float32))
    matrix.data[[0, 2]] = 0
    archive(write_source(tmp_path / "s.h5ad", matrix), tmp_path / "a.h5ad")
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert cells.X.nnz == 4
    assert cells.obs["n_genes"].tolist() == [1, 3]


@pytest.mark.parametrize(
    "quality",
    [
        QualityFilter(min_genes=12),
        QualityFilter(min_counts=60),
        QualityFilter(max_genes=14),
        QualityFilter(min_genes=8, min_counts=40, max_genes=16),
    ],
)
@pytest.mark.filterwarnings("ignore:Trying to modify attribute")
def test_quality_is_scanpys_filter_cells(tmp_path: Path, quality: QualityFilter) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    report = archive(source, tmp_path / "a.h5ad", quality=quality)
    expected = ad.read_h5ad(source)
    for name in ("min_genes", "min_counts", "max_genes"):
        if getattr(quality, name) is not None:
            sc.pp.filter_cells(expected, **{name: getattr(quality, name)})
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert list(cells.obs_names) == [f"SRX1_{name}" for name in expected.obs_names]
    assert 0 < report.n_cells == len(expected) < report.n_cells_in_file


def test_a_cap_keeps_cells_by_keyed_hash(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    kept = []
    for cap in (10, 25):
        report = archive(source, tmp_path / "a.h5ad", max_cells=cap)
        assert (report.n_cells, report.n_cells_passing) == (cap, 60)
        kept.append(set(ad.read_h5ad(tmp_path / "a.h5ad").obs_names))
    assert kept[0] < kept[1]


def test_no_passing_cell_writes_no_file(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    report = archive(source, tmp_path / "a.h5ad", quality=QualityFilter(min_genes=41))
    assert report.n_cells == 0
    assert not (tmp_path / "a.h5ad").exists()


def test_labels_become_categoricals_and_blanks_are_missing(tmp_path: Path) -> None:
    archive(write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of())), tmp_path / "a.h5ad")
    obs = ad.read_h5ad(tmp_path / "a.h5ad").obs
    assert obs["cell_type"].cat.categories.tolist() == ["B cell"]
    assert obs["cell_type"].isna().sum() == 30
    assert obs["experiment_id"].unique().tolist() == ["SRX1"]
    assert obs["age"].tolist() == [3.5] * 60


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scanpy_works_on_an_archive(tmp_path: Path) -> None:
    archive(write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of())), tmp_path / "a.h5ad")
    cells = sc.read_h5ad(tmp_path / "a.h5ad")
    sc.pp.calculate_qc_metrics(cells, inplace=True, percent_top=None)
    assert np.array_equal(cells.obs["total_counts"], counts_of().sum(axis=1))
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=10)
    sc.pp.pca(cells, n_comps=5)
    assert cells.obsm["X_pca"].shape == (60, 5)
    backed = sc.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert np.array_equal(backed[5:9].X.toarray(), counts_of()[5:9])
    backed.file.close()


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
        (remove_x, "has no var or no X|is not an h5ad file"),
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


@pytest.mark.parametrize("n_bytes", [0, 100, 20_000])
def test_a_truncated_file_is_a_clear_error(tmp_path: Path, n_bytes: int) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()))
    axis = read_gene_axis(source)
    source.write_bytes(source.read_bytes()[:n_bytes])
    with pytest.raises(CountError, match=r"s\.h5ad is not a readable h5ad file"):
        archive(source, tmp_path / "a.h5ad", axis=axis)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_a_repeated_cell_name_is_a_clear_error(tmp_path: Path) -> None:
    cells = ad.AnnData(counts_of())
    cells.var_names = GENES
    cells.obs_names = ["same", *map(str, range(58)), "same"]
    cells.write_h5ad(tmp_path / "s.h5ad")
    with pytest.raises(CountError, match="the cell name 'same' twice"):
        archive(tmp_path / "s.h5ad", tmp_path / "a.h5ad")


def test_fewer_than_half_of_the_genes_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts_of()[:, :19]))
    axis = GeneAxis(tuple(GENES), tuple(GENES))
    with pytest.raises(CountError, match="19 of the 40 reference genes, fewer than half"):
        archive(source, tmp_path / "a.h5ad", axis=axis)
    enough = write_source(tmp_path / "t.h5ad", sp.csc_matrix(counts_of()[:, :20]))
    assert archive(enough, tmp_path / "a.h5ad", axis=axis).n_genes_missing == 20


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_number_of_threads_gives_the_same_bytes(tmp_path: Path, layout: str) -> None:
    source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](counts_of()))
    archives = []
    for n_threads in (1, 2, 5):
        archive(source, tmp_path / "a.h5ad", n_threads=n_threads, max_memory=3000)
        archives.append((tmp_path / "a.h5ad").read_bytes())
    assert archives[0] == archives[1] == archives[2]


def test_unsorted_and_repeated_entries_of_a_column_are_summed(tmp_path: Path) -> None:
    matrix = sp.csc_matrix(np.array([[3, 1], [4, 0], [0, 5], [0, 0]], np.float32))
    matrix.indices[:2] = [1, 0]  # the first column backwards
    source = write_source(tmp_path / "s.h5ad", matrix)
    archive(source, tmp_path / "a.h5ad", n_threads=2)
    assert ad.read_h5ad(tmp_path / "a.h5ad").X.toarray().tolist() == [
        [4, 1],
        [3, 0],
        [0, 5],
        [0, 0],
    ]
    with h5py.File(source, "r+") as file:
        file["X/indices"][:2] = [1, 1]
    archive(source, tmp_path / "a.h5ad", n_threads=2)
    assert ad.read_h5ad(tmp_path / "a.h5ad").X.toarray().tolist() == [
        [0, 1],
        [7, 0],
        [0, 5],
        [0, 0],
    ]


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


MEMORY_SCRIPT = """
import sys, threading
from pathlib import Path
from scdiff_data.archive import QualityFilter, read_gene_axis, write_archive

def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024

def convert(source, target, max_memory):
    axis = read_gene_axis(Path(source))
    settings = dict(max_cells=None, seed=0, max_memory=max_memory, n_threads=2)
    write_archive(Path(source), Path(target), experiment_id="x", axis=axis,
                  quality=QualityFilter(), **settings)

small, large, target, max_memory = sys.argv[1:]
convert(small, target, 1 << 20)  # what loading the compiled code takes is the interpreter's own
before, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous() - before)

watcher = threading.Thread(target=watch)
watcher.start()
convert(large, target, int(max_memory))
done.set()
watcher.join()
print(peak)
"""


def write_full_matrix(path: Path, *, n_cells: int, n_genes: int, layout: str) -> None:
    """A file in which every cell expresses every gene, written without building it in memory."""
    n_majors, n_minors = (n_genes, n_cells) if layout == "csc" else (n_cells, n_genes)
    ad.AnnData(
        obs=pd.DataFrame(index=[f"c{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]),
    ).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file.pop("X", None)
        if layout == "dense":
            x = file.create_dataset("X", (n_cells, n_genes), np.float32)
            for row in range(0, n_cells, 100):
                x[row : row + 100] = 1 + (np.arange(n_genes) + row) % 7
            x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            return
        x = file.create_group("X")
        x.attrs.update({"encoding-type": f"{layout}_matrix", "encoding-version": "0.1.0"})
        x.attrs["shape"] = np.array([n_cells, n_genes])
        x["indptr"] = np.arange(n_majors + 1) * n_minors
        x["indices"] = np.tile(np.arange(n_minors, dtype=np.int32), n_majors)
        x["data"] = np.tile(1 + np.arange(n_minors, dtype=np.float32) % 7, n_majors)


@pytest.mark.parametrize(
    "layout",
    ["csc", *(pytest.param(name, marks=pytest.mark.soak) for name in ("csr", "dense"))],
)
def test_a_file_ten_times_the_allowance_converts_within_it(tmp_path: Path, layout: str) -> None:
    source, target, allowance = tmp_path / "source.h5ad", tmp_path / "target.h5ad", 32 << 20
    write_full_matrix(tmp_path / "small.h5ad", n_cells=300, n_genes=40, layout=layout)
    n_genes = 2_700 if layout != "dense" else 5_400
    write_full_matrix(source, n_cells=16_000, n_genes=n_genes, layout=layout)
    assert source.stat().st_size >= 10 * allowance
    files = (str(tmp_path / "small.h5ad"), str(source), str(target))
    command = [sys.executable, "-c", MEMORY_SCRIPT, *files, str(allowance)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(finished.stdout) < allowance
    archived = ad.read_h5ad(target, backed="r")
    with h5py.File(source) as file:
        for row in (0, 517, 15_999):
            expected = 1 + (np.full(n_genes, row) if layout == "csc" else np.arange(n_genes)) % 7
            if layout == "dense":
                expected = file["X"][row]
            assert np.array_equal(archived.X[row].toarray().ravel(), expected)
    archived.file.close()
