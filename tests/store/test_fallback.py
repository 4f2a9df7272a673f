"""Empty places of cells that express few of the chosen genes take other genes of theirs."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scdiff_data import HVGDataset, ScRNADataset, create_hvg_dataloader, prepare
from scdiff_data.archive.file import CsrRows
from scdiff_data.store.fallback import fill_empty
from support.cases import pbmc_recipe

MIN_GENES = 24


def fill_by_hand(
    counts: np.ndarray, chosen: list[int], min_genes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Slots and their genes, one cell after another, by the rule as the docstring has it."""
    expression, genes = counts[:, chosen].copy(), np.tile(chosen, (len(counts), 1))
    for cell, row in enumerate(counts):
        if (expression[cell] > 0).sum() >= min_genes:
            continue
        others = [g for g in range(len(row)) if row[g] > 0 and g not in chosen]
        others.sort(key=lambda g: (-row[g], g))
        empty = [slot for slot in range(len(chosen)) if expression[cell, slot] == 0]
        for slot, gene in zip(empty, others, strict=False):
            expression[cell, slot], genes[cell, slot] = row[gene], gene
    return expression, genes


@settings(deadline=None, max_examples=200)
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


@pytest.fixture(scope="module")
def filled_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled")
    prepare(pbmc_recipe(fallback_min_genes=MIN_GENES), path)
    return path


def test_every_place_of_every_cell_holds_the_gene_that_its_id_says(
    pbmc_dir: Path, filled_dir: Path
) -> None:
    filled, every = HVGDataset(filled_dir)[:], ScRNADataset(filled_dir)
    counts = every[:].expression.numpy()
    assert np.array_equal(filled.metadata["cell_id"], every[:].metadata["cell_id"])
    chosen = [every.gene_ids.index(gene) for gene in HVGDataset(filled_dir).gene_ids]
    expression, genes = fill_by_hand(counts, chosen, MIN_GENES)
    assert np.array_equal(filled.expression, expression)
    assert np.array_equal(filled.metadata["gene_ids"], genes)
    assert 0 < (genes != chosen).any(axis=1).sum() < len(genes)


def test_the_best_genes_alone_have_their_own_ids(filled_dir: Path) -> None:
    whole, part = HVGDataset(filled_dir), HVGDataset(filled_dir, n_hvgs=10)
    assert np.array_equal(part[:].metadata["gene_ids"], whole[:].metadata["gene_ids"][:, :10])


@pytest.mark.parametrize("rows", [[699, 0, 650, 0], []], ids=["some", "none"])
def test_ids_of_rows_are_those_of_the_whole(filled_dir: Path, rows: list[int]) -> None:
    dataset: Any = HVGDataset(filled_dir)
    whole = dataset[:].metadata["gene_ids"]
    copy = pickle.loads(pickle.dumps(dataset))
    for one in (dataset, copy):
        assert np.array_equal(one[rows].metadata["gene_ids"], whole[rows])


def test_batches_carry_the_ids_from_workers_too(filled_dir: Path) -> None:
    batches = [
        [metadata["gene_ids"] for _, metadata in create_hvg_dataloader(filled_dir, num_workers=n)]
        for n in (0, 2)
    ]
    for here, there in zip(*batches, strict=True):
        assert np.array_equal(here, there)


def test_without_it_there_are_no_ids_and_the_shards_are_smaller(
    pbmc_dir: Path, filled_dir: Path
) -> None:
    assert "gene_ids" not in HVGDataset(pbmc_dir)[:2].metadata
    sizes = [
        sum(path.stat().st_size for path in (folder / "processed").iterdir())
        for folder in (pbmc_dir, filled_dir)
    ]
    assert sizes[0] < sizes[1]
