"""Settings are checked at once, and told apart by their digest."""

from pathlib import Path
from typing import Any

import pytest

from scdiff_data import H5adFolder, Pbmc, Recipe, ScBaseCount
from scdiff_data.genes.named import NamedGenes
from scdiff_data.recipes import Split


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell_count": 0}, "cell_count must be a whole number of at least 1, got 0"),
        ({"cell_count": 1.5}, "cell_count must be a whole number.*1.5"),
        ({"n_hvgs": "all"}, "n_hvgs must be a whole number.*'all'"),
        ({"n_hvgs": True}, "n_hvgs must be a whole number.*True"),
        ({"shard_size": None}, "shard_size must be a whole number of at least 1, got None"),
        ({"min_genes": -1}, "min_genes must be a whole number of at least 0 or null, got -1"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"min_cells_pct": 101}, "min_cells_pct is a percentage, 0 to 100, got 101"),
        ({"max_failed_fraction": 2}, "max_failed_fraction must be in 0 … 1, got 2"),
        ({"labels": "cell_type"}, "labels must be a list of names, got the text 'cell_type'"),
        ({"labels": ["n_genes"]}, r"name \['n_genes'\], which every cell carries already"),
        ({"split": {"by": "total_counts", "val": ["1"]}}, r"split.by name \['total_counts'\]"),
        ({"filters": ["lung"]}, "filters, exclude and cell_filters must map columns"),
        ({"split": {"by": "cell", "val": 2}}, "fractions"),
    ],
)
def test_a_value_out_of_range_is_an_error_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(source=Pbmc(), **settings)


@pytest.mark.parametrize(
    "change",
    [
        {"source": ScBaseCount()},
        {"cell_count": 5},
        {"seed": 1},
        {"filters": {"tissue": ["lung"]}},
        {"exclude": {"tissue": ["lung"]}},
        {"max_cells_per_experiment": 9},
        {"min_genes": 1},
        {"min_counts": None},
        {"max_genes": 10},
        {"split": {"by": "cell"}},
        {"labels": ()},
        {"n_hvgs": None},
        {"min_cells_pct": 1.0},
        {"shard_size": 10},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_makes_another_digest(change: dict[str, Any]) -> None:
    assert Recipe(**({"source": Pbmc()} | change)).digest != Recipe(source=Pbmc()).digest


def test_how_values_are_written_does_not_matter() -> None:
    first, second = (
        Recipe(
            source=Pbmc(),
            labels=labels,
            filters=filters,
            max_mito_pct=five,
            min_cells_pct=five,
            cell_filters={"n_genes": {"min": five}},
        )
        for labels, filters, five in (
            (["a"], {"x": ["1"], "y": ["2"]}, 5),
            (("a",), {"y": ("2",), "x": ("1",)}, 5.0),
        )
    )
    assert first.digest == second.digest
    for name in ("max_mito_pct", "cell_filters"):  # archives are found by their text
        assert str(first.settings()[name]) == str(second.settings()[name])


def test_a_mirror_is_the_same_recipe() -> None:
    mirror = ScBaseCount(url="file:///mirror", storage_options={"token": "x"})
    assert Recipe(source=mirror).digest == Recipe(source=ScBaseCount()).digest
    other = Recipe(source=ScBaseCount(release="2025-02-25"))
    assert other.digest != Recipe(source=ScBaseCount()).digest


def test_a_folder_that_is_not_there_is_found_when_it_is_needed() -> None:
    recipe = Recipe(source=H5adFolder("nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _ = recipe.digest


def test_when_a_run_gives_up_does_not_decide_what_it_makes() -> None:
    recipe, patient = Recipe(source=Pbmc()), Recipe(source=Pbmc(), max_failed_fraction=0.5)
    assert patient.digest == recipe.digest
    assert recipe.makes_what(patient.settings())
    assert not recipe.makes_what(Recipe(source=Pbmc(), seed=7).settings())


def test_a_recipe_holds_its_settings_parsed(tmp_path: Path) -> None:
    (tmp_path / "genes.txt").write_text("A\nB  # the second\n")
    recipe = Recipe(
        source=Pbmc(), genes=tmp_path / "genes.txt", split={"by": "cell", "val": 0}, labels=["a"]
    )
    assert recipe.genes == NamedGenes(("A", "B"))
    assert recipe.split == Split(by="cell", val=0)
    assert recipe.labels == ("a",)
    assert Recipe.from_settings(recipe.settings()).settings() == recipe.settings()
    with pytest.raises(ValueError, match=r"settings of a source name its kind, `source`, got \{"):
        Recipe(source={"_target_": "scdiff_data.Pbmc"})
