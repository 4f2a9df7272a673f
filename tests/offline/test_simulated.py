"""The simulated atlas: the faults of real data, the same for the same seed."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest

from scdiff_data import SimulatedAtlas


def files_of(bucket: Path) -> list[Path]:
    return sorted(bucket.rglob("*.h5ad"))


def test_the_atlas_has_the_faults_of_real_data(atlas_bucket: Path) -> None:
    cells = [ad.read_h5ad(path) for path in files_of(atlas_bucket)]
    with h5py.File(files_of(atlas_bucket)[3]) as file:
        assert file["X"].attrs["encoding-type"] == "csr_matrix"
    assert cells[0].X.max() > 32_767
    assert list(cells[2].var_names) != list(cells[0].var_names)
    assert {name.split(".")[0] for name in cells[2].var_names} == set(cells[0].var_names)
    assert list(cells[0].obs_names) == list(cells[1].obs_names)  # barcodes collide
    assert cells[4].X.sum(axis=1).max() < 100  # junk
    assert cells[5].n_obs == 0
    assert cells[0].var["gene_symbols"].duplicated().any()
    libraries = np.concatenate([np.asarray(c.X.sum(axis=1)).ravel() for c in cells[:4]])
    assert 400 < libraries.min() < libraries.max()


def test_the_same_seed_gives_the_same_atlas(tmp_path: Path) -> None:
    atlas = SimulatedAtlas(n_experiments=2, n_cells=10, n_genes=30, seed=5)
    for name in ("a", "b"):
        atlas.open(tmp_path / name)
    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_batch_effects_change_genes_alike_for_all_types_of_an_experiment(tmp_path: Path) -> None:
    sizes = {"n_experiments": 2, "n_cells": 400, "n_genes": 60, "seed": 5}
    plain, moved = SimulatedAtlas(**sizes), SimulatedAtlas(**sizes, batch_sd=0.5)
    assert "batch_sd" not in plain.settings()  # so what was made before is found again
    assert moved.settings()["batch_sd"] == 0.5
    assert np.array_equal(plain.read_profiles(), moved.read_profiles())
    shift = []
    for name, atlas in (("plain", plain), ("moved", moved)):
        atlas.open(tmp_path / name)
        cells = [ad.read_h5ad(path) for path in files_of(tmp_path / name)]
        share = [np.asarray(c.X.sum(axis=0)).ravel() / c.X.sum() for c in cells]
        shift.append(np.std(np.log((share[0] + 1e-3) / (share[1] + 1e-3))))
    assert shift[1] > shift[0] + 0.1


def test_true_profiles_are_what_cells_of_a_type_have(tmp_path: Path) -> None:
    atlas = SimulatedAtlas(n_experiments=1, n_cells=800, n_genes=60, seed=5)
    atlas.open(tmp_path)
    (path,) = files_of(tmp_path)
    cells, profiles = ad.read_h5ad(path), atlas.read_profiles()
    assert profiles.sum(axis=1) == pytest.approx(1)
    name, n = cells.obs["cell_type"].value_counts().drop("").pipe(lambda s: (s.index[0], s.iloc[0]))
    assert n > 100
    mean = np.asarray((cells[cells.obs["cell_type"] == name].X).sum(axis=0)).ravel()
    numbers = [int(gene[4:].split(".")[0]) for gene in cells.var_names]
    true = profiles[int(name.split()[1])][numbers]
    assert np.corrcoef(mean / mean.sum(), true)[0, 1] > 0.98
    others = np.delete(profiles, int(name.split()[1]), axis=0)[:, numbers]
    assert all(np.corrcoef(mean, other)[0, 1] < 0.98 for other in others)


def test_a_size_out_of_range_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="batch_sd must be at least 0, got -1"):
        SimulatedAtlas(batch_sd=-1)
    with pytest.raises(ValueError, match=r"n_genes >= 20, got 8, 500 and 3"):
        SimulatedAtlas(n_genes=3)
