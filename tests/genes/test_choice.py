"""The genes chosen: from training cells alone, by score, ties by order; and what the files say."""

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scdiff_data import H5adFolder, Recipe, prepare
from scdiff_data.genes.choice import GeneChoice, choose_genes
from scdiff_data.genes.sums import GeneStatistics
from scdiff_data.reading.gene_axis import GeneAxis
from support.cases import ATLAS, pbmc_recipe
from support.reading import read_archives, read_shards


def test_the_chosen_genes_are_those_of_highest_dispersion_in_training_cells(
    pbmc_dir: Path,
) -> None:
    train = read_archives(pbmc_dir, "train")
    counts = train.counts.astype(np.float64)
    mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
    dispersion = np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0)
    wanted = np.argsort(-dispersion, kind="stable")[:64]
    assert read_shards(pbmc_dir).gene_ids == [train.gene_ids[i] for i in wanted]


@pytest.mark.parametrize("flavor", ["dispersion", "seurat", "cell_ranger", "seurat_v3"])
@pytest.mark.parametrize("by_batch", [False, True], ids=["no-batches", "batches"])
def test_a_gene_variable_in_validation_alone_is_not_chosen(
    tmp_path: Path, flavor: str, by_batch: bool
) -> None:
    """Gene 30 is flat in training cells; in the others it is the most variable of all."""
    settings: dict[str, Any] = {
        "min_genes": None,
        "min_counts": None,
        "n_hvgs": 20,
        "min_cells_pct": 10.0,
        "split": {"by": "group", "val": ["held out"]},
        "labels": ["group"],
        "flavor": flavor,
        "batch_key": "experiment_id" if by_batch else None,
    }
    rng = np.random.default_rng(0)
    shape = rng.uniform(0.5, 3, 60)
    for name in ("A", "B"):
        counts = rng.poisson(rng.gamma(shape, 4 / shape, (120, 60)))
        counts[:, 30] = rng.poisson(4, 120)
        counts[60:, 30] = rng.choice([0, 0, 0, 0, 0, 24], 60)
        cells = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))
        cells.var_names = [f"gene {i}" for i in range(60)]
        cells.obs["group"] = ["kept"] * 60 + ["held out"] * 60
        (tmp_path / "files").mkdir(exist_ok=True)
        cells.write_h5ad(tmp_path / "files" / f"{name}.h5ad")
    recipe = Recipe(source=H5adFolder(str(tmp_path / "files")), **settings)
    prepare(recipe, tmp_path / "data")
    assert "gene 30" not in read_shards(tmp_path / "data").gene_ids
    prepare(
        Recipe(source=recipe.source, **(settings | {"split": {"by": "cell"}})), tmp_path / "leak"
    )
    assert "gene 30" in read_shards(tmp_path / "leak").gene_ids


def test_equal_dispersions_keep_the_order_of_the_genes() -> None:
    choice = choose(np.tile([[1], [3]], (10, 4)), n_hvgs=3, min_cells_pct=0.0)
    assert choice.indices.tolist() == [0, 1, 2]


def test_genes_in_too_few_cells_are_no_candidates() -> None:
    counts = np.zeros((1000, 3))
    counts[:, 0] = np.arange(1000) % 3
    counts[0, 1] = 30_000  # in 0.1 % of the cells
    counts[:, 2] = np.arange(1000) % 2
    at_least = choose(counts, n_hvgs=1, min_cells_pct=0.1)
    more_than = choose(counts, n_hvgs=1, min_cells_pct=0.2)
    assert (at_least.indices.tolist(), int(at_least.is_candidate.sum())) == ([1], 3)
    assert (more_than.indices.tolist(), int(more_than.is_candidate.sum())) == ([0], 2)


def test_more_hvgs_than_candidates_is_an_error_that_says_how_many_there_are(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"n_hvgs=2000, but only 765 of 765 genes.*lower n_hvgs"):
        prepare(pbmc_recipe(n_hvgs=2000), tmp_path)


