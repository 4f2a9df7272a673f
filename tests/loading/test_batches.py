"""Cells become an AnnData: the source's counts, ids and labels, of any rows or of a batch."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from scdiff_data import (
    H5adFolder,
    HVGDataset,
    LogBinTokens,
    Pbmc,
    Recipe,
    ScRNADataModule,
    ScRNADataset,
    create_dataloader,
    create_hvg_dataloader,
    prepare,
)
from support.cases import PBMC_SETTINGS


def read_sources(folder: Path) -> ad.AnnData:
    """All cells of the source's files, under our ids."""
    parts = []
    for path in (folder / "source").rglob("*.h5ad"):
        part = ad.read_h5ad(path)
        part.obs_names = [f"{path.stem}_{barcode}" for barcode in part.obs_names]
        parts.append(part)
    return ad.concat(parts)


def assert_same(first: ad.AnnData, second: ad.AnnData) -> None:
    assert first.X.dtype == second.X.dtype == np.int16
    assert first.X.format == second.X.format == "csr"
    assert np.array_equal(first.X.toarray(), second.X.toarray())
    pd.testing.assert_frame_equal(first.obs, second.obs)
    pd.testing.assert_frame_equal(first.var, second.var)


@pytest.mark.parametrize("kind", [HVGDataset, ScRNADataset])
def test_an_anndata_has_the_sources_counts_in_the_order_asked_for(
    pbmc_dir: Path, tmp_path: Path, kind: Any
) -> None:
    dataset = kind(pbmc_dir)
    cells = dataset.to_anndata([5, -1, 0, 300])
    assert cells.obs_names.tolist() == dataset.read_ids()[[5, -1, 0, 300]].tolist()
    assert cells.var_names.tolist() == dataset.gene_ids
    whole = read_sources(pbmc_dir)[cells.obs_names]
    assert np.array_equal(cells.X.toarray(), whole[:, cells.var_names].X.toarray())
    assert cells.obs["total_counts"].tolist() == whole.X.sum(axis=1).ravel().tolist()[0]
    for label in ("cell_type", "n_counts"):
        assert cells.obs[label].tolist() == whole.obs[label].tolist()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert_same(ad.read_h5ad(tmp_path / "cells.h5ad"), cells)


def test_rows_may_be_a_number_a_slice_an_array_or_a_mask(pbmc_dir: Path) -> None:
    dataset = HVGDataset(pbmc_dir, split="val")
    ids, mask = dataset.read_ids(), np.arange(len(dataset)) % 7 == 3
    for rows, wanted in (
        (3, ids[[3]]),
        (slice(2, 20, 5), ids[2:20:5]),
        (torch.tensor([4, 1]), ids[[4, 1]]),
        (mask, ids[mask]),
        ([], ids[:0]),
        (None, ids),
    ):
        assert dataset.to_anndata(rows).obs_names.tolist() == wanted.tolist()
    with pytest.raises(IndexError, match=r"a mask must be \[65\], one value a cell, got \[64\]"):
        dataset[mask[1:]]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("sparse", [None, False, True], ids=["chosen", "dense", "sparse"])
def test_a_loaders_batch_becomes_the_anndata_of_its_rows(
    pbmc_dir: Path, sparse: bool | None, num_workers: int
) -> None:
    how: dict[str, Any] = {"split": "test", "num_workers": num_workers}
    loader = (
        create_hvg_dataloader(pbmc_dir, 16, **how)
        if sparse is None
        else create_dataloader(pbmc_dir, 16, sparse=sparse, **how)
    )
    dataset: Any = loader.dataset
    for i, batch in enumerate(loader):
        assert_same(dataset.to_anndata(batch), dataset.to_anndata(slice(16 * i, 16 * i + 16)))


def test_tokens_become_an_anndata_of_their_counts_if_they_carry_them(pbmc_dir: Path) -> None:
    settings = PBMC_SETTINGS | {"batch_size": 32, "tokenizer": LogBinTokens()}
    module = ScRNADataModule(Pbmc(), pbmc_dir, **settings)
    module.setup()
    batch = module.on_after_batch_transfer(next(iter(module.val_dataloader())), 0)
    assert_same(module.val_dataset.to_anndata(batch), module.val_dataset.to_anndata(range(32)))
    with pytest.raises(ValueError, match=r"tokens without counts: set train_counts=True"):
        module.train_dataset.to_anndata(next(iter(module.train_dataloader())))


def test_a_batch_of_other_genes_is_refused_and_so_is_a_single_cell(pbmc_dir: Path) -> None:
    chosen, whole = HVGDataset(pbmc_dir), ScRNADataset(pbmc_dir)
    with pytest.raises(ValueError, match=r"must be \[cells, 765 genes\], got \[5, 64\]"):
        whole.to_anndata(chosen[:5])
    with pytest.raises(ValueError, match=r"got \[64\].*one cell is dataset\[\[row\]\]"):
        chosen.to_anndata(chosen[7])


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ({"expression": torch.zeros(2, 64)}, "got dict"),
        ((torch.zeros(2, 64), {"cell_id": ["a", "b"]}), "got tuple"),
        ([1.0, 2.0], r"got list of float64 \[2\]"),
        ("abc", r"got str of <U3 \[\]"),
        (np.zeros((2, 3), int), r"got ndarray of int64 \[2, 3\]"),
        ([[1], [2, 3]], "got list"),
    ],
    ids=["dict", "tuple", "floats", "text", "table", "ragged"],
)
def test_what_is_neither_rows_nor_a_batch_is_refused(
    pbmc_dir: Path, cells: Any, found: str
) -> None:
    for dataset in (HVGDataset(pbmc_dir), ScRNADataset(pbmc_dir)):
        for take in (dataset.to_anndata, dataset.__getitem__):
            with pytest.raises(ValueError, match=rf"row numbers, a slice or a mask, {found}; a ba"):
                take(cells)


def test_missing_labels_are_missing_in_the_anndata_and_after_it_is_read_again(
    tmp_path: Path,
) -> None:
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(["b", None, "a", "c"] * 10, categories=["c", "b", "a"]),
            "age": [1.5, np.nan, 3.0, 4.0] * 10,
        },
        index=[f"cell{i}" for i in range(40)],
    )
    counts = np.random.default_rng(0).poisson(1.0, (40, 12)).astype(np.float32)
    (tmp_path / "own").mkdir()
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(12)])
    ad.AnnData(counts, obs=obs, var=var).write_h5ad(tmp_path / "own" / "lab.h5ad")
    recipe = Recipe(
        source=H5adFolder(str(tmp_path / "own")),
        labels=list(obs.columns),
        n_hvgs=None,
        min_genes=None,
        min_counts=None,
        split={"by": "cell", "val": 0, "test": 0},
    )
    prepare(recipe, tmp_path / "data")
    dataset = HVGDataset(tmp_path / "data")
    cells = dataset.to_anndata()
    wanted = obs.loc[[name.removeprefix("lab_") for name in cells.obs_names]]
    for label in obs.columns:
        assert cells.obs[label].isna().tolist() == wanted[label].isna().tolist()
        assert cells.obs[label].dropna().tolist() == wanted[label].dropna().tolist()
    assert cells.obs["kind"].cat.categories.tolist() == ["c", "b", "a"]
    few = dataset.to_anndata(np.flatnonzero(cells.obs["kind"] != "b"))
    assert few.obs["kind"].cat.categories.tolist() == ["c", "a"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert_same(ad.read_h5ad(tmp_path / "cells.h5ad"), cells)
