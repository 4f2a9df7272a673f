"""One experiment in, one file out: which cells and labels it has, and what is refused."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scdiff_data import CountError
from scdiff_data.archive.cell_totals import QualityFilter
from scdiff_data.reading.gene_axis import GeneAxis
from support.h5ad import GENES, archive, counts_of, write_source


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
def test_columns_with_gaps_arrive_as_numbers_or_texts(tmp_path: Path) -> None:
    """Nullable columns, as pandas 3 and newer anndata write them, with gaps and without."""
    cells = ad.AnnData(sp.csr_matrix(counts_of(n_cells=4)))
    cells.var_names, cells.obs_names = GENES, [f"B{i}" for i in range(4)]
    cells.obs["whole"] = pd.array([1, 2, 3, 4], "Int64")
    cells.obs["whole_gaps"] = pd.array([1, None, 3, 4], "Int32")
    cells.obs["is_live"] = pd.array([True, False, True, True], "boolean")
    cells.obs["is_live_gaps"] = pd.array([True, None, False, True], "boolean")
    cells.obs["kind"] = pd.array(["a", None, " b", ""], "string")
    cells.obs["day"] = pd.Categorical.from_codes([0, 1, -1, 0], [3, 10])
    with ad.settings.override(allow_write_nullable_strings=True):
        cells.write_h5ad(tmp_path / "s.h5ad")
    archive(tmp_path / "s.h5ad", tmp_path / "a.h5ad")
    obs = ad.read_h5ad(tmp_path / "a.h5ad").obs
    assert obs["whole"].tolist() == [1, 2, 3, 4]
    assert obs["whole"].dtype == np.int64
    assert obs["whole_gaps"].fillna(-1).tolist() == [1, -1, 3, 4]
    assert obs["is_live"].tolist() == [True, False, True, True]
    texts = obs[["is_live_gaps", "kind", "day"]].astype(object)
    assert texts.where(texts.notna(), None).to_numpy().T.tolist() == [
        ["true", None, "false", "true"],
        ["a", None, "b", None],
        ["3", "10", None, "3"],
    ]


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
