"""What is remembered of the experiments tried, and for how long."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scdiff_data.archive.convert import ArchiveReport
from scdiff_data.base.files import FileEntry
from scdiff_data.reading.gene_axis import GeneAxis
from scdiff_data.sources.catalog import CatalogRow
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.records import ExperimentRecord, Records, list_experiments, sum_dropped
from support.cases import pbmc_recipe

AXIS = GeneAxis(("g1", "g2"), ("g1", "g2"))
ROW = CatalogRow("A", "A.h5ad", n_cells=6, size=3, checksum=None, columns={})
REPORT = ArchiveReport(
    n_cells_in_file=6,
    n_cells_passing=5,
    n_cells=5,
    n_saturated=0,
    n_genes_unknown=0,
    n_genes_missing=0,
    n_genes_duplicated=0,
    file_genes=AXIS.digest,
)


def records_of(folder: Path, *, retry_failed: bool = False, **changes: Any) -> Records:
    key_of = pbmc_recipe(**changes).archive_key
    return Records(DataDirectory(folder), key_of, retry_failed=retry_failed)


def archived(data_dir: Path, **changes: Any) -> dict[str, Any]:
    """What a record says of an archive that lies there."""
    (data_dir / "cells").mkdir(exist_ok=True)
    (data_dir / "cells" / "A.h5ad").write_bytes(b"abc")
    file = FileEntry("cells/A.h5ad", size=3, sha256="0")
    return {"report": replace(REPORT, **changes), "axis": AXIS.digest, "file": file}


def test_a_record_holds_while_its_settings_and_its_archive_do(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    assert records.find(ROW, AXIS) is None
    written = records.write(ROW, **archived(tmp_path))
    assert records.find(ROW, AXIS) == written
    assert records_of(tmp_path, n_hvgs=9, cell_count=7).find(ROW, AXIS) == written
    for changes in ({"min_genes": 3}, {"max_cells_per_experiment": 4}):
        assert records_of(tmp_path, **changes).find(ROW, AXIS) is None
    assert records.find(replace(ROW, size=4), AXIS) is None  # replaced upstream
    assert records.find(ROW, GeneAxis(("g2", "g1"), ("g2", "g1"))) is None
    (tmp_path / "cells" / "A.h5ad").write_bytes(b"ab")
    assert records.find(ROW, AXIS) is None


def test_the_first_experiment_must_have_given_the_reference_genes_itself(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    records.write(ROW, **archived(tmp_path, file_genes="others"))
    assert records.find(ROW, AXIS) is not None
    assert records.find(ROW, AXIS, is_reference=True) is None


def test_a_failure_holds_until_it_is_to_be_tried_again(tmp_path: Path) -> None:
    written = records_of(tmp_path).write(ROW, reason="gone")
    assert records_of(tmp_path).find(ROW, None) == written
    assert records_of(tmp_path, retry_failed=True).find(ROW, None) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key"'])
def test_a_damaged_record_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "A.json").write_text(text)
    assert records_of(tmp_path).find(ROW, AXIS) is None
    assert "A.json is damaged" in caplog.text


def test_every_experiment_and_every_cell_is_accounted_for() -> None:
    some = replace(REPORT, n_cells_in_file=10, n_cells_passing=8, n_cells=7, n_saturated=2)
    none = replace(REPORT, n_cells_in_file=4, n_cells_passing=0, n_cells=0)
    experiments = list_experiments(
        [
            ExperimentRecord("A", "key", report=some),
            ExperimentRecord("B", "key", report=none),
            ExperimentRecord("C", "key", reason="gone"),
        ],
        {"A": 6, "B": 0}.__getitem__,
    )
    assert [(e["status"], e["n_cells_drawn"]) for e in experiments] == [
        ("drawn", 6),
        ("skipped", 0),
        ("failed", 0),
    ]
    assert experiments[2]["reason"] == "gone"
    assert sum_dropped(experiments) == {
        "experiments_failed": 1,
        "experiments_skipped": 1,
        "cells_filtered": 0,
        "cells_failing_quality": 6,
        "cells_over_cap": 1,
        "cells_not_drawn": 1,
        "counts_saturated": 2,
    }
