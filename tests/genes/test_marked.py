"""Mitochondrial and house-keeping genes are known by symbol, and by id where there is no symbol."""

from scdiff_data.genes.marked import HOUSE_KEEPING, MITOCHONDRIAL_IDS, mark_genes
from scdiff_data.reading.gene_axis import GeneAxis


def test_genes_are_known_by_symbol_in_any_case_and_by_id() -> None:
    ids = ("ENSG00000198888", "ENSMUSG00000064341", "ENSG00000165280", "ENSG1", "ENSG2", "ENSG3")
    symbols = ("ENSG00000198888", "mt-Nd1", "ENSG00000165280", "Vcp", "MTOR", "VCPKMT")
    marks = mark_genes(GeneAxis(ids, symbols))
    assert marks["mitochondrial"].tolist() == [True, True, False, False, False, False]
    assert marks["house-keeping"].tolist() == [False, False, True, True, False, False]


def test_the_lists_have_the_genes_that_their_sources_name() -> None:
    assert (len(HOUSE_KEEPING), len(MITOCHONDRIAL_IDS)) == (11, 13)
    assert {len(gene) for gene in (*HOUSE_KEEPING.values(), *MITOCHONDRIAL_IDS)} == {15}
