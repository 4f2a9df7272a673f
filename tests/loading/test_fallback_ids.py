"""Where places may hold other genes, batches say which."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data import HVGDataset, ScRNADataset, create_hvg_dataloader, prepare
from support.cases import pbmc_recipe
from support.fallback import MIN_GENES, fill_by_hand


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


def test_an_anndata_has_the_counts_of_its_columns_genes_alone(
    pbmc_dir: Path, filled_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdiff_data.loading.dataset._DENSE_ROWS", 99)  # of 700: in parts
    plain, filled = HVGDataset(pbmc_dir).to_anndata(), HVGDataset(filled_dir)
    for cells in (filled.to_anndata(), filled.to_anndata(filled[:])):
        assert cells.obs_names.tolist() == plain.obs_names.tolist()
        assert (cells.X != plain.X).nnz == 0
