"""The card of a data set, finished, unfinished or damaged."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scdiff_data import Recipe, describe, prepare
from scdiff_data.reporting import holding
from scdiff_data.reporting.survey import CellSurvey, survey_cells
from scdiff_data.reporting.text import _tell_label
from scdiff_data.store import Manifest
from support.cases import ATLAS, ATLAS_SETTINGS, digest_tree


def test_a_finished_directory_says_what_it_holds_and_stays_as_it_is(pbmc_dir: Path) -> None:
    card = describe(pbmc_dir)
    facts = card.facts
    assert facts["state"] == "whole"
    assert facts["cells"] == Manifest.read(pbmc_dir).n_cells
    assert facts["genes"]["chosen"] == 64
    table = pq.read_table(pbmc_dir / "metadata" / "cells.parquet").to_pandas()
    assert facts["labels"]["cell_type"]["values"] == table["cell_type"].value_counts().to_dict()
    assert facts["labels"]["n_counts"]["least"] == table["n_counts"].min()
    assert facts["counts_a_cell"]["most"] == table["total_counts"].max()
    assert facts["genes_a_cell"]["median"] == int(table["n_genes"].quantile(0.5, "lower"))
    assert sum(facts["disk"].values()) == sum(
        path.stat().st_size for path in pbmc_dir.rglob("*") if path.is_file()
    )
    assert set(facts["changed"]) >= {"min_genes", "n_hvgs", "shard_size"}
    assert "seed" not in facts["changed"]
    text = str(card)
    for told in ("700: 569 train, 65 val, 66 test", "64 of 765, by dispersion", "Dendritic"):
        assert told in text
    assert json.loads(card.to_json()) == facts


def test_losses_and_refilled_places_are_told(tmp_path: Path) -> None:
    prepare(Recipe(source=ATLAS, **(ATLAS_SETTINGS | {"fallback_min_genes": 90})), tmp_path)
    card = describe(tmp_path)
    assert card.facts["genes"]["places_refilled"] > 0
    assert card.facts["dropped"]["counts_saturated"] == 1
    assert "no cell passes QC" in str(card)
    assert "failing QC" in str(card)
    assert "cells without" in str(card)


def test_an_unfinished_directory_says_how_far_it_is(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "config.json").unlink()
    card = describe(data_dir)
    assert card.facts["state"] == "unfinished"
    assert "7 experiments archived, with 700 cells" in str(card)
    assert "the same command that began it goes on" in str(card)
    with pytest.raises(ValueError, match="is unfinished: there are no cells to draw"):
        card.draw(tmp_path / "card.png")
    recipe = Recipe(source=ATLAS, **ATLAS_SETTINGS)
    prepare(recipe, tmp_path / "apart", stages="download")
    card = describe(tmp_path / "apart")
    assert "stages=process makes the rest" in str(card)
    assert card.facts["settings"]["n_hvgs"] == 100


def test_a_damaged_directory_says_what_is_damaged(data_dir: Path) -> None:
    table = data_dir / "metadata" / "cells.parquet"
    content = bytearray(table.read_bytes())
    content[-200:-8] = bytes(192)
    table.write_bytes(content)  # of the same size
    assert describe(data_dir).facts["state"] == "damaged"
    (data_dir / "cells" / "PBMC03.h5ad").write_bytes(b"short")
    card = describe(data_dir)
    assert card.facts["state"] == "damaged"
    assert "PBMC03.h5ad has 5 bytes, config.json says" in str(card)
    (data_dir / "config.json").write_text("{")
    card = describe(data_dir)
    assert card.facts["state"] == "damaged"
    assert "config.json is damaged" in str(card)


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no directory"):
        describe(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds nothing that scdiff_data prepared"):
        describe(tmp_path)


def test_of_very_many_cells_it_says_how_many_were_read(
    pbmc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_every_second(manifest: Manifest, *, most: int) -> CellSurvey:
        assert most == 4_000_000
        return replace(survey_cells(manifest), n_read=350)

    monkeypatch.setattr(holding, "survey_cells", read_every_second)
    assert "of 350 cells, evenly taken, and scaled" in str(describe(pbmc_dir))


def test_the_same_directory_is_drawn_as_the_same_bytes(pbmc_dir: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        describe(pbmc_dir).draw(tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "b.png").read_bytes()


def test_looking_changes_nothing(data_dir: Path, tmp_path: Path) -> None:
    before = digest_tree(data_dir)
    describe(data_dir).draw(tmp_path / "card.png")
    assert digest_tree(data_dir) == before


def test_a_value_of_nothing_but_blanks_is_seen() -> None:
    told = _tell_label("tissue", {"missing": 0, "values": {"": 3, "lung": 1}})
    assert [text.split("  ")[-1] for _, text in told] == ["2 values", "''", "lung"]
