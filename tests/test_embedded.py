from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from scdiff_data import Pbmc, SimulatedAtlas
from scdiff_data.sources.pbmc import invert_normalization


def files_of(bucket: Path) -> list[Path]:
    return sorted(bucket.rglob("*.h5ad"))


def test_the_real_cells_invert_to_whole_counts_and_the_authors_totals() -> None:
    cells = sc.datasets.pbmc68k_reduced()
    normalized = sp.csr_matrix(cells.raw.X)
    counts, scale = invert_normalization(normalized)
    assert counts.max() == 259
    assert np.array_equal(counts.data, np.rint(counts.data))
    assert counts.data.min() >= 1
    back = np.log1p(counts.toarray() * scale[:, None])
    assert np.abs(back - normalized.toarray()).max() < 0.02
    assert np.abs(1e4 / scale / cells.obs["n_counts"].to_numpy() - 1).max() < 4e-4


def test_a_matrix_that_is_not_scaled_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="cell 0 is not log1p of scaled counts"):
        invert_normalization(sp.csr_matrix(np.log1p([[1.0, 1.5, 3.2]])))


def test_the_real_cells_are_laid_out_as_scbasecount_is(tmp_path: Path) -> None:
    bucket = Pbmc().open(tmp_path)
    catalog = Pbmc().read_catalog(bucket)
    assert catalog["n_cells"].to_pylist() == [100] * 7
    folder = tmp_path / "scbasecount/2026-01-12"
    assert list(folder.glob("metadata/GeneFull_Ex50pAS/Homo_sapiens/sample_metadata.parquet"))
    with h5py.File(files_of(tmp_path)[0]) as file:
        assert file["X"].attrs["encoding-type"] == "csc_matrix"
        assert file["X/data"].dtype == np.float32
        assert file["X/data"].compression == "gzip"
    cells = ad.read_h5ad(files_of(tmp_path)[0])
    assert cells.obs_names.str.fullmatch("[ACGT]{14}").all()
    assert cells.obs_names.is_unique
    assert {"cell_type", "n_counts", "SRX_accession"} <= set(cells.obs)
    assert list(cells.var["gene_symbols"]) == list(cells.var_names)


@pytest.mark.parametrize("source", [Pbmc(), SimulatedAtlas(n_experiments=2, n_cells=5, n_genes=20)])
def test_files_are_written_once(tmp_path: Path, source: Pbmc | SimulatedAtlas) -> None:
    source.open(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    source.open(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_atlas_has_the_faults_of_real_data(atlas_bucket: Path) -> None:
    cells = [ad.read_h5ad(path) for path in files_of(atlas_bucket)]
    with h5py.File(files_of(atlas_bucket)[3]) as file:
        assert file["X"].attrs["encoding-type"] == "csr_matrix"
    assert cells[0].X.max() > 32_767
    assert list(cells[2].var_names) != list(cells[0].var_names)
    assert {name.split(".")[0] for name in cells[2].var_names} == set(cells[0].var_names)
    assert list(cells[0].obs_names) == list(cells[1].obs_names)  # barcodes collide
    assert cells[4].X.sum(axis=1).max() < 100  # junk
    assert cells[5].n_obs == 0
    assert cells[0].var["gene_symbols"].duplicated().any()
    libraries = np.concatenate([np.asarray(c.X.sum(axis=1)).ravel() for c in cells[:4]])
    assert 400 < libraries.min() < libraries.max()


def test_the_same_seed_gives_the_same_atlas(tmp_path: Path) -> None:
    atlas = SimulatedAtlas(n_experiments=2, n_cells=10, n_genes=30, seed=5)
    for name in ("a", "b"):
        atlas.open(tmp_path / name)
    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_size_out_of_range_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"n_genes >= 20, got 8, 500 and 3"):
        SimulatedAtlas(n_genes=3)
