"""A bounded number of cells is compared, and what divides them is told from what does not."""

from pathlib import Path

import numpy as np
import pytest

from scdiff_data import Recipe, SimulatedAtlas, prepare
from scdiff_data.reporting import sample
from scdiff_data.reporting.sample import SampledCells, sample_cells
from scdiff_data.store import Manifest


def test_few_cells_of_every_split_stand_for_many(
    pbmc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "MOST_CELLS", 70)
    manifest = Manifest.read(pbmc_dir)
    cells = sample_cells(manifest)
    n_of = dict(zip(*np.unique(cells.texts["split"], return_counts=True), strict=True))
    assert n_of == {name: -(-n // 10) for name, n in manifest.n_cells.items()}
    assert cells.places_ck is not None
    assert cells.places_ck.shape == (len(cells.total_counts), 10)
    assert cells.texts["cell_type"].shape == cells.total_counts.shape


def test_compact_shards_give_the_same_cells(pbmc_dir: Path, compact_dir: Path) -> None:
    dense, compact = (sample_cells(Manifest.read(path)) for path in (pbmc_dir, compact_dir))
    assert np.array_equal(dense.places_ck, compact.places_ck)
    assert dense.texts.keys() == compact.texts.keys()


def test_places_that_other_genes_took_say_nothing(tmp_path: Path) -> None:
    settings = {"min_genes": None, "min_counts": None, "split": {"by": "cell"}, "n_hvgs": 20}
    source = SimulatedAtlas(n_experiments=2, n_cells=40, n_genes=60)
    for name, fallback in (("with", 20), ("without", 0)):
        recipe = Recipe(source=source, fallback_min_genes=fallback, **settings)
        prepare(recipe, tmp_path / name)
    found = [sample_cells(Manifest.read(tmp_path / name)) for name in ("with", "without")]
    assert np.array_equal(found[0].places_ck, found[1].places_ck)


def test_a_column_that_divides_the_cells_is_told_from_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    kind = np.repeat(["a", "b", ""], [100, 100, 10])
    places_ck = rng.normal(0, 0.1, (210, 2)).astype(np.float32)
    places_ck[:100, 0] += 5
    texts = {
        "kind": kind,
        "none": rng.permutation(kind),
        "one": np.full(210, "x"),
        "each": np.array([str(i) for i in range(210)]),
    }
    cells = SampledCells(np.full(210, 100), texts, places_ck, np.array([0.9, 0.1]), 2)
    divides, not_so = cells.group_by("kind"), cells.group_by("none")
    assert divides is not None
    assert not_so is not None
    assert (divides.n_values, divides.alike) == (2, 1.0)
    assert divides.explained > 0.99
    assert not_so.explained < 0.05
    assert not_so.alike == pytest.approx(not_so.alike_by_chance, abs=0.12)
    assert cells.group_by("one") is None
    assert cells.group_by("each") is None
