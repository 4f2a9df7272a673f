"""Genes are found by id, whatever their order and version."""

from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from scdiff_data.reading.gene_axis import GeneAxis, strip_versions

AXIS = GeneAxis(("ENSG01", "ENSG02", "TP53"), ("A", "B", "TP53"))


def test_only_ensembl_ids_lose_their_version() -> None:
    names = ["ENSG00000141510.18", "ENSMUSG0001.2", "RP11-34P13.7", " ENSG1 ", "AC0.1"]
    assert strip_versions(names) == [
        *("ENSG00000141510", "ENSMUSG0001", "RP11-34P13.7", "ENSG1", "AC0.1"),
    ]


def test_genes_are_found_by_id_whatever_their_order_and_version() -> None:
    alignment = AXIS.align(["TP53", "ENSG02.7", "ENSG99"])
    assert alignment.target.tolist() == [2, 1, -1]
    assert (alignment.n_unknown, alignment.n_missing, alignment.n_duplicates) == (1, 1, 0)


def test_repeated_genes_share_their_place() -> None:
    alignment = AXIS.align(["ENSG01", "ENSG01.2", "ENSG02", "TP53"])
    assert alignment.target.tolist() == [0, 0, 1, 2]
    assert alignment.n_duplicates == 1


@given(st.lists(st.sampled_from(["a", "b", "c", "d"])))
def test_alignment_counts_add_up(genes: list[str]) -> None:
    axis = GeneAxis(("a", "b", "c"), ("a", "b", "c"))
    alignment = axis.align(genes)
    n_placed = len(axis) - alignment.n_missing + alignment.n_duplicates
    assert n_placed + alignment.n_unknown == len(genes)


def test_an_axis_comes_from_var_and_survives_the_disk(tmp_path: Path) -> None:
    var = pd.DataFrame({"gene_symbols": ["A", "B", "C"]}, index=["ENSG1.1", "ENSG2.1", "ENSG1.3"])
    axis = GeneAxis.from_var(var)
    assert axis == GeneAxis(("ENSG1", "ENSG2"), ("A", "B"))
    axis.write(tmp_path / "genes.parquet")
    stored = GeneAxis.read(tmp_path / "genes.parquet")
    assert stored == axis
    assert stored.digest == axis.digest != AXIS.digest


def test_without_symbols_the_ids_serve() -> None:
    assert GeneAxis.from_var(pd.DataFrame(index=["CD4", "CD8A"])).symbols == ("CD4", "CD8A")
