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


def test_a_size_out_of_range_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"n_genes >= 20, got 8, 500 and 3"):
        SimulatedAtlas(n_genes=3)
