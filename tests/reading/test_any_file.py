"""Files over every encoding, layout, type and place of counts are read as anndata reads them."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.archive import QualityFilter, write_archive
from scdiff_data.reading.h5ad import read_gene_axis

LAYOUTS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}
DTYPES = ["float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool"]
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@st.composite
def columns(draw: st.DrawFn, n: int) -> Any:
    """A column of obs in one of the types that anndata writes."""
    kind = draw(st.sampled_from(["text", "category", "ordered", "int", "float", "bool", "Int64"]))
    if kind == "text":
        return draw(st.lists(words, min_size=n, max_size=n))
    if kind in ("category", "ordered"):
        names = draw(st.lists(words.filter(str.strip), min_size=1, max_size=4, unique=True))
        codes = draw(st.lists(st.integers(-1, len(names) - 1), min_size=n, max_size=n))
        return pd.Categorical.from_codes(codes, names, ordered=kind == "ordered")
    numbers = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    if kind == "Int64":
        return pd.array([None if i == 0 else i for i in numbers], dtype="Int64")
    return np.array(numbers).astype(kind)


@st.composite
def files(draw: st.DrawFn) -> tuple[ad.AnnData, str, dict[str, Any]]:
    """An AnnData, where its counts lie, and how it is written."""
    n, n_genes = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    dtype = draw(st.sampled_from(DTYPES))
    most = 1 if dtype == "bool" else 100
    values = draw(st.lists(st.integers(0, most), min_size=n * n_genes, max_size=n * n_genes))
    counts = np.array(values).reshape(n, n_genes).astype(dtype)
    matrix = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](counts)
    obs = pd.DataFrame(
        {name: draw(columns(n)) for name in draw(st.sets(st.sampled_from(["a", "b c", "split"])))},
        index=[f"cell {i}" for i in range(n)],
    )
    var = pd.DataFrame(index=[f"gene {i}" for i in range(n_genes)])
    place = draw(st.sampled_from(["X", "raw.X", "layers/counts"]))
    cells = ad.AnnData(matrix, obs, var)
    if place != "X":
        cells = ad.AnnData(sp.csr_matrix((n, n_genes), dtype=np.float32), obs, var)
        if place == "raw.X":
            cells.raw = ad.AnnData(matrix, obs, var)
        else:
            cells.layers["counts"] = matrix
    compression = draw(st.sampled_from([None, "gzip", "lzf"]))
    return cells, place, {"compression": compression}


@settings(max_examples=60)
@given(files())
@pytest.mark.filterwarnings("ignore")
def test_a_file_is_read_as_anndata_reads_it(file: tuple[ad.AnnData, str, dict[str, Any]]) -> None:
    cells, place, how = file
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, target = Path(folder) / "s.h5ad", Path(folder) / "a.h5ad"
        cells.write_h5ad(source, **how)
        write_archive(
            source,
            target,
            experiment_id="E",
            axis=read_gene_axis(source, place),
            quality=QualityFilter(),
            max_cells=None,
            seed=0,
            max_memory=1 << 30,
            counts=place,
        )
        read, found = ad.read_h5ad(source), ad.read_h5ad(target)
    x = {"X": read.X, "raw.X": None, "layers/counts": read.layers.get("counts")}[place]
    x = read.raw.X if place == "raw.X" else x
    expected = x.toarray() if sp.issparse(x) else np.asarray(x)
    assert np.array_equal(found.X.toarray(), expected)
    assert found.obs_names.tolist() == [f"E_{name}" for name in read.obs_names]
    for name in read.obs:
        own, theirs = found.obs[name].tolist(), read.obs[name].tolist()
        for a, b in zip(own, theirs, strict=True):
            assert (pd.isna(a) and (pd.isna(b) or not str(b).strip())) or _same(a, b), name


def _same(own: Any, theirs: Any) -> bool:
    """Numbers as such, texts without blanks around them."""
    if isinstance(theirs, str):
        return str(own) == theirs.strip()
    return bool(float(own) == float(theirs))
