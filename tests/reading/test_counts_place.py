"""Counts are found where they lie, and what is none is named for what it looks like."""

import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scdiff_data import CountError, H5adFolder
from support.h5ad import archive, counts_of, write_source


def make(path: Path, **places: Any) -> Path:
    """A file whose `X` is logarithms, and counts are in the places named."""
    source = write_source(path, sp.csr_matrix(counts_of()))
    cells = ad.read_h5ad(source)
    logs = cells.copy()
    logs.X = np.log1p(counts_of() / 7)
    if "raw" in places:
        logs.raw = cells
    for name in places.get("layers", ()):
        logs.layers[name] = cells.X.copy()
    logs.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("places", "counts"),
    [
        ({"raw": True}, "raw.X"),
        ({"raw": True}, "auto"),
        ({"layers": ["counts"]}, "layers/counts"),
        ({"layers": ["spliced", "umi"]}, "auto"),
    ],
)
def test_counts_are_read_from_where_they_lie(
    tmp_path: Path, places: dict[str, Any], counts: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(tmp_path / "s.h5ad", **places)
    with caplog.at_level(logging.INFO):
        archive(source, tmp_path / "a.h5ad", counts=counts)
    assert np.array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), counts_of())
    assert counts != "auto" or "counts are read from" in caplog.text


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"raw": True}, r"logarithms of normalised counts.*set source.counts=raw.X"),
        ({"layers": ["umi"]}, r"whole numbers are in layers/umi: set source.counts=layers/umi"),
        ({}, r"no other element of the file holds whole numbers"),
    ],
)
def test_an_x_without_counts_says_where_they_are(
    tmp_path: Path, places: dict[str, Any], message: str
) -> None:
    with pytest.raises(CountError, match=rf"s\.h5ad does not hold counts.*{message}"):
        archive(make(tmp_path / "s.h5ad", **places), tmp_path / "a.h5ad")


@pytest.mark.parametrize(
    ("values", "look"),
    [
        (lambda c: (c - c.mean(0)) / (c.std(0) + 1), "scaled values or Pearson residuals"),
        (lambda c: c / 7 * 100, "normalised counts"),
        (lambda c: c * np.nan, "no numbers"),
    ],
)
def test_other_values_are_named_for_what_they_look_like(
    tmp_path: Path, values: Any, look: str
) -> None:
    source = write_source(tmp_path / "s.h5ad", values(counts_of()).astype(np.float32))
    with pytest.raises(CountError, match=look):
        archive(source, tmp_path / "a.h5ad")
    with pytest.raises(CountError, match=rf"no element holds whole numbers.*{look}"):
        archive(source, tmp_path / "a.h5ad", counts="auto")


@pytest.mark.parametrize("layout", [sp.csc_matrix, sp.csr_matrix, np.asarray])
def test_whole_numbers_with_float_noise_count_as_whole(tmp_path: Path, layout: Any) -> None:
    noisy = counts_of() * (1 + 1e-5 * np.random.default_rng(0).uniform(-1, 1, counts_of().shape))
    source = write_source(tmp_path / "s.h5ad", layout(noisy))
    report = archive(source, tmp_path / "a.h5ad")
    cells = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(cells.X.toarray(), counts_of())
    assert cells.obs["total_counts"].tolist() == counts_of().sum(axis=1).tolist()
    assert report.n_rounded == (counts_of() > 0).sum()


def test_a_place_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"counts must be X, raw.X, layers/NAME or auto"):
        H5adFolder("somewhere", counts="raw")


def test_an_element_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = make(tmp_path / "s.h5ad", layers=["umi"])
    with pytest.raises(CountError, match=r"counts in layers/counts.*it has X, layers/umi"):
        archive(source, tmp_path / "a.h5ad", counts="layers/counts")
