"""Every count comes to its cell, in any memory and with any number of threads."""

import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.archive.cell_totals import QualityFilter
from scdiff_data.reading.gene_axis import GeneAxis
from support.h5ad import GENES, LAYOUTS, archive, counts_of, write_source


def test_more_cells_than_16_bits_count_arrive_as_the_same_counts(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(0.3, (70_000, 8)).astype(np.float32)
    source = write_source(tmp_path / "s.h5ad", sp.csc_matrix(counts))
    report = archive(source, tmp_path / "a.h5ad", quality=QualityFilter(min_genes=1), n_threads=2)
    kept = counts.sum(axis=1) > 0
    assert report.n_cells == kept.sum()
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts[kept])


@settings(max_examples=25)
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


MEMORY_SCRIPT = """
import sys, threading
from pathlib import Path
from scdiff_data.archive import QualityFilter, write_archive
from scdiff_data.reading import read_gene_axis

def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024

def convert(source, target, max_memory):
    axis = read_gene_axis(Path(source))
    settings = dict(max_cells=None, seed=0, max_memory=max_memory, n_threads=2)
    settings |= dict(axis=axis, quality=QualityFilter())
    write_archive(Path(source), Path(target), experiment_id="x", **settings)

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
