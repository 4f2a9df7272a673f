"""A small bucket on disk is made once."""

from pathlib import Path

import pytest

from scdiff_data import Pbmc, SimulatedAtlas


@pytest.mark.parametrize("source", [Pbmc(), SimulatedAtlas(n_experiments=2, n_cells=5, n_genes=20)])
def test_files_are_written_once(tmp_path: Path, source: Pbmc | SimulatedAtlas) -> None:
    source.open(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    source.open(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
