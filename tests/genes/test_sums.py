"""Sums over groups of cells: exact where whole, and the same in any grouping."""

from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path

import h5py
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.base.threads import Workers
from scdiff_data.genes.sums import GeneStatistics, count_above, sum_genes


@pytest.fixture(scope="module")
def archive(pbmc_dir: Path) -> Path:
    return pbmc_dir / "cells" / "PBMC01.h5ad"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as workers:
        yield workers


def read_counts(archive: Path) -> np.ndarray:
    return sc.read_h5ad(archive).X.toarray().astype(np.int64)


def test_sums_are_those_of_each_splits_cells(archive: Path, workers: Workers) -> None:
    split_of_row = np.random.default_rng(0).integers(-1, 3, 100).astype(np.int8)
    by_split = sum_genes(archive, split_of_row, workers)
    counts = read_counts(archive)
    scaled = counts / counts.sum(axis=1, keepdims=True) * 1e4
    for code, name in enumerate(("train", "val", "test")):
        mine, sums = split_of_row == code, by_split[name]
        assert sums.n_cells == mine.sum()
        assert np.array_equal(sums.n_expressing, (counts[mine] > 0).sum(axis=0))
        assert np.array_equal(sums.total, counts[mine].sum(axis=0))
        assert np.array_equal(sums.total_squared, (counts[mine] ** 2).sum(axis=0))
        for found, values in (
            (sums.scaled, scaled),
            (sums.scaled_squared, scaled**2),
            (sums.log, np.log1p(scaled)),
            (sums.log_squared, np.log1p(scaled) ** 2),
        ):
            np.testing.assert_allclose(found, values[mine].sum(axis=0), rtol=1e-12)


@settings(max_examples=20)
@given(
    groups=st.lists(st.integers(0, 3), min_size=100, max_size=100),
    order=st.permutations(range(4)),
)
def test_any_grouping_in_any_order_gives_the_same_sums(
    archive: Path, groups: list[int], order: list[int]
) -> None:
    one = Workers(1)
    whole = sum_genes(archive, np.zeros(100, np.int8), one)["train"]
    parts = []
    for group in order:
        mine = np.where(np.array(groups) == group, 0, -1).astype(np.int8)
        parts += sum_genes(archive, mine, one).values()
    together = reduce(add, parts)
    assert together.n_cells == whole.n_cells
    for name in ("n_expressing", "total", "total_squared"):
        assert np.array_equal(getattr(together, name), getattr(whole, name)), name
    for name in ("scaled", "scaled_squared", "log", "log_squared"):
        # The bound that the docstring states, of both sides.
        bound = 2 * 1.2e-16 * whole.n_cells
        np.testing.assert_allclose(getattr(together, name), getattr(whole, name), rtol=bound)


def test_threads_do_not_move_a_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    counts = sp.csr_matrix(rng.poisson(0.4, (9_000, 30)).astype(np.int16))
    archive = tmp_path / "large.h5ad"
    with h5py.File(archive, "w") as file:
        for name in ("indptr", "indices", "data"):
            file[f"X/{name}"] = getattr(counts, name)
        file["X"].attrs["shape"] = counts.shape
    sums = []
    for n in (1, 2, 3):
        with Workers(n) as workers:
            sums.append(sum_genes(archive, np.zeros(9_000, np.int8), workers)["train"])
    for other in sums[1:]:
        assert np.array_equal(sums[0].log_squared, other.log_squared)
        assert np.array_equal(sums[0].scaled, other.scaled)


def test_variances_are_exact_where_products_pass_64_bits() -> None:
    n, huge = 4_000_000_000, 4_000_000_000 * 30_000
    zeros = np.zeros(2)
    sums = GeneStatistics(
        n_cells=n,
        n_expressing=np.array([n, n]),
        total=np.array([huge, 7]),
        total_squared=np.array([huge * 30_000 + 12, 7]),
        scaled=zeros,
        scaled_squared=zeros,
        log=zeros,
        log_squared=zeros,
    )
    mean, variance = sums.mean_variance
    assert mean.tolist() == [30_000.0, 7 / n]
    np.testing.assert_allclose(variance, [12 / (n - 1), (7 * n - 49) / n / (n - 1)], rtol=1e-15)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_counts_above_a_threshold_are_those_that_a_dense_matrix_has(
    archive: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(rng.random(100) < 0.5)
    counts = read_counts(archive)[rows]
    thresholds = rng.integers(0, 5, counts.shape[1]).astype(np.int16)
    above = np.where(counts > thresholds, counts, 0)
    with Workers(2) as workers:
        n, total, squared = count_above(archive, rows, thresholds, workers)
    assert np.array_equal(n, (above > 0).sum(axis=0))
    assert np.array_equal(total, above.sum(axis=0))
    assert np.array_equal(squared, (above**2).sum(axis=0))
