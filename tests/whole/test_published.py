"""Columns of published tables are those that their definitions give, worked out by hand."""

import importlib.util
from math import exp, sqrt
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel

from support import forks
from support.cases import ROOT


@pytest.fixture(scope="module")
def published() -> Any:
    path = ROOT / "benchmarks" / "fixtures" / "published.py"
    spec = importlib.util.spec_from_file_location("published", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def counts() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    rate = rng.gamma(1, 2, 60)
    return rng.poisson(rate, (80, 60)), rng.poisson(rate * rng.gamma(5, 0.2, 60), (90, 60))


def test_distances_of_points_are_those_worked_out_by_hand(published: Any) -> None:
    x, y = np.array([[0.0, 0], [10, 0]]), np.array([[10.0, 4], [3, 0]])
    # The best pairing: (10, 0) to (10, 4), 4 apart, and (0, 0) to (3, 0), 3 apart.
    assert published.measure_wasserstein(x, y, 1) == pytest.approx(3.5)
    assert published.measure_wasserstein(x, y, 2) == pytest.approx(sqrt((16 + 9) / 2))
    one, other = np.array([[0.0]]), np.array([[1.0]])
    widths = (0.01, 0.1, 1, 10, 100)
    between = sum(exp(-1 / (2 * width**2)) for width in widths)
    cfgen = published.measure_biased_mmd2(one, other, published.sum_of_gaussians)
    assert cfgen == pytest.approx(2 * len(widths) - 2 * between)
    # Differences (1, 0), (2, 1), (0, 3): products 2 and 3.
    ends = np.array([[1.0, 0], [2, 1], [0, 3]])
    assert published.measure_linear_mmd2(ends, np.zeros((3, 2))) == pytest.approx(2.5)


def test_scldms_are_biased_and_of_raw_counts(published: Any) -> None:
    zero, one = np.array([[0]]), np.array([[1]])
    columns = published.measure_scldm(zero, one)
    assert columns["MMD2"] == pytest.approx(2 - 2 * exp(-1))
    assert columns["W2"] == pytest.approx(np.log1p(10_000))


def test_crndiffs_are_those_of_scipy_and_sklearn(published: Any, counts: Any) -> None:
    real, own = counts[0], counts[1][:80]
    columns = published.measure_crndiff(*counts)
    each = [wasserstein_distance(a, b) for a, b in zip(real.T, own.T, strict=True)]
    assert columns["W1"] == pytest.approx(np.mean(each))
    log_r, log_c = (np.log1p(1e4 * x / x.sum(1, keepdims=True)) for x in (real, own))
    distances = [np.linalg.norm(a - b) for i, a in enumerate(log_r) for b in log_r[:i]]
    gamma = 1 / (2 * np.median(distances) ** 2)
    k = [
        rbf_kernel(a, b, gamma).mean() for a, b in ((log_r, log_r), (log_c, log_c), (log_r, log_c))
    ]
    assert columns["MMD2"] == pytest.approx(k[0] + k[1] - 2 * k[2])
    assert columns["PCC"] == pytest.approx(np.corrcoef(log_r.mean(0), log_c.mean(0))[0, 1])
    assert published.measure_crndiff(real, real)["SCC"] == pytest.approx(1)


def test_cfgens_generated_cells_are_not_centred_as_released(published: Any, counts: Any) -> None:
    real, _ = counts
    log_r = np.log1p(1e4 * real / real.sum(1, keepdims=True))
    pca = PCA(30, random_state=0).fit(log_r)
    shift = np.linalg.norm(pca.mean_ @ pca.components_.T)
    released, centred = (published.measure_cfgen(real, real, centred=c) for c in (False, True))
    assert released["W2"] == pytest.approx(shift)  # the same cells, moved by the mean cell
    assert centred["W2"] == pytest.approx(0, abs=1e-6)
    assert centred["RBF MMD2"] == pytest.approx(0, abs=1e-9)
    assert released["RBF MMD2"] > 0.01


def test_cfgens_figures_by_type_are_the_mean_over_types(published: Any, counts: Any) -> None:
    real, own = counts
    types = np.repeat(["a", "b"], 40), np.repeat(["a", "b", "c"], 30)
    of_types = published.measure_cfgen(real, own, types, centred=True)
    log_r, log_c = (published.log_normalize(x) for x in (real, own))
    pca = PCA(30, random_state=0).fit(log_r)
    x, y = pca.transform(log_r), pca.transform(log_c)
    each = [published.measure_wasserstein(x[types[0] == t][:30], y[types[1] == t], 1) for t in "ab"]
    assert of_types["W1"] == pytest.approx(np.mean(each))


def test_the_table_has_every_paper_beside_real_cells(tmp_path: Path, counts: Any) -> None:
    for name, own in zip(("real", "generated"), counts, strict=True):
        obs = pd.DataFrame({"clusters": np.resize(["a", "b"], len(own))})
        obs.index = obs.index.astype(str)
        cells = anndata.AnnData(own.astype(np.float32), obs=obs)
        cells[:, ::-1].copy().write_h5ad(tmp_path / f"{name}.h5ad")
    paths = [str(tmp_path / "real.h5ad"), "--generated", str(tmp_path / "generated.h5ad")]
    how = ["--label", "clusters", "--paper", "heart"]
    done = forks.run(ROOT / "benchmarks" / "published.py", *paths, *how, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "80 real and 90 generated cells, 60 shared genes" in done.stdout
    for row in ("CFGen, as released W2", "CFGen, centred RBF MMD2", "scLDM MMD2", "CRNDiff PCC"):
        assert row in done.stdout
    assert "CRNDiff 0.017, CFGen 0.026" in done.stdout
