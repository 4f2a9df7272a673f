"""The real cells invert to whole counts, laid out as scBaseCount is."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from scdiff_data import Pbmc
from scdiff_data.offline.pbmc import invert_normalization


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
