from pathlib import Path

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from cases import pbmc_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data import HVGDataset, ScRNADataset, prepare
from scdiff_data.archive import QualityFilter, write_archive
from scdiff_data.h5ad import read_gene_axis
from scdiff_data.hvg import GeneStatistics, choose_genes


@pytest.fixture(scope="module")
def archive(pbmc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = next((pbmc_dir / "source").rglob("PBMC01.h5ad"))
    target = tmp_path_factory.mktemp("archive") / "PBMC01.h5ad"
    write_archive(
        source,
        target,
        experiment_id="PBMC01",
        axis=read_gene_axis(source),
        quality=QualityFilter(),
        max_cells=None,
        seed=0,
        max_memory=1 << 30,
    )
    return target


def test_statistics_are_the_sums_over_each_splits_cells(archive: Path) -> None:
    split_of_row = np.random.default_rng(0).integers(-1, 3, 100).astype(np.int8)
    statistics = GeneStatistics.from_archive(archive, split_of_row)
    counts = sc.read_h5ad(archive).X.toarray().astype(np.int64)
    scaled = counts / counts.sum(axis=1, keepdims=True) * 1e4
    for split in range(3):
        mine = split_of_row == split
        assert statistics.n_cells[split] == mine.sum()
        assert np.array_equal(statistics.n_expressing[split], (counts[mine] > 0).sum(axis=0))
        assert np.array_equal(statistics.total[split], counts[mine].sum(axis=0))
        assert np.array_equal(statistics.total_squared[split], (counts[mine] ** 2).sum(axis=0))
        np.testing.assert_allclose(statistics.scaled[split], scaled[mine].sum(axis=0))
        np.testing.assert_allclose(
            statistics.scaled_squared[split], (scaled[mine] ** 2).sum(axis=0)
        )
        np.testing.assert_allclose(statistics.log[split], np.log1p(scaled[mine]).sum(axis=0))
        np.testing.assert_allclose(
            statistics.log_squared[split], (np.log1p(scaled[mine]) ** 2).sum(axis=0)
        )


@settings(deadline=None, max_examples=20)
@given(cut=st.integers(0, 100))
def test_statistics_of_parts_add_up(archive: Path, cut: int) -> None:
    first = np.where(np.arange(100) < cut, 0, -1).astype(np.int8)
    second = np.where(np.arange(100) >= cut, 0, -1).astype(np.int8)
    whole = GeneStatistics.from_archive(archive, np.zeros(100, np.int8))
    parts = GeneStatistics.from_archive(archive, first) + GeneStatistics.from_archive(
        archive, second
    )
    assert np.array_equal(parts.total_squared, whole.total_squared)
    np.testing.assert_allclose(parts.log_squared, whole.log_squared)


def test_statistics_read_back_only_under_their_own_key(archive: Path, tmp_path: Path) -> None:
    statistics = GeneStatistics.from_archive(archive, np.zeros(100, np.int8))
    statistics.write(tmp_path / "s.npz", "key")
    assert GeneStatistics.read(tmp_path / "s.npz", "other") is None
    stored = GeneStatistics.read(tmp_path / "s.npz", "key")
    assert stored is not None
    assert np.array_equal(stored.log, statistics.log)


def test_the_chosen_genes_are_those_of_highest_dispersion_in_training_cells(
    pbmc_dir: Path,
) -> None:
    train = ScRNADataset(pbmc_dir, split="train")
    counts = train[:].expression.numpy().astype(np.float64)
    mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
    dispersion = np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0)
    wanted = np.argsort(-dispersion, kind="stable")[:64]
    assert HVGDataset(pbmc_dir).gene_ids == [train.gene_ids[i] for i in wanted]


def test_a_gene_variable_in_validation_alone_is_not_chosen() -> None:
    statistics = make_statistics(np.ones((50, 5)), np.array([[0, 0, 0, 0, 900]] * 50))
    statistics.total_squared[0, 2] += 10
    assert choose_genes(statistics, n_hvgs=1, min_cells_pct=0.1).indices.tolist() == [2]


def test_equal_dispersions_keep_the_order_of_the_genes() -> None:
    statistics = make_statistics(np.tile([[1], [3]], (10, 4)), np.zeros((2, 4)))
    assert choose_genes(statistics, n_hvgs=3, min_cells_pct=0.0).indices.tolist() == [0, 1, 2]


def test_genes_in_too_few_cells_are_no_candidates() -> None:
    counts = np.zeros((1000, 3))
    counts[:, 0] = np.arange(1000) % 3
    counts[0, 1] = 30_000  # in 0.1 % of the cells
    counts[:, 2] = np.arange(1000) % 2
    statistics = make_statistics(counts, np.zeros((1, 3)))
    at_least = choose_genes(statistics, n_hvgs=1, min_cells_pct=0.1)
    more_than = choose_genes(statistics, n_hvgs=1, min_cells_pct=0.2)
    assert (at_least.indices.tolist(), at_least.n_candidates) == ([1], 3)
    assert (more_than.indices.tolist(), more_than.n_candidates) == ([0], 2)


def test_more_hvgs_than_candidates_is_an_error_that_says_how_many_there_are(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"n_hvgs=2000, but only 765 of 765 genes.*lower n_hvgs"):
        prepare(pbmc_recipe(n_hvgs=2000), tmp_path)


def make_statistics(train: np.ndarray, val: np.ndarray) -> GeneStatistics:
    """Statistics of a dense matrix of training cells and one of validation cells."""
    n_genes = train.shape[1]
    groups = [sp.csr_matrix(train), sp.csr_matrix(val), sp.csr_matrix((0, n_genes))]

    def sums(power: int) -> np.ndarray:
        return np.array([np.asarray(g.power(power).sum(axis=0)).ravel() for g in groups])

    zeros = np.zeros((3, n_genes))
    return GeneStatistics(
        n_cells=np.array([g.shape[0] for g in groups]),
        n_expressing=np.array([np.asarray((g > 0).sum(axis=0)).ravel() for g in groups]),
        total=sums(1).astype(np.int64),
        total_squared=sums(2).astype(np.int64),
        scaled=zeros,
        scaled_squared=zeros,
        log=zeros,
        log_squared=zeros,
    )