def test_hvg_info_says_what_was_chosen_from_what(pbmc_dir: Path) -> None:
    info = json.loads((pbmc_dir / "hvg_info.json").read_text())
    assert list(info) == [
        *("hvg_indices", "hvg_names", "hvg_symbols", "gene_to_hvg_idx"),
        *("flavor", "settings", "statistics"),
    ]
    axis = GeneAxis.read(pbmc_dir / "metadata" / "genes.parquet")
    assert info["hvg_names"] == [axis.ids[i] for i in info["hvg_indices"]]
    assert info["hvg_symbols"] == [axis.symbols[i] for i in info["hvg_indices"]]
    assert all(info["hvg_names"][place] == gene for gene, place in info["gene_to_hvg_idx"].items())
    assert info["flavor"] == "dispersion"
    assert info["settings"] == {
        "n_hvgs": 64,
        "min_cells_pct": 0.1,
        "normalize": False,
        "batch_key": None,
    }
    statistics = info["statistics"]
    train = read_archives(pbmc_dir, "train").counts.astype(np.float64)
    assert statistics["n_cells"] == len(train)
    assert statistics["n_genes"] == 765
    assert statistics["n_genes_passing"] == ((train > 0).mean(axis=0) >= 0.001).sum()
    kept = train[:, info["hvg_indices"]]
    dispersion = kept.var(axis=0, ddof=1) / kept.mean(axis=0)
    for name, wanted in (
        ("min", dispersion.min()),
        ("median", np.median(dispersion)),
        ("mean", dispersion.mean()),
        ("max", dispersion.max()),
    ):
        assert statistics["dispersion"][name] == pytest.approx(wanted)
    assert [entry["gene"] for entry in statistics["top"]] == info["hvg_names"][:10]
    for place, entry in enumerate(statistics["top"]):
        assert entry["dispersion"] == entry["score"] == pytest.approx(dispersion[place])
        assert entry["percent_of_cells"] == pytest.approx(100 * (kept[:, place] > 0).mean())


def test_depth_differs_between_experiments_and_normalising_finds_the_variable_genes(
    tmp_path: Path,
) -> None:
    """Of two depths, tenfold apart: raw dispersion ranks by expression, the scaled one does not."""
    rng = np.random.default_rng(3)
    n_genes, variable = 400, np.arange(0, 400, 10)
    share = np.exp(rng.normal(0, 1, n_genes))
    share /= share.sum()
    for number in range(6):
        state = rng.integers(0, 2, 150)
        fold = np.ones((150, n_genes))
        fold[:, variable] = np.where(state, 4.0, 0.25)[:, None]
        rate = share * fold
        rate *= (1000 * 10 ** (number / 5)) / rate.sum(axis=1, keepdims=True)
        path = tmp_path / "files" / f"E{number}.h5ad"
        path.parent.mkdir(exist_ok=True)
        cells = ad.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
        cells.var_names = [f"gene {i}" for i in range(n_genes)]
        cells.write_h5ad(path)
    found = {}
    for normalize in (False, True):
        recipe = Recipe(
            source=H5adFolder(str(tmp_path / "files")),
            n_hvgs=len(variable),
            normalize=normalize,
            min_genes=None,
            split={"by": "cell"},
            labels=(),
        )
        prepare(recipe, tmp_path / str(normalize))
        genes = read_shards(tmp_path / str(normalize)).gene_ids
        found[normalize] = len({int(gene.split()[1]) for gene in genes} & set(variable.tolist()))
    assert found[True] > 0.7 * len(variable)
    assert found[True] > found[False] + 0.2 * len(variable)


def test_a_column_that_the_catalog_lacks_is_named_before_anything_is_fetched(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"batch_key names no column.*'plate'.*'tissue'"):
        prepare(pbmc_recipe(batch_key="plate"), tmp_path)
    assert not (tmp_path / "cells").exists()


def test_batches_are_a_columns_values_without_case_or_blanks(tmp_path: Path) -> None:
    recipe = Recipe(
        source=ATLAS, min_genes=20, n_hvgs=50, split={"by": "cell"}, batch_key="tissue", labels=()
    )
    manifest = prepare(recipe, tmp_path)
    info = json.loads((tmp_path / "hvg_info.json").read_text())
    assert info["settings"]["batch_key"] == "tissue"
    assert manifest.genes.n_chosen == 50


def choose(train: np.ndarray, **settings: Any) -> GeneChoice:
    """Choose from a dense matrix of training cells."""
    zeros = np.zeros(train.shape[1])
    statistics = GeneStatistics(
        n_cells=len(train),
        n_expressing=(train > 0).sum(axis=0),
        total=train.sum(axis=0).astype(np.int64),
        total_squared=(train**2).sum(axis=0).astype(np.int64),
        scaled=zeros,
        scaled_squared=zeros,
        log=zeros,
        log_squared=zeros,
    )
    names = tuple(f"G{i}" for i in range(train.shape[1]))

    def count_above(*_: Any) -> Any:
        raise AssertionError("no second pass")

    recipe = pbmc_recipe(**settings)
    return choose_genes(recipe.gene_settings, GeneAxis(names, names), {"": statistics}, count_above)
