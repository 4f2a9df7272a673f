"""A data set's cells are the source's, in any order asked for."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scanpy as sc
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Subset

from scdiff_data import (
    CellBatch,
    HVGDataset,
    ManifestError,
    ScRNADataset,
    TokenDataset,
    collate,
    prepare,
)
from support.cases import pbmc_recipe


def test_the_dataset_is_the_source_matrix(pbmc_dir: Path) -> None:
    dataset = HVGDataset(pbmc_dir)
    expression, metadata = dataset[:]
    for path in (pbmc_dir / "source").rglob("*.h5ad"):
        source = sc.read_h5ad(path)
        mine = metadata["experiment_id"] == path.stem
        barcodes = [cell.removeprefix(f"{path.stem}_") for cell in metadata["cell_id"][mine]]
        wanted = source[barcodes, dataset.gene_ids]
        assert np.array_equal(expression.numpy()[mine], wanted.X.toarray())
        totals = source[barcodes].X.sum(axis=1)
        assert np.array_equal(metadata["total_counts"].numpy()[mine], np.asarray(totals).ravel())
        names = np.array(dataset.categories["cell_type"])[metadata["cell_type"].numpy()[mine]]
        assert np.array_equal(names, wanted.obs["cell_type"])
        assert np.array_equal(metadata["n_counts"].numpy()[mine], wanted.obs["n_counts"])


def test_both_datasets_hold_the_same_cells_in_the_same_order(pbmc_dir: Path) -> None:
    chosen, whole = HVGDataset(pbmc_dir), ScRNADataset(pbmc_dir / "processed")
    columns = [whole.gene_ids.index(gene) for gene in chosen.gene_ids]
    assert len(chosen) == len(whole) == 700
    assert torch.equal(chosen[:].expression, whole[:].expression[:, columns])
    for name, values in chosen[:].metadata.items():
        assert np.array_equal(values, whole[:].metadata[name]), name


def test_sparse_batches_equal_dense_ones(pbmc_dir: Path) -> None:
    rows = [5, 3, 699, 5]
    sparse = ScRNADataset(pbmc_dir, sparse=True)[rows].expression
    assert sparse.layout is torch.sparse_csr
    assert torch.equal(sparse.to_dense(), ScRNADataset(pbmc_dir)[rows].expression)


@pytest.mark.parametrize("kind", [HVGDataset, ScRNADataset])
@settings(max_examples=30)
@given(rows=st.lists(st.integers(-700, 699), max_size=40))
def test_any_rows_are_gathered_in_the_order_asked_for(
    pbmc_dir: Path, kind: type, rows: list[int]
) -> None:
    dataset = kind(pbmc_dir)
    batch = dataset[rows]
    assert torch.equal(batch.expression, dataset[:].expression[rows])
    assert batch.metadata["cell_id"].tolist() == dataset[:].metadata["cell_id"][rows].tolist()


def test_one_row_is_one_cell(pbmc_dir: Path) -> None:
    dataset = HVGDataset(pbmc_dir)
    cell = dataset[7]
    assert isinstance(cell, CellBatch)
    assert cell.expression.shape == (64,)
    assert torch.equal(cell.expression, dataset[[7]].expression[0])


def test_splits_are_disjoint_and_complete(pbmc_dir: Path) -> None:
    parts = [HVGDataset(pbmc_dir, split=split) for split in ("train", "val", "test")]
    ids = np.concatenate([part[:].metadata["cell_id"] for part in parts])
    assert len(np.unique(ids)) == len(ids) == 700
    assert all(len(part) > 40 for part in parts)


def test_n_hvgs_takes_the_best_genes_first(pbmc_dir: Path) -> None:
    few, all_of_them = HVGDataset(pbmc_dir, n_hvgs=10), HVGDataset(pbmc_dir)
    assert few.gene_ids == all_of_them.gene_ids[:10]
    assert torch.equal(few[:].expression, all_of_them[:].expression[:, :10])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_hvgs": 65}, r"n_hvgs=65.*stores 64 genes.*data\.n_hvgs=65"),
        ({"split": "valid"}, r"split must be one of.*'valid'"),
        ({"labels": ["tissue"]}, r"keeps no label \['tissue'\].*data\.labels="),
    ],
)
def test_what_is_not_stored_is_a_clear_error(
    pbmc_dir: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        HVGDataset(pbmc_dir, **settings)


def test_rows_outside_are_an_error(pbmc_dir: Path) -> None:
    with pytest.raises(IndexError, match=r"rows are -700 … 699"):
        HVGDataset(pbmc_dir)[[0, 700]]


def test_training_needs_the_shards_alone(pbmc_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "processed").mkdir()
    for path in [*(pbmc_dir / "processed").iterdir(), pbmc_dir / "config.json"]:
        (tmp_path / path.relative_to(pbmc_dir)).write_bytes(path.read_bytes())
    assert torch.equal(HVGDataset(tmp_path)[:].expression, HVGDataset(pbmc_dir)[:].expression)
    with pytest.raises(ManifestError, match=r"cells/PBMC0.*is missing"):
        ScRNADataset(tmp_path)


def test_a_directory_without_data_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"config\.json is missing; call prepare\(recipe, data_dir\)"
    ):
        HVGDataset(tmp_path)


@pytest.mark.parametrize("told", [{}, {"collate_fn": collate}], ids=["as it is", "told"])
def test_a_plain_dataloader_takes_whole_batches(pbmc_dir: Path, told: dict[str, Any]) -> None:
    dataset = HVGDataset(pbmc_dir)
    tokens = TokenDataset(dataset, np.minimum(np.arange(32_768), 9).astype(np.uint8))
    for cells in (dataset, ScRNADataset(pbmc_dir, sparse=True), tokens):
        batches = list(DataLoader(cells, batch_size=50, **told))
        for at, batch in enumerate(batches):
            rows = range(50 * at, 50 * at + 50)
            assert torch.equal(batch[0].to_dense(), cells[rows][0].to_dense())
            assert batch.metadata["cell_id"].tolist() == dataset.read_ids()[rows].tolist()
        assert len(batches) == 14


def test_a_dataset_around_ours_gives_the_same_cells(pbmc_dir: Path) -> None:
    dataset = HVGDataset(pbmc_dir)
    tokens = TokenDataset(dataset, np.arange(32_768, dtype=np.int16))  # those of their counts
    both = ConcatDataset([dataset, dataset]), ConcatDataset([tokens, tokens])
    for cells in (Subset(dataset, range(100)), *both):
        expression, metadata = next(iter(DataLoader(cells, batch_size=50)))
        assert torch.equal(expression, dataset[:50].expression)
        assert torch.equal(metadata["cell_type"], dataset[:50].metadata["cell_type"])
        assert list(metadata["cell_id"]) == dataset.read_ids()[:50].tolist()


@pytest.mark.parametrize("kind", [HVGDataset, ScRNADataset])
def test_a_pickled_dataset_gathers_the_same_and_holds_no_map(pbmc_dir: Path, kind: type) -> None:
    dataset = kind(pbmc_dir)
    _ = dataset[:100]  # maps files
    copied = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copied[:].expression, dataset[:].expression)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches(pbmc_dir: Path, context: str) -> None:
    dataset = HVGDataset(pbmc_dir)
    loader = DataLoader(
        dataset,
        batch_size=100,
        num_workers=2,
        multiprocessing_context=context,
    )
    expression = torch.cat([batch.expression for batch in loader])
    assert torch.equal(expression, dataset[:].expression)


@pytest.fixture(scope="module")
def unvalidated_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred cells, none of them for validation."""
    path = tmp_path_factory.mktemp("unvalidated")
    prepare(pbmc_recipe(cell_count=100, split={"by": "cell", "val": 0, "test": 0.2}), path)
    return path


