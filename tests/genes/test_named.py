"""Genes that the user names: by id or symbol, in their order, absent ones as zeros."""

import json
import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scdiff_data import H5adFolder, Recipe, prepare
from scdiff_data.genes.named import NamedGenes
from scdiff_data.reading.gene_axis import GeneAxis
from support.cases import pbmc_recipe
from support.reading import read_archives, read_shards

AXIS = GeneAxis(("ENSG1", "ENSG2", "ENSG3", "ENSG4"), ("CD3E", "MATR3", "MATR3", "ENSG1"))


@pytest.mark.parametrize(
    ("names", "places"),
    [
        pytest.param(["ENSG3", "ENSG1"], [2, 0], id="ids-in-their-order"),
        pytest.param(["CD3E"], [0], id="a-symbol"),
        pytest.param(["ENSG00000000002.7", "ENSG2"], [-1, 1], id="absent-and-present"),
        pytest.param(["ENSG1"], [0], id="an-id-goes-before-a-symbol-of-that-name"),
        pytest.param(["NOTHING", "CD3E", "ENSG9"], [-1, 0, -1], id="absent-ones-keep-their-place"),
    ],
)
def test_ids_and_symbols_are_found(names: list[str], places: list[int]) -> None:
    assert NamedGenes(tuple(names)).find(AXIS).tolist() == places


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["MATR3"], r"'MATR3', a symbol of 2 genes: name one of \['ENSG2', 'ENSG3'\]"),
        (["CD3E", "ENSG1"], r"ENSG1 more than once, as \['CD3E', 'ENSG1'\]"),
        (["X", "Y"], r"2 genes, such as 'X', and the data have none of them.*'ENSG1' \('CD3E'\)"),
    ],
)
def test_what_cannot_be_resolved_is_an_error_that_lists_the_candidates(
    names: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        NamedGenes(tuple(names)).find(AXIS)


def test_lists_files_and_hvg_infos_are_read_alike(tmp_path: Path) -> None:
    text, info, foreign = (tmp_path / name for name in ("genes.txt", "hvg_info.json", "no.json"))
    text.write_text("# markers\nENSG1\n\nENSG2  # of matrin\n")
    info.write_text(json.dumps({"hvg_names": ["ENSG1", "ENSG2"], "hvg_symbols": ["A", "B"]}))
    foreign.write_text("[1, 2]")
    assert NamedGenes.read(["ENSG1", "ENSG2"]) == NamedGenes.read(str(text))
    assert NamedGenes.read(info) == NamedGenes(("ENSG1", "ENSG2"), ("A", "B"))
    with pytest.raises(FileNotFoundError, match=r"absent.txt: no such file; give an hvg_info.json"):
        NamedGenes.read("absent.txt")
    with pytest.raises(ValueError, match=r"no hvg_info.json.*it needs 'hvg_names'"):
        NamedGenes.read(foreign)
    with pytest.raises(ValueError, match=r"genes is no hvg_info.json.*it needs 'hvg_names'"):
        NamedGenes.read({"hvg_symbols": ["A"]})
    with pytest.raises(ValueError, match="names no gene"):
        NamedGenes.read([])
    with pytest.raises(ValueError, match="'A' twice"):
        NamedGenes.read(["A", "B", "A"])


def test_given_genes_are_the_columns_and_absent_ones_are_zeros_that_are_reported(
    pbmc_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["LYZ", "NOT_A_GENE", "CD79A"]
    with caplog.at_level(logging.WARNING):
        manifest = prepare(pbmc_recipe(genes=names), tmp_path)
    assert "1 of the 3 genes given are not in the data, such as NOT_A_GENE" in caplog.text
    cells, every = read_shards(tmp_path), read_archives(pbmc_dir)
    assert cells.gene_ids == names
    columns = [every.gene_ids.index(name) for name in ("LYZ", "CD79A")]
    wanted = dict(zip(every.cell_ids, every.counts, strict=True))
    for cell, counts in zip(cells.cell_ids, cells.counts, strict=True):
        assert counts[[0, 2]].tolist() == wanted[cell][columns].tolist()
        assert counts[1] == 0
    info = json.loads((tmp_path / "hvg_info.json").read_text())
    assert info["hvg_indices"] == [columns[0], -1, columns[1]]
    assert info["flavor"] == "given"
    assert info["statistics"]["n_genes_absent"] == manifest.genes.n_absent == 1


def test_an_ambiguous_symbol_stops_the_run_before_the_first_experiment(tmp_path: Path) -> None:
    for name in ("A", "B", "C"):
        write_h5ad(tmp_path / "files" / f"{name}.h5ad", {"gene_symbols": ["S", "T", "T", "U"]})
    recipe = Recipe(source=H5adFolder(str(tmp_path / "files")), genes=["T"], **PLAIN)
    with pytest.raises(ValueError, match=r"'T', a symbol of 2 genes: name one of \['G1', 'G2'\]"):
        prepare(recipe, tmp_path / "data")
    assert not (tmp_path / "data" / "cells").exists()


def test_another_data_sets_axis_stays_as_it_is_on_files_named_by_symbols(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    info = tmp_path / "hvg_info.json"
    info.write_text(
        json.dumps({"hvg_names": ["ENSG7", "ENSG8", "ENSG9"], "hvg_symbols": ["G2", "none", "G0"]})
    )
    write_h5ad(tmp_path / "files" / "A.h5ad", {})
    recipe = Recipe(source=H5adFolder(str(tmp_path / "files")), genes=info, **PLAIN)
    prepare(recipe, tmp_path / "data")
    cells = read_shards(tmp_path / "data")
    assert cells.gene_ids == ["ENSG7", "ENSG8", "ENSG9"]
    assert cells.gene_symbols == ["G2", "none", "G0"]
    source = ad.read_h5ad(tmp_path / "files" / "A.h5ad")
    source.obs_names = [f"A_{name}" for name in source.obs_names]
    counts = source[cells.cell_ids].X.toarray()
    assert np.array_equal(cells.counts[:, [0, 2]], counts[:, [2, 0]])
    # Prepared once, the same list is the same data, wherever it is read from.
    moved = Recipe(
        source=H5adFolder(str(tmp_path / "files")), genes=info.rename(tmp_path / "m.json"), **PLAIN
    )
    assert moved.digest == recipe.digest


PLAIN: dict[str, Any] = {
    "min_genes": None,
    "min_counts": None,
    "split": {"by": "cell", "val": 0, "test": 0},
    "labels": (),
}


def write_h5ad(path: Path, var: dict[str, list[str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(path.stem))
    cells = ad.AnnData(sp.csr_matrix(rng.poisson(1.0, (40, 4)).astype(np.float32)), var=var or None)
    cells.var_names = [f"G{i}" for i in range(4)]
    cells.obs_names = [f"cell{i}" for i in range(40)]
    cells.write_h5ad(path)
