"""Empty places of cells that express few of the chosen genes take other genes of theirs."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scdiff_data import prepare
from scdiff_data.archive.file import CsrRows
from scdiff_data.shuffle.filling import fill_empty
from support.cases import pbmc_recipe
from support.fallback import MIN_GENES, fill_by_hand
from support.reading import read_archives, read_shards


@settings(max_examples=200)
@given(
    counts=arrays(np.int16, (5, 9), elements=st.sampled_from([0, 0, 0, 1, 2, 32_767])),
    chosen=st.permutations(range(9)),
    n_chosen=st.integers(1, 9),
    min_genes=st.integers(0, 10),
)
def test_places_are_filled_as_by_brute_force(
    counts: np.ndarray, chosen: list[int], n_chosen: int, min_genes: int
) -> None:
    chosen = list(chosen)[:n_chosen]
    matrix = sp.csr_matrix(counts)
    slot_of_gene = np.full(9, -1, np.int32)
    slot_of_gene[chosen] = np.arange(n_chosen)
    expression = counts[:, chosen].copy()
    found = fill_empty(
        CsrRows(matrix.indptr, matrix.indices, matrix.data, n_genes=9),
        np.arange(5),
        np.arange(5),
        slot_of_gene,
        expression,
        min_genes=min_genes,
    )
    genes = np.tile(chosen, (5, 1))
    genes[found.cells, found.slots] = found.genes
    wanted_expression, wanted_genes = fill_by_hand(counts, chosen, min_genes)
    assert np.array_equal(expression, wanted_expression)
    assert np.array_equal(genes, wanted_genes)


def test_shards_hold_what_filling_by_hand_gives(tmp_path: Path) -> None:
    prepare(pbmc_recipe(fallback_min_genes=MIN_GENES), tmp_path)
    every, filled = read_archives(tmp_path), read_shards(tmp_path)
    chosen = [every.gene_ids.index(gene) for gene in filled.gene_ids]
    assert np.array_equal(filled.counts, fill_by_hand(every.counts, chosen, MIN_GENES)[0])