@pytest.mark.parametrize("kind", [HVGDataset, ScRNADataset])
def test_an_empty_split_has_no_cell_of_another(unvalidated_dir: Path, kind: Any) -> None:
    empty = kind(unvalidated_dir, split="val")
    assert len(empty) == len(empty[:].expression) == 0
    with pytest.raises(IndexError):
        empty[[0]]


def test_an_id_that_is_no_text_is_damage_of_its_shard(data_dir: Path) -> None:
    path = data_dir / "processed" / "batch_0001.h5"
    with h5py.File(path, "r+") as file:
        file["cell_ids"][7] = b"PBMC\xff"
    cells = HVGDataset(data_dir)
    ids = cells[[3, 307]].metadata["cell_id"]
    for read in (lambda: ids[0], lambda: list(ids), lambda: pickle.dumps(ids), cells.read_ids):
        with pytest.raises(ManifestError, match=rf"^{path} is damaged \(cell_id: "):
            read()
    sent = list(DataLoader(cells, batch_size=300, num_workers=1, timeout=60))
    assert sent[0].metadata["cell_id"].tolist() == cells[:300].metadata["cell_id"].tolist()
    with pytest.raises(ManifestError, match=rf"^{path} is damaged \(cell_id: "):
        sent[1].metadata["cell_id"].tolist()
