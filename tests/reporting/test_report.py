"""A data report is one file that says what is in a prepared directory, for any of them."""

import re
import shutil
from pathlib import Path

import pytest

from scdiff_data import ManifestError, Recipe, SimulatedAtlas, prepare, write_data_report

SECTIONS = (
    *("What was drawn", "Depth and genes", "Splits and labels"),
    *("Batch effects", "Chosen genes", "Settings and files"),
)


def read_text(page: Path) -> str:
    """What a reader sees."""
    content = re.sub(r"<style>.*?</style>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", content))


def test_a_report_is_one_file_that_needs_no_other(pbmc_dir: Path, tmp_path: Path) -> None:
    names = ("a.html", "b/c.html", "b")  # the last one is a folder by then
    pages = [write_data_report(pbmc_dir, tmp_path / name) for name in names]
    found = [page.relative_to(tmp_path).as_posix() for page in pages]
    assert found == ["a.html", "b/c.html", "b/report.html"]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    content = pages[0].read_text("utf-8")
    assert set(re.findall(r'(?:src|href)="([^"]{5})', content)) == {"data:", "#part"}
    assert "http" not in re.sub(r"base64,[^\"]*", "", content)
    assert content.count("<img ") == 6
    text = read_text(pages[0])
    assert all(name in text for name in SECTIONS)
    assert "700 cells 7 experiments 64 genes chosen" in text
    assert "CD14+ Monocyte" in text
    assert "QC keeps every cell; all cells were asked for" in text


def test_it_says_what_was_lost_and_why(atlas_dir: Path, tmp_path: Path) -> None:
    text = read_text(write_data_report(atlas_dir, tmp_path / "page.html"))
    assert "no cell passes QC 2" in text
    assert "counts above 32,767, stored as 32,767 1 1" in text
    assert "QC keeps cells with at least" in text
    assert "depth differs" in text


def test_compact_shards_have_the_same_report_but_for_their_size(
    pbmc_dir: Path, compact_dir: Path, tmp_path: Path
) -> None:
    dense, compact = (
        read_text(write_data_report(path, tmp_path / f"{path.parent.name}.html"))
        for path in (pbmc_dir, compact_dir)
    )
    assert "Shards are dense" in dense
    assert "Shards are compact" in compact
    drawn = [
        text.split("What was drawn")[2].split("Settings and files")[0] for text in (dense, compact)
    ]
    assert drawn[0] == drawn[1]


def test_a_few_cells_of_one_experiment_without_labels_have_one_too(tmp_path: Path) -> None:
    source = SimulatedAtlas(n_experiments=1, n_cells=6, n_genes=30)
    split = {"by": "cell", "val": 0, "test": 0}
    settings = {"min_genes": None, "min_counts": None, "labels": [], "min_cells_pct": 0}
    prepare(Recipe(source=source, n_hvgs=8, split=split, **settings), tmp_path / "data")
    page = write_data_report(tmp_path / "data")
    assert page == tmp_path / "data" / "report.html"
    text = read_text(page)
    assert "The cells carry no labels" in text
    assert "Too few cells" in text


def test_what_is_damaged_or_not_there_is_an_error_that_says_so(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no shards in"):
        write_data_report(tmp_path)
    data_dir = tmp_path / "data"
    shutil.copytree(pbmc_dir, data_dir)
    table = data_dir / "metadata" / "cells.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(ManifestError, match=r"cells\.parquet"):
        write_data_report(data_dir)
    assert not (data_dir / "report.html").exists()
