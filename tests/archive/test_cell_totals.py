"""What a cell adds up to, and which cells pass."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from scdiff_data.archive.cell_totals import QualityFilter
from scdiff_data.reading.gene_axis import GeneAxis
from support.h5ad import GENES, archive, counts_of, write_source


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
    assert cells.obs["archived_counts"].tolist() == [13, 1]
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
    assert cells.obs["archived_counts"].tolist() == [3 * 32_767, 0]
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
